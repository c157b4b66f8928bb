"""When a campaign is done: its limits, which may change while it runs, and pure functions of them and its trials."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from core.campaign.campaign import Limits, read_limits
from core.campaign.trials import TrialRecord, standing_of
from core.errors import UserError
from core.files.folders import CampaignFolder


class CurrentLimits:
    """The limits of a campaign while it runs. The file of `crossmodal limits` is read whenever it was replaced.

    A file that cannot be read changes nothing, since a typing mistake must not end hours of trials; `crossmodal status`
    names it.
    """

    def __init__(self, folder: CampaignFolder, limits: Limits) -> None:
        """
        Args:
            limits: those that the search was asked for, which count until the file exists.
        """
        self._folder = folder
        self._limits = limits
        self._version: tuple[int, int] | None = None

    def read(self) -> Limits:
        """The limits as of now."""
        try:
            state = self._folder.limits.stat()
        except OSError:
            return self._limits
        version = (state.st_mtime_ns, state.st_ino)
        if version != self._version:
            self._version = version
            with suppress(UserError):
                self._limits = read_limits(self._folder)
        return self._limits


@dataclass(frozen=True, slots=True)
class Spent:
    """What a campaign has used up."""

    ended: int
    running: int
    hours: float
    """Wall time of all sessions."""
    timed: int
    """Trials whose duration is known: those that ended or were interrupted."""
    gpu_hours: float
    """GPU-hours of those trials. The time of a trial that was killed with its driver is unknown and not counted."""

    @property
    def gpu_hours_with_another(self) -> float:
        """Expected GPU-hours once the running trials and one more have ended, at the mean duration so far."""
        expected = self.gpu_hours / self.timed if self.timed else 0.0
        return self.gpu_hours + (self.running + 1) * expected


def spent_by(trials: Sequence[TrialRecord], *, hours: float, gpu: float) -> Spent:
    """What these trials have used up.

    Args:
        hours: wall time of all sessions.
        gpu: share of a GPU that one trial occupies.
    """
    standing = standing_of(trials)
    seconds = [trial.seconds for trial in trials if trial.seconds is not None]
    return Spent(standing.ended, standing.running, hours, len(seconds), sum(seconds) / 3600 * gpu)


def has_room(limits: Limits, spent: Spent) -> bool:
    """Whether the limits allow another trial to start."""
    return (
        spent.ended + spent.running < limits.trials
        and (limits.hours is None or spent.hours < limits.hours)
        and (limits.gpu_hours is None or spent.gpu_hours_with_another <= limits.gpu_hours)
    )


def failures_in_a_row(trials: Sequence[TrialRecord], *, session: int, limit: int) -> str | None:
    """Why the last `limit` trials of a session failed, grouped by reason; None if not all of them did."""
    ended = [trial for trial in trials if trial.has_ended and trial.session == session]
    last = sorted(ended, key=lambda trial: trial.ended_at.timestamp() if trial.ended_at else 0.0)[-limit:]
    if len(last) < limit or any(trial.state != "failed" for trial in last):
        return None
    reasons = Counter(str(trial.reason) for trial in last)
    grouped = "; ".join(f"{count} × {reason}" for reason, count in reasons.most_common())
    return f"{limit} trials failed in a row ({grouped})"
