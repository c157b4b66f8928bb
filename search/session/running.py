"""A running trial as reported by its worker, and its outcome once it has ended."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from core.campaign.goals import Goals
from core.campaign.trials import figure_of
from core.config import config_hash
from core.records import ALIGN, EpochMetrics, Receipt, best_epoch
from search.study.ledger import AskedTrial, TrialOutcome

if TYPE_CHECKING:
    from core.model.checkpoints import Checkpoint


@dataclass(slots=True)
class RunningTrial:
    """State of a running trial; times are those of the monotonic clock."""

    asked: AskedTrial
    started: float
    heard: float
    """Time of its last report."""
    history: list[EpochMetrics] = field(default_factory=list)
    receipt: Receipt | None = None
    failure: str | None = None
    stopped_early: bool = False
    interrupted: bool = False


def judge(trial: RunningTrial, checkpoint: "Checkpoint | None", *, crash: str | None, now: float) -> TrialOutcome:
    """How a trial ended.

    Args:
        checkpoint: the last intact one.
        crash: why its worker died, according to Ray.
        now: on the monotonic clock.
    """
    best = _scored_epoch(trial)
    reason = trial.failure or crash or _receipt_mismatch(trial) or _incomplete(trial, best, checkpoint)
    return TrialOutcome(
        state="failed" if reason else "pruned" if trial.stopped_early else "complete",
        value=None if best is None else objective_of(trial, best),
        best=best,
        reason=reason,
        seconds=now - trial.started,
        trainable_parameters=None if trial.receipt is None else trial.receipt.parameters,
    )


def objective_of(trial: RunningTrial, metrics: EpochMetrics) -> float:
    """Value of the trial's objective at an epoch."""
    return float(getattr(metrics, trial.asked.config.objective))


def goal_values(trial: RunningTrial, metrics: EpochMetrics, goals: Goals) -> list[float]:
    """Value of each goal at an epoch; NaN where the data have nothing to measure it on."""
    parameters = None if trial.receipt is None else trial.receipt.parameters
    found = [figure_of(goal.figure, metrics, parameters) for goal in goals]
    return [math.nan if value is None else value for value in found]


def _incomplete(trial: RunningTrial, best: EpochMetrics | None, checkpoint: "Checkpoint | None") -> str | None:
    epochs = trial.asked.config.recipe.epochs
    if not trial.history:
        return "ended without a report"
    if trial.stopped_early:
        return None
    if best is None or len(trial.history) < epochs:
        return f"ended after {len(trial.history)} of {epochs} epochs"
    if not math.isfinite(objective_of(trial, best)):
        return f"the objective is {objective_of(trial, best)}"
    return None if checkpoint is not None else "its last checkpoint is missing or torn"


def _scored_epoch(trial: RunningTrial) -> EpochMetrics | None:
    """The epoch that scores a trial; None if it stopped before its joint stage, since alignment epochs do not count."""
    if not trial.history:
        return None
    best, recipe = best_epoch(trial.history, trial.asked.config.objective), trial.asked.config.recipe
    return None if best.stage == ALIGN and recipe.stage1_epochs < recipe.epochs else best


def _receipt_mismatch(trial: RunningTrial) -> str | None:
    """How the receipt contradicts the configuration, e.g. because a setting never reached the optimizer; else None."""
    if trial.receipt is None:
        return None
    asked = trial.asked.config
    if trial.receipt.config_hash != config_hash(asked):
        return "the receipt is of another configuration than requested"
    rates = {group["learning_rate"] for group in trial.receipt.optimizer_groups}
    if asked.optimizer.learning_rate not in rates:
        return f"the optimizer had learning rates {sorted(rates)}, not {asked.optimizer.learning_rate}"
    return None
