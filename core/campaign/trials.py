"""The trials of a campaign, and what follows from them: the baseline, retries, and the state of the campaign.

`core.campaign.study` reads the records from the study; this module is independent of Optuna.
"""

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from core.records import EpochMetrics
from core.sections import Scalar

State = Literal["complete", "pruned", "failed", "running", "waiting", "imported"]
"""An imported trial is one of another campaign (`warm_start`): the sampler knows it, and it has neither files nor a
share in figures and limits."""
ENDED: tuple[State, ...] = ("complete", "pruned", "failed")
SCORED: tuple[State, ...] = ("complete", "pruned")
"""States of trials that ended without an error, whose metrics count."""
STALE = "stale"
"""Reason of an interrupted trial: another one retries it, and it does not count itself."""
REASON_WIDTH = 300
BASELINE = 0
"""Number of the first trial, which runs the campaign's own configuration."""


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial as stored in the study, the only source of its metrics."""

    number: int
    state: State
    origin: int
    """Number of the first trial in its chain of retries; its own number unless it is a retry."""
    retry_of: int | None = None
    """Number of the interrupted trial that this one continues."""
    confirms: int | None = None
    """Number of the trial of the search that this one repeats with another seed; None in a search."""
    seed: int | None = None
    """Seed of such a repeat."""
    imported_from: str | None = None
    """Folder and number of the trial of another campaign that this one stands for."""
    settings_from: str | None = None
    """Folder and number of the trial of another campaign whose settings this one tries."""
    reason: str | None = None
    """Why it failed; STALE if it was interrupted."""
    value: float | None = None
    """Objective at the best epoch, higher is better."""
    best: EpochMetrics | None = None
    """Metrics of the best epoch."""
    reports: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    """Number of epochs trained → value of each goal then."""
    seconds: float | None = None
    session: int | None = None
    """Number of the session that ran it, from 1."""
    config_hash: str | None = None
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    """Optuna's name of each drawn parameter → value."""
    ended_at: datetime | None = None
    trainable_parameters: int | None = None
    broken: tuple[str, ...] = ()
    """Figures that break a constraint of the campaign: such a trial is never the best."""

    on_front: bool = False
    """Whether no other trial beats it in all goals; only in campaigns with several."""

    @property
    def epochs(self) -> int:
        """Number of epochs reported so far."""
        return len(self.reports)

    def figure(self, name: str) -> float | None:
        """A figure of the best epoch, or the number of trainable parameters; None where the trial has none."""
        return figure_of(name, self.best, self.trainable_parameters)

    @property
    def name(self) -> str:
        """Unique in the campaign: trial-0012, or confirm-0003-trial-0012-seed-2."""
        if self.confirms is None:
            return f"trial-{self.number:04d}"
        return f"confirm-{self.number:04d}-trial-{self.confirms:04d}-seed-{self.seed}"

    @property
    def is_baseline(self) -> bool:
        """Whether this is the first trial, or a retry of it."""
        return self.origin == BASELINE

    @property
    def repeats_baseline(self) -> bool:
        """Whether it has the baseline's settings: the baseline itself, or what confirms it."""
        return self.is_baseline if self.confirms is None else self.confirms == BASELINE

    @property
    def is_stale(self) -> bool:
        """Whether it was interrupted and another trial retries it."""
        return self.reason == STALE

    @property
    def has_ended(self) -> bool:
        """Whether it is complete, pruned or failed, and not stale: it counts towards the limit of trials."""
        return self.state in ENDED and not self.is_stale


def figure_of(name: str, metrics: EpochMetrics | None, trainable_parameters: int | None) -> float | None:
    """A figure of an epoch, or the number of trainable parameters; None where it was not measured."""
    found = trainable_parameters if name == "trainable_parameters" else getattr(metrics, name, None)
    return None if found is None else float(found)


def earlier_attempts(trials: Sequence[TrialRecord], number: int) -> list[int]:
    """Numbers of the interrupted trials that a trial continues, the latest first.

    Args:
        trials: all trials, in order of their numbers.
        number: number of the trial.
    """
    origin = trials[number].origin
    return [trial.number for trial in reversed(trials[:number]) if trial.origin == origin]


def gain_over_baseline(trials: Sequence[TrialRecord], trial: TrialRecord) -> float | None:
    """Value of a trial minus the baseline's; of one that confirms another, minus the baseline's under the same seed.

    None as long as one of the two is unknown.

    Args:
        trials: all of the search or the confirmation that the trial belongs to.
    """
    complete = (each.value for each in _baselines(trials, trial) if each.state == "complete")
    baseline = next(complete, None)
    return None if trial.value is None or baseline is None else trial.value - baseline


def awaits_baseline(trials: Sequence[TrialRecord], trial: TrialRecord) -> bool:
    """Whether the gain of a trial is going to be known only later."""
    unknown = trial.value is not None and gain_over_baseline(trials, trial) is None
    return unknown and any(each.state in ("running", "waiting") for each in _baselines(trials, trial))


def _baselines(trials: Sequence[TrialRecord], trial: TrialRecord) -> list[TrialRecord]:
    """The baseline that a trial is compared with, and what it retries."""
    return [each for each in trials if each.repeats_baseline and each.seed == trial.seed]


@dataclass(frozen=True, slots=True)
class Standing:
    """State of a campaign: number of trials by state, the best trial and the baseline."""

    complete: int = 0
    pruned: int = 0
    failed: int = 0
    interrupted: int = 0
    """Stale trials; their retries are counted separately."""
    running: int = 0
    waiting: int = 0
    imported: int = 0
    """Trials of other campaigns that the sampler knows."""
    best: tuple[int, float] | None = None
    """Number and value of the best complete trial that keeps the constraints."""
    baseline: float | None = None
    """Value of the baseline, once it is complete."""

    @property
    def ended(self) -> int:
        """Number of trials that count towards the limit."""
        return self.complete + self.pruned + self.failed

    @property
    def gain(self) -> float | None:
        """Difference of the best trial to the baseline; None until both are complete."""
        return None if self.best is None or self.baseline is None else self.best[1] - self.baseline

    @property
    def states(self) -> dict[str, int]:
        """State → number of trials, in the order to print."""
        names = ("complete", "pruned", "failed", "interrupted", "running", "waiting", "imported")
        return {name: getattr(self, name) for name in names}


def baseline_of(trials: Iterable[TrialRecord]) -> TrialRecord | None:
    """The baseline, once it is complete."""
    return next((trial for trial in trials if trial.is_baseline and trial.state == "complete"), None)


def failures_of(trials: Iterable[TrialRecord]) -> dict[str, int]:
    """Reason → number of trials that failed for it, most frequent first; retried trials do not count."""
    failed = [trial for trial in trials if trial.state == "failed" and not trial.is_stale]
    return count_reasons(str(trial.reason) for trial in failed)


def count_reasons(reasons: Iterable[str]) -> dict[str, int]:
    """Reasons of failures, shortened → how often each stands there, most frequent first."""
    return dict(Counter(textwrap.shorten(reason, REASON_WIDTH, placeholder=" …") for reason in reasons).most_common())


def standing_of(trials: Sequence[TrialRecord]) -> Standing:
    """Count the trials by state, and find the best one and the baseline."""
    counts = Counter("interrupted" if trial.is_stale else trial.state for trial in trials)
    eligible = [trial for trial in trials if trial.state == "complete" and not trial.broken]
    values = [(trial.number, trial.value) for trial in eligible if trial.value is not None]
    baseline = baseline_of(trials)
    return Standing(
        complete=counts["complete"],
        pruned=counts["pruned"],
        failed=counts["failed"],
        interrupted=counts["interrupted"],
        running=counts["running"],
        waiting=counts["waiting"],
        imported=counts["imported"],
        best=max(values, key=lambda each: each[1], default=None),
        baseline=None if baseline is None else baseline.value,
    )
