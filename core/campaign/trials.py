"""A campaign's trials, and what follows from them: who is the baseline, what has ended, and where the campaign stands.

`core.campaign.study` reads the records from the study; nothing here knows Optuna.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from core.config import Scalar
from core.records import EpochMetrics

State = Literal["complete", "pruned", "failed", "running", "waiting"]
ENDED: tuple[State, ...] = ("complete", "pruned", "failed")
SCORED: tuple[State, ...] = ("complete", "pruned")
"""States of trials that ended well: their figures count."""
STALE = "stale"
"""Reason of an interrupted trial: another one retries it, and it counts for nothing itself."""
BASELINE = 0
"""Number of the first trial, which runs the campaign's base configuration."""


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial, as the study holds it; the study is the one source of its figures."""

    number: int
    state: State
    origin: int
    """First trial of its line of retries; its own number unless it is a retry."""
    retry_of: int | None = None
    """The interrupted trial that this one continues."""
    reason: str | None = None
    """Why it failed; STALE if it was interrupted."""
    value: float | None = None
    """Objective at the best epoch."""
    best: EpochMetrics | None = None
    """The best epoch."""
    epochs: int = 0
    """Reported so far."""
    seconds: float | None = None
    session: int | None = None
    """Number of the session that ran it, from 1."""
    config_hash: str | None = None
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    """What was drawn for it."""
    ended_at: datetime | None = None

    @property
    def is_baseline(self) -> bool:
        """Whether this is the first trial, or continues it after any number of interruptions."""
        return self.origin == BASELINE

    @property
    def is_stale(self) -> bool:
        return self.reason == STALE

    @property
    def has_ended(self) -> bool:
        """Whether it is complete, pruned or failed for good, so that it counts against the limit of trials."""
        return self.state in ENDED and not self.is_stale


def earlier_attempts(trials: Sequence[TrialRecord], number: int) -> list[int]:
    """The interrupted trials that a trial continues, the last one first.

    Args:
        trials: all of them, in order of their numbers.
    """
    origin = trials[number].origin
    return [trial.number for trial in reversed(trials[:number]) if trial.origin == origin]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a campaign stands: its trials by state, the best of them and the baseline."""

    complete: int = 0
    pruned: int = 0
    failed: int = 0
    interrupted: int = 0
    """Stale trials; each is counted again as the one that retries it."""
    running: int = 0
    waiting: int = 0
    best: tuple[int, float] | None = None
    """Number and value of the best complete trial."""
    baseline: float | None = None
    """Value of the baseline, once it is complete."""

    @property
    def ended(self) -> int:
        return self.complete + self.pruned + self.failed

    @property
    def gain(self) -> float | None:
        """Of the best trial over the baseline."""
        return None if self.best is None or self.baseline is None else self.best[1] - self.baseline

    @property
    def states(self) -> dict[str, int]:
        """State → trials, as people read it."""
        names = ("complete", "pruned", "failed", "interrupted", "running", "waiting")
        return {name: getattr(self, name) for name in names}


def standing_of(trials: Sequence[TrialRecord]) -> Standing:
    """Where a campaign with these trials stands."""
    counts = Counter("interrupted" if trial.is_stale else trial.state for trial in trials)
    complete = [trial for trial in trials if trial.state == "complete"]
    values = [(trial.number, trial.value) for trial in complete if trial.value is not None]
    return Standing(
        complete=counts["complete"],
        pruned=counts["pruned"],
        failed=counts["failed"],
        interrupted=counts["interrupted"],
        running=counts["running"],
        waiting=counts["waiting"],
        best=max(values, key=lambda each: each[1], default=None),
        baseline=next((trial.value for trial in complete if trial.is_baseline), None),
    )
