"""The Ray trainable: a thin wrapper around `core.training.train`. A worker loads neither the backbone nor W&B."""

import gc
import json
import tempfile
import time
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch
from ray import tune

from core.features.store import Features, FeatureStore
from core.model.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from core.readings import Readings
from core.records import EpochMetrics
from core.training.train import train
from search.cluster.node_cache import find_store
from search.session.storage import CHECKPOINT_NAME, Storage
from search.session.task import TrialTask, read_task


def run_trial(payload: dict[str, Any]) -> None:
    """Train one trial and report every epoch to Ray Tune.

    A training exception is reported as `failure` instead of raised, so the trial fails but its worker survives.
    SystemExit, by which Ray stops a trial early, passes through.

    Args:
        payload: a TrialTask as plain data.
    """
    try:
        _train_and_report(read_task(payload))
    except Exception as error:
        tune.report({"failure": f"{type(error).__name__}: {error}".splitlines()[0]})


def _train_and_report(task: TrialTask) -> None:
    _freeze_modules()
    torch.set_num_threads(task.threads)
    if 0 < task.gpu < 1 and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(task.gpu)
    config = task.config
    features = _open_features(
        config.features.store, task.fingerprint, config.readings, config.features.allow_degenerate
    )
    last_sent = time.monotonic()

    def report(metrics: EpochMetrics, checkpoint: Checkpoint) -> None:
        nonlocal last_sent
        row = {"metrics": json.dumps(metrics.to_json()), "receipt": json.dumps(checkpoint.receipt.to_json())}
        is_last = metrics.epoch == config.recipe.epochs - 1
        if not is_last and time.monotonic() - last_sent < task.checkpoint_every_s:
            tune.report(row)
            return
        with tempfile.TemporaryDirectory() as folder:
            save_checkpoint(Path(folder) / CHECKPOINT_NAME, checkpoint)
            tune.report(row, checkpoint=tune.Checkpoint.from_directory(folder))
        last_sent = time.monotonic()

    resume_from = _last_checkpoint(task)
    if resume_from is not None and resume_from.epoch == config.recipe.epochs - 1:
        report(resume_from.history[-1], resume_from)  # trained to its end before its driver or worker died
        return
    train(config, features, report, resume_from=resume_from)


@cache
def _freeze_modules() -> None:
    """Once per worker process: keep the garbage collector from scanning all imported modules repeatedly."""
    gc.freeze()


def _last_checkpoint(task: TrialTask) -> Checkpoint | None:
    """The checkpoint to resume from: Ray's if it moved this trial from another worker, else an earlier attempt's."""
    if stored := tune.get_checkpoint():
        with stored.as_directory() as folder:
            return load_checkpoint(Path(folder) / CHECKPOINT_NAME, fingerprint=task.fingerprint)
    return Storage(task.storage).read_checkpoint(task.resume_from) if task.resume_from else None


@lru_cache(maxsize=16)
def _open_features(root: Path, fingerprint: str, readings: Readings, allow_degenerate: bool) -> Features:
    """Memory-mapped once per worker process, whatever the number of trials that it runs."""
    store = FeatureStore.open(find_store(root, fingerprint, readings.all) or root, fingerprint)
    return store.features(readings, allow_degenerate=allow_degenerate)
