"""When a campaign has had enough: pure functions of its limits and of what its trials are and took."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from core.campaign.campaign import Limits
from core.campaign.trials import TrialRecord, standing_of


@dataclass(frozen=True, slots=True)
class Spent:
    """What a campaign has used of its limits."""

    ended: int
    running: int
    hours: float
    """Wall time of all sessions."""
    timed: int
    """Trials whose time is known: those that ended or were interrupted."""
    gpu_hours: float
    """Of those trials. The last epochs of a trial that was killed with its driver are known to nobody."""

    @property
    def gpu_hours_with_another(self) -> float:
        """At the end of the running trials and of one more, if each takes as long as the others did on average."""
        expected = self.gpu_hours / self.timed if self.timed else 0.0
        return self.gpu_hours + (self.running + 1) * expected


def spent_by(trials: Sequence[TrialRecord], *, hours: float, gpu: float) -> Spent:
    """What these trials have used.

    Args:
        hours: wall time of all sessions.
        gpu: share of a GPU that one trial occupies.
    """
    standing = standing_of(trials)
    seconds = [trial.seconds for trial in trials if trial.seconds is not None]
    return Spent(standing.ended, standing.running, hours, len(seconds), sum(seconds) / 3600 * gpu)


def has_room(limits: Limits, spent: Spent) -> bool:
    """Whether the limits let another trial start."""
    return (
        spent.ended + spent.running < limits.trials
        and (limits.hours is None or spent.hours < limits.hours)
        and (limits.gpu_hours is None or spent.gpu_hours_with_another <= limits.gpu_hours)
    )


def failures_in_a_row(trials: Sequence[TrialRecord], *, session: int, limit: int) -> str | None:
    """The reasons, grouped, if the last trials of a session failed, as many as the limit; else None."""
    ended = [trial for trial in trials if trial.has_ended and trial.session == session]
    last = sorted(ended, key=lambda trial: trial.ended_at.timestamp() if trial.ended_at else 0.0)[-limit:]
    if len(last) < limit or any(trial.state != "failed" for trial in last):
        return None
    reasons = Counter(str(trial.reason) for trial in last)
    grouped = "; ".join(f"{count} × {reason}" for reason, count in reasons.most_common())
    return f"{limit} trials failed in a row ({grouped})"
