"""One session: a disposable Ray Tuner over the study. Ray runs the trials, the ledger decides and remembers.

Ray's own record of the session is never read again; whatever must survive goes through the ledger or into the
campaign folder, written by this process alone.
"""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from core.checkpoints import load_checkpoint, save_checkpoint
from core.config import TrainConfig, config_hash, dump_yaml
from core.files import CampaignFolder, append_json_line, write_atomically, write_json
from core.records import EpochMetrics, Receipt
from core.tracking import Tracker
from search.config import Campaign
from search.study import Ledger, PlannedTrial, TrialOutcome
from search.trainable import CHECKPOINT_NAME, run_trial

FingerprintOf = Callable[[TrainConfig], str]
OnChange = Callable[[], None]
MAX_RECOVERIES = 3
"""How often one trial may move to another worker after its node or process died."""


@dataclass(slots=True)
class _Running:
    """A trial that a worker is training."""

    planned: PlannedTrial
    started: float
    history: list[EpochMetrics] = field(default_factory=list)
    receipt: Receipt | None = None
    failure: str | None = None
    stopped_early: bool = False


class SessionBook:
    """What the driver knows of the running trials, and how it is written down."""

    def __init__(
        self,
        campaign: Campaign,
        folder: CampaignFolder,
        ledger: Ledger,
        tracker: Tracker,
        fingerprint_of: FingerprintOf,
        on_change: OnChange,
    ) -> None:
        self._campaign = campaign
        self._folder = folder
        self._ledger = ledger
        self._tracker = tracker
        self._fingerprint_of = fingerprint_of
        self._on_change = on_change
        self._running: dict[str, _Running] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Ray snapshots the objects that hold this one; those snapshots are never read."""
        return {}

    def next_trial(self, ray_id: str) -> dict[str, Any] | None:
        """Ask the ledger for a trial; returns the worker's payload, or None when the campaign is at its limits."""
        planned = self._ledger.ask()
        if planned is None:
            return None
        self._running[ray_id] = _Running(planned, time.monotonic())
        config = planned.config
        write_atomically(self._folder.trial(planned.number).config, dump_yaml(config))
        self._tracker.start(_run_name(planned.number), config.model_dump(mode="json"))
        self._on_change()
        resources = self._campaign.resources
        return {
            "number": planned.number,
            "config": config.model_dump(mode="json"),
            "fingerprint": self._fingerprint_of(config),
            "threads": max(1, int(resources.cpu)),
            "gpu": resources.gpu,
            "checkpoint_every_s": self._campaign.checkpoint_every_s,
        }

    def record(self, ray_id: str, row: dict[str, Any]) -> bool:
        """Write down one report; returns whether the trial should stop early."""
        trial = self._running[ray_id]
        if failure := row.get("failure"):
            trial.failure = failure
            return False
        metrics = EpochMetrics.from_json(json.loads(row["metrics"]))
        trial.receipt = Receipt.from_json(json.loads(row["receipt"]))
        if any(earlier.epoch == metrics.epoch for earlier in trial.history):
            return False  # told again after a recovery
        trial.history.append(metrics)
        number = trial.planned.number
        append_json_line(self._folder.trial(number).metrics, metrics.to_json())
        self._tracker.epoch(_run_name(number), metrics)
        self._ledger.record(number, metrics.epoch, self._objective(metrics))
        is_last = metrics.epoch == trial.planned.config.recipe.epochs - 1
        trial.stopped_early = not is_last and self._ledger.should_stop(number)
        return trial.stopped_early

    def finish(self, ray_id: str, checkpoint: Path | None, crash: str | None) -> None:
        """Tell the ledger how a trial ended, and keep its receipt and best checkpoint."""
        trial = self._running.pop(ray_id, None)
        if trial is None:
            return
        outcome = self._outcome(trial, crash)
        kept = self._folder.trial(trial.planned.number)
        if trial.receipt is not None:
            write_json(kept.receipt, trial.receipt.to_json())
        if checkpoint is not None and outcome.state == "complete":
            save_checkpoint(kept.best_checkpoint, load_checkpoint(checkpoint / CHECKPOINT_NAME).best())
        self._ledger.tell(trial.planned.number, outcome)
        summary = {"state": outcome.state, "best_value": outcome.value, "best_epoch": outcome.best_epoch}
        self._tracker.finish(
            _run_name(trial.planned.number), summary | {"reason": outcome.reason}, failed=outcome.state == "failed"
        )
        self._on_change()

    def _outcome(self, trial: _Running, crash: str | None) -> TrialOutcome:
        seconds = time.monotonic() - trial.started
        reason = trial.failure or crash or _receipt_mismatch(trial)
        best = max(trial.history, key=self._objective, default=None)
        if reason is None and best is None:
            reason = "ended without a report"
        return TrialOutcome(
            state="failed" if reason else "pruned" if trial.stopped_early else "complete",
            value=None if best is None else self._objective(best),
            best_epoch=None if best is None else best.epoch,
            reason=reason,
            seconds=seconds,
        )

    def _objective(self, metrics: EpochMetrics) -> float:
        return float(getattr(metrics, self._campaign.objective))


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


class LedgerSearcher(Searcher):  # type: ignore[misc]
    """Hands the ledger's trials to Ray Tune."""

    def __init__(self, book: SessionBook) -> None:
        super().__init__()
        self._book = book

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        return self._book.next_trial(trial_id) or Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The scheduler, which is told more, has seen to it."""


class LedgerScheduler(FIFOScheduler):  # type: ignore[misc]
    """Records every report in the ledger and stops the trials that its pruner gives up."""

    def __init__(self, book: SessionBook) -> None:
        super().__init__()
        self._book = book

    def on_trial_result(self, controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        stop = self._book.record(trial.trial_id, result)
        return TrialScheduler.STOP if stop else TrialScheduler.CONTINUE  # type: ignore[no-any-return]

    def on_trial_complete(self, controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        checkpoint = Path(trial.checkpoint.path) if trial.checkpoint else None
        self._book.finish(trial.trial_id, checkpoint, crash=None)

    def on_trial_error(self, controller: Any, trial: Trial) -> None:
        self._book.finish(trial.trial_id, None, crash=_crash_reason(trial))

    def on_trial_remove(self, controller: Any, trial: Trial) -> None:
        self._book.finish(trial.trial_id, None, crash="removed before it began")


def _crash_reason(trial: Trial) -> str:
    try:
        lines = Path(trial.error_file).read_text().strip().splitlines()
    except (OSError, TypeError):
        lines = []
    return lines[-1] if lines else "the worker died"


def run_session(book: SessionBook, campaign: Campaign, folder: Path, *, slots: int, reuse_actors: bool) -> None:
    """Run trials until the ledger has no more to give; Ray's files go to `folder`, which is removed at the end."""
    resources = {"cpu": campaign.resources.cpu, "gpu": campaign.resources.gpu}
    tuner = tune.Tuner(
        tune.with_resources(run_trial, resources),
        tune_config=tune.TuneConfig(
            search_alg=LedgerSearcher(book),
            scheduler=LedgerScheduler(book),
            num_samples=-1,
            max_concurrent_trials=slots,
            reuse_actors=reuse_actors,
            trial_dirname_creator=_trial_folder_name,
        ),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            failure_config=tune.FailureConfig(max_failures=MAX_RECOVERIES),
        ),
    )
    tuner.fit()
    shutil.rmtree(folder, ignore_errors=True)


def _trial_folder_name(trial: Trial) -> str:
    return f"{trial.config['number']:04d}"
