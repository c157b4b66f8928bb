"""What the driver knows of the running trials, and how it is written down. Knows the ledger and the campaign folder,
not Ray: `search.session.tuner` tells it what Ray says.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from core.campaign.campaign import Campaign
from core.config import TrainConfig, config_hash, dump_yaml
from core.files.atomic import write_atomically
from core.files.folders import CampaignFolder
from core.files.json_files import append_json_line, write_json
from core.model.checkpoints import Checkpoint, save_checkpoint
from core.records import ALIGN, EpochMetrics, Receipt, best_epoch
from core.tracking import Tracker
from search.session.storage import Storage
from search.session.task import TrialTask
from search.study.ledger import Ledger, PlannedTrial, TrialOutcome

FingerprintOf = Callable[[TrainConfig], str]
OnChange = Callable[[], None]
Result = TypeVar("Result")


@dataclass(slots=True)
class _Running:
    """A trial that a worker is training."""

    planned: PlannedTrial
    started: float
    heard: float
    """When it last reported; both are times of the monotonic clock."""
    history: list[EpochMetrics] = field(default_factory=list)
    receipt: Receipt | None = None
    failure: str | None = None
    stopped_early: bool = False
    interrupted: bool = False


class SessionBook:
    """One session's running trials, by Ray's names for them."""

    def __init__(
        self,
        campaign: Campaign,
        folder: CampaignFolder,
        ledger: Ledger,
        storage: Storage,
        tracker: Tracker,
        fingerprint_of: FingerprintOf,
        on_change: OnChange,
    ) -> None:
        self._campaign = campaign
        self._folder = folder
        self._ledger = ledger
        self._storage = storage
        self._tracker = tracker
        self._fingerprint_of = fingerprint_of
        self._on_change = on_change
        self._running: dict[str, _Running] = {}
        self._stopping_since: float | None = None
        self._broken: Exception | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Ray snapshots the objects that hold this one; those snapshots are never read."""
        return {}

    def next_trial(self, ray_id: str) -> TrialTask | None:
        """Ask the ledger for a trial; returns the worker's task, or None at the limits or when stopping."""
        return self._unless_broken(lambda: self._next_trial(ray_id), None)

    def _next_trial(self, ray_id: str) -> TrialTask | None:
        planned = None if self._stopping_since is not None else self._ledger.ask()
        return None if planned is None else self._begin(ray_id, planned)

    def _begin(self, ray_id: str, planned: PlannedTrial) -> TrialTask:
        now = time.monotonic()
        trial = self._running[ray_id] = _Running(planned, now, now)
        config = planned.config
        fingerprint = self._fingerprint_of(config)
        write_atomically(self._folder.trial(planned.number).config, dump_yaml(config))
        self._tracker.start(_run_name(planned.number), config.model_dump(mode="json"))
        resume_from = self._take_up(trial, fingerprint)
        self._on_change()
        resources = self._campaign.resources
        return TrialTask(
            number=planned.number,
            config=config,
            fingerprint=fingerprint,
            storage=self._storage.root,
            resume_from=resume_from,
            threads=max(1, int(resources.cpu)),
            gpu=resources.gpu,
            checkpoint_every_s=self._campaign.checkpoint_every_s,
        )

    def record(self, ray_id: str, row: dict[str, Any]) -> bool:
        """Write down one report; returns whether the trial should stop now."""
        return self._unless_broken(lambda: self._record(ray_id, row), True)

    def _record(self, ray_id: str, row: dict[str, Any]) -> bool:
        trial = self._running.get(ray_id)
        if trial is None:
            return True
        trial.heard = time.monotonic()
        if failure := row.get("failure"):
            trial.failure = failure
            return False
        try:
            metrics = EpochMetrics.from_json(json.loads(row["metrics"]))
            trial.receipt = Receipt.from_json(json.loads(row["receipt"]))
        except ValueError as error:
            trial.failure = f"its report cannot be read: {' '.join(str(error).split())}"
            return True
        if any(earlier.epoch == metrics.epoch for earlier in trial.history):
            return False  # told again after a recovery
        self._note(trial, metrics)
        if metrics.epoch == trial.planned.config.recipe.epochs - 1:
            return False
        trial.stopped_early = self._ledger.should_stop(trial.planned.number)
        trial.interrupted = self._stopping_since is not None and not trial.stopped_early
        return trial.stopped_early or trial.interrupted

    def finish(self, ray_id: str, checkpoint: Checkpoint | None, crash: str | None) -> None:
        """Tell the ledger how a trial ended, and keep its receipt and best checkpoint.

        Args:
            checkpoint: the last one that arrived whole.
        """
        self._unless_broken(lambda: self._finish(ray_id, checkpoint, crash), None)

    def _finish(self, ray_id: str, checkpoint: Checkpoint | None, crash: str | None) -> None:
        trial = self._running.pop(ray_id, None)
        if trial is None:
            return
        number = trial.planned.number
        if trial.interrupted:
            self._ledger.interrupt(number, seconds=time.monotonic() - trial.started)
            self._tracker.finish(_run_name(number), {"state": "interrupted"}, failed=True)
            self._on_change()
            return
        kept = self._folder.trial(number)
        outcome = self._outcome(trial, crash, checkpoint)
        if trial.receipt is not None:
            write_json(kept.receipt, trial.receipt.to_json())
        if checkpoint is not None and outcome.state == "complete":
            save_checkpoint(kept.best_checkpoint, checkpoint.best())
        self._ledger.tell(number, outcome)
        epoch = None if outcome.best is None else outcome.best.epoch
        summary = {"state": outcome.state, "best_value": outcome.value, "best_epoch": epoch}
        self._tracker.finish(_run_name(number), summary | {"reason": outcome.reason}, failed=outcome.state == "failed")
        self._on_change()

    def stop(self) -> None:
        """Hand out no more trials, and stop the running ones at the end of their epochs."""
        self._stopping_since = self._stopping_since or time.monotonic()

    def stopping_for(self) -> float:
        """Seconds since `stop`; 0 if it was not called."""
        return 0.0 if self._stopping_since is None else time.monotonic() - self._stopping_since

    def silent(self) -> list[str]:
        """Trials that have not reported for `trial_timeout_s`; each is given up and named once."""
        limit, now = self._campaign.trial_timeout_s, time.monotonic()
        hanging = [name for name, trial in self._running.items() if now - trial.heard > limit and not trial.failure]
        for name in hanging:
            self._running[name].failure = f"no report for {limit:g} s"
        return hanging

    def close(self) -> None:
        """Tell the ledger of trials that had no time to stop: they are interrupted.

        Raises:
            Exception: what kept the book from being written during the session; its open trials are retried next time.
        """
        for name in list(self._running):
            self._running[name].interrupted = True
            self.finish(name, None, crash=None)
        if self._broken is not None:
            raise self._broken

    def _unless_broken(self, act: Callable[[], Result], otherwise: Result) -> Result:
        """Ray would take our error (a full disk, a lost database) for the trial's own, and go on. Instead it ends the
        session, and nothing more is written: a second line after a torn one would spoil the journal.
        """
        if self._broken is not None:
            return otherwise
        try:
            return act()
        except Exception as error:
            self._broken = error
            self.stop()
            return otherwise

    def _take_up(self, trial: _Running, fingerprint: str) -> str | None:
        """Where the trials that this one retries left off: notes their epochs, and returns the latest checkpoint.

        The last of them may have died before its first checkpoint, so all are looked at.
        """
        found: list[tuple[int, str, Checkpoint]] = []
        for path in [path for number in trial.planned.lineage for path in self._storage.checkpoints_of(number)]:
            checkpoint = self._storage.read_checkpoint(path)
            if checkpoint is not None and _continues(checkpoint, trial.planned.config, fingerprint):
                found.append((checkpoint.epoch, path, checkpoint))
        if not found:
            return None
        _, latest, checkpoint = max(found, key=lambda each: each[0])
        for metrics in checkpoint.history:
            self._note(trial, metrics)
        return latest

    def _note(self, trial: _Running, metrics: EpochMetrics) -> None:
        number = trial.planned.number
        trial.history.append(metrics)
        append_json_line(self._folder.trial(number).metrics, metrics.to_json())
        self._tracker.epoch(_run_name(number), metrics)
        self._ledger.record(number, metrics.epoch, self._objective(metrics))

    def _outcome(self, trial: _Running, crash: str | None, checkpoint: Checkpoint | None) -> TrialOutcome:
        reason = trial.failure or crash or _receipt_mismatch(trial)
        best = _scored_epoch(trial)
        if reason is None:
            reason = self._incomplete(trial, best, checkpoint)
        return TrialOutcome(
            state="failed" if reason else "pruned" if trial.stopped_early else "complete",
            value=None if best is None else self._objective(best),
            best=best,
            reason=reason,
            seconds=time.monotonic() - trial.started,
        )

    def _incomplete(self, trial: _Running, best: EpochMetrics | None, checkpoint: Checkpoint | None) -> str | None:
        if not trial.history:
            return "ended without a report"
        if trial.stopped_early:
            return None
        if best is None or len(trial.history) < trial.planned.config.recipe.epochs:
            return f"ended after {len(trial.history)} of {trial.planned.config.recipe.epochs} epochs"
        if not math.isfinite(self._objective(best)):
            return f"the objective is {self._objective(best)}"
        return None if checkpoint is not None else "its checkpoint did not arrive whole"

    def _objective(self, metrics: EpochMetrics) -> float:
        return float(getattr(metrics, self._campaign.objective))


def _continues(checkpoint: Checkpoint, config: TrainConfig, fingerprint: str) -> bool:
    return (checkpoint.config, checkpoint.fingerprint) == (config, fingerprint)


def _scored_epoch(trial: _Running) -> EpochMetrics | None:
    """None for a trial that was stopped before its joint stage: epochs of alignment alone score nothing there."""
    if not trial.history:
        return None
    best, recipe = best_epoch(trial.history, trial.planned.config.objective), trial.planned.config.recipe
    return None if best.stage == ALIGN and recipe.stage1_epochs < recipe.epochs else best


def _run_name(number: int) -> str:
    return f"trial-{number:04d}"


def _receipt_mismatch(trial: _Running) -> str | None:
    """A worker must have trained what was asked: hyperparameters that never arrive are a classic."""
    if trial.receipt is None:
        return None
    asked = trial.planned.config
    if trial.receipt.config_hash != config_hash(asked):
        return "the receipt's configuration is not the one that was asked"
    rates = {group["learning_rate"] for group in trial.receipt.optimizer_groups}
    if asked.optimizer.learning_rate not in rates:
        return f"the optimizer held learning rates {sorted(rates)}, not {asked.optimizer.learning_rate}"
    return None
