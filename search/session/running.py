"""A trial that a worker trains, as far as it has reported, and the verdict on it once it has ended."""

import math
from dataclasses import dataclass, field

from core.config import config_hash
from core.model.checkpoints import Checkpoint
from core.records import ALIGN, EpochMetrics, Receipt, best_epoch
from search.study.ledger import AskedTrial, TrialOutcome


@dataclass(slots=True)
class RunningTrial:
    """What is known of it; times are those of the monotonic clock."""

    asked: AskedTrial
    started: float
    heard: float
    """When it last reported."""
    history: list[EpochMetrics] = field(default_factory=list)
    receipt: Receipt | None = None
    failure: str | None = None
    stopped_early: bool = False
    interrupted: bool = False


def judge(trial: RunningTrial, checkpoint: Checkpoint | None, *, crash: str | None, now: float) -> TrialOutcome:
    """How a trial ended.

    Args:
        checkpoint: the last one that arrived whole.
        crash: what Ray says of its worker's death.
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
    )


def objective_of(trial: RunningTrial, metrics: EpochMetrics) -> float:
    """What the trial is scored by, at one of its epochs."""
    return float(getattr(metrics, trial.asked.config.objective))


def _incomplete(trial: RunningTrial, best: EpochMetrics | None, checkpoint: Checkpoint | None) -> str | None:
    epochs = trial.asked.config.recipe.epochs
    if not trial.history:
        return "ended without a report"
    if trial.stopped_early:
        return None
    if best is None or len(trial.history) < epochs:
        return f"ended after {len(trial.history)} of {epochs} epochs"
    if not math.isfinite(objective_of(trial, best)):
        return f"the objective is {objective_of(trial, best)}"
    return None if checkpoint is not None else "its checkpoint did not arrive whole"


def _scored_epoch(trial: RunningTrial) -> EpochMetrics | None:
    """None for a trial that was stopped before its joint stage: epochs of alignment alone score nothing there."""
    if not trial.history:
        return None
    best, recipe = best_epoch(trial.history, trial.asked.config.objective), trial.asked.config.recipe
    return None if best.stage == ALIGN and recipe.stage1_epochs < recipe.epochs else best


def _receipt_mismatch(trial: RunningTrial) -> str | None:
    """A worker must have trained what was asked: hyperparameters that never arrive are a classic."""
    if trial.receipt is None:
        return None
    asked = trial.asked.config
    if trial.receipt.config_hash != config_hash(asked):
        return "the receipt's configuration is not the one that was asked"
    rates = {group["learning_rate"] for group in trial.receipt.optimizer_groups}
    if asked.optimizer.learning_rate not in rates:
        return f"the optimizer held learning rates {sorted(rates)}, not {asked.optimizer.learning_rate}"
    return None
