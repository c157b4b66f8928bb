"""The running trials as the driver knows them, and what it decides about them. Knows the ledger, not Ray:
`search.session.tuner` passes on Ray's events.
"""

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from core.config import TrainConfig
from core.records import EpochMetrics, Receipt
from search.session.running import RunningTrial, goal_values, judge
from search.session.storage import Storage
from search.session.task import TrialTask
from search.session.trial_log import TrialLog
from search.study.ledger import AskedTrial, Ledger

if TYPE_CHECKING:
    from core.model.checkpoints import Checkpoint

FingerprintOf = Callable[[TrainConfig], str]
OnChange = Callable[[], None]
Result = TypeVar("Result")


class SessionBook:
    """The running trials of one session, by Ray's trial ids."""

    def __init__(
        self, ledger: Ledger, log: TrialLog, storage: Storage, fingerprint_of: FingerprintOf, on_change: OnChange
    ) -> None:
        self._ledger = ledger
        self._campaign = ledger.campaign
        self._log = log
        self._storage = storage
        self._fingerprint_of = fingerprint_of
        self._on_change = on_change
        self._running: dict[str, RunningTrial] = {}
        self._stopping_since: float | None = None
        self._broken: Exception | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Ray snapshots objects that contain this one; the snapshots are never read."""
        return {}

    def next_trial(self, ray_id: str) -> TrialTask | None:
        """Ask the ledger for a trial; returns the worker's task, or None at the limits or while stopping."""
        return self._unless_broken(lambda: self._next_trial(ray_id), None)

    def _next_trial(self, ray_id: str) -> TrialTask | None:
        asked = None if self._stopping_since is not None else self._ledger.ask()
        return None if asked is None else self._begin(ray_id, asked)

    def _begin(self, ray_id: str, asked: AskedTrial) -> TrialTask:
        now = time.monotonic()
        trial = self._running[ray_id] = RunningTrial(asked, now, now)
        fingerprint = self._fingerprint_of(asked.config)
        self._log.begin(asked)
        resume_from = self._resume_point(trial, fingerprint)
        self._on_change()
        resources = self._campaign.resources
        return TrialTask(
            number=asked.number,
            config=asked.config,
            fingerprint=fingerprint,
            storage=self._storage.root,
            resume_from=resume_from,
            threads=resources.threads,
            gpu=resources.gpu,
            checkpoint_every_s=self._campaign.checkpoint_every_s,
        )

    def is_over(self) -> bool:
        """Whether no trial will start any more. While others run, the limits may still be raised."""
        return self._unless_broken(self._is_over, True)

    def _is_over(self) -> bool:
        return self._stopping_since is not None or not self._running or self._ledger.stop_reason is not None

    def record(self, ray_id: str, row: dict[str, Any]) -> bool:
        """Store one report; returns whether the trial should stop now."""
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
            return False  # reported again after a recovery
        self._log_epoch(trial, metrics)
        if metrics.epoch == trial.asked.config.recipe.epochs - 1:
            return False
        trial.stopped_early = self._ledger.should_stop(trial.asked.number)
        trial.interrupted = self._stopping_since is not None and not trial.stopped_early
        return trial.stopped_early or trial.interrupted

    def finish(self, ray_id: str, checkpoint: "Checkpoint | None", crash: str | None) -> None:
        """Tell the ledger how a trial ended, and keep its receipt and best checkpoint.

        Args:
            checkpoint: the last intact one.
        """
        self._unless_broken(lambda: self._finish(ray_id, checkpoint, crash), None)

    def put_back(self, ray_id: str) -> None:
        """Put a trial back in the queue that had no time to end, or that Ray gave up though it may be tried again."""
        if trial := self._running.get(ray_id):
            trial.interrupted = True
            self.finish(ray_id, None, crash=None)

    def _finish(self, ray_id: str, checkpoint: "Checkpoint | None", crash: str | None) -> None:
        trial = self._running.pop(ray_id, None)
        if trial is None:
            return
        number, now = trial.asked.number, time.monotonic()
        if trial.interrupted:
            self._log.interrupt(number, seconds=now - trial.started)
        else:
            self._log.end(number, judge(trial, checkpoint, crash=crash, now=now), trial.receipt, checkpoint)
        self._on_change()

    def stop(self) -> None:
        """Start no more trials, and stop the running ones at the end of their epochs."""
        self._stopping_since = self._stopping_since or time.monotonic()

    def stopping_for(self) -> float:
        """Seconds since `stop`; 0 if it was not called."""
        return 0.0 if self._stopping_since is None else time.monotonic() - self._stopping_since

    def silent(self) -> list[str]:
        """Ray ids of trials without a report for `trial_timeout_s`; each is marked as failed and returned once."""
        limit, now = self._campaign.trial_timeout_s, time.monotonic()
        hanging = [name for name, trial in self._running.items() if now - trial.heard > limit and not trial.failure]
        for name in hanging:
            self._running[name].failure = f"no report for {limit:g} s"
        return hanging

    def close(self) -> None:
        """Mark the trials that had no time to stop as interrupted.

        Raises:
            Exception: the error of the driver's own that ended the session; its open trials are retried next time.
        """
        for name in list(self._running):
            self.put_back(name)
        if self._broken is not None:
            raise self._broken

    def _unless_broken(self, act: Callable[[], Result], otherwise: Result) -> Result:
        """Ray would attribute our error (a full disk, a lost database) to the trial, and go on. Instead it ends the
        session, and nothing more is written: a line after a torn one would corrupt the journal.
        """
        if self._broken is not None:
            return otherwise
        try:
            return act()
        except Exception as error:
            self._broken = error
            self.stop()
            return otherwise

    def _resume_point(self, trial: RunningTrial, fingerprint: str) -> str | None:
        """Path of the latest checkpoint of the trials that this one retries; its epochs are logged again.

        The last of them may have died before its first checkpoint, so all are searched.
        """
        candidates: list[tuple[int, str, Checkpoint]] = []
        for path in [path for number in trial.asked.lineage for path in self._storage.checkpoints_of(number)]:
            checkpoint = self._storage.read_checkpoint(path)
            if checkpoint is not None and _continues(checkpoint, trial.asked.config, fingerprint):
                candidates.append((checkpoint.epoch, path, checkpoint))
        if not candidates:
            return None
        _, latest, checkpoint = max(candidates, key=lambda each: each[0])
        trial.receipt = checkpoint.receipt
        for metrics in checkpoint.history:
            self._log_epoch(trial, metrics)
        return latest

    def _log_epoch(self, trial: RunningTrial, metrics: EpochMetrics) -> None:
        trial.history.append(metrics)
        self._log.epoch(trial.asked.number, metrics, goal_values(trial, metrics, self._campaign.goals))


def _continues(checkpoint: "Checkpoint", config: TrainConfig, fingerprint: str) -> bool:
    return (checkpoint.config, checkpoint.fingerprint) == (config, fingerprint)
