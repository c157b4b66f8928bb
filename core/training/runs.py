"""Training runs on disk: one run in a folder, and the two-stage run in two of them.

A run restarted in its folder continues after its last complete epoch. `core.training.train` does the work, without
files; the command line and `search.retrain` call this module. Callers lock the folder (`hold_run`, `hold_two_stage`),
and call `require_free_…` before any long work, so that a foreign folder is refused early.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from core.config import TrainConfig, load_config
from core.device import choose_device
from core.errors import UserError
from core.evaluation.reranking import chosen_reranking
from core.features.store import Features
from core.files.atomic import write_atomically
from core.files.folders import RunFolder
from core.files.json_files import append_json_line, write_json
from core.files.ownership import IDENTITY, hold_folder, require_ours
from core.model.checkpoints import Checkpoint, load_checkpoint, require_same_features, restore_model, save_checkpoint
from core.records import EpochMetrics, kept_epoch
from core.sections import dump_yaml
from core.training.train import TrainResult, train

logger = logging.getLogger(__name__)

RUN_FILES = ("config.yaml", "log.txt", "receipt.json", "checkpoint_best.pth", "checkpoint_[0-9]*.pth")
STAGES = ("stage1", "stage2")
TWO_STAGE_FILES = (*STAGES, "experiment_summary.json")

OnEpoch = Callable[[EpochMetrics], None]
"""Called after each epoch, once its checkpoint and its log line are written."""


def require_free_run(root: Path, *others: str) -> None:
    """Check that `hold_run` can hold a folder; writes nothing into a foreign one.

    Raises:
        UserError: as `hold_run`, or the folder cannot be written to.
    """
    _require_free(root, (*RUN_FILES, *others))


def require_free_two_stage(root: Path, *others: str) -> None:
    """Check that `hold_two_stage` can hold a folder; writes nothing into a foreign one.

    Raises:
        UserError: as `hold_two_stage`, or the folder cannot be written to.
    """
    _require_free(root, (*TWO_STAGE_FILES, *others))
    for stage in STAGES:
        require_free_run(root / stage)


def _require_free(root: Path, names: Sequence[str]) -> None:
    require_ours(root, names)
    if (root / IDENTITY).exists():
        with hold_folder(root, names):
            return
    parent = next(place for place in (root, *root.absolute().parents) if place.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise UserError("cannot be written to", where=parent, how="name another output folder")


@contextmanager
def hold_run(root: Path, *others: str) -> Iterator[str]:
    """Lock the folder of a run against other processes; yields the folder's id.

    Args:
        others: names of further files that the caller writes into it.
    Raises:
        UserError: another process holds the folder, or a foreign file has one of the names.
    """
    with hold_folder(root, (*RUN_FILES, *others)) as identity:
        yield identity


@contextmanager
def hold_two_stage(root: Path, *others: str) -> Iterator[str]:
    """Lock the folders of a two-stage run and of its stages; yields the id of the former.

    Args:
        others: names of further files that the caller writes into it.
    Raises:
        UserError: as `hold_run`.
    """
    require_free_two_stage(root, *others)  # checks all three before writing to any
    with hold_folder(root, (*TWO_STAGE_FILES, *others)) as identity, ExitStack() as held:
        for stage in STAGES:
            held.enter_context(hold_run(root / stage))
        yield identity


def run(
    config: TrainConfig,
    features: Features,
    folder: RunFolder,
    *,
    start_from: Checkpoint | None = None,
    on_epoch: OnEpoch = lambda metrics: None,
) -> TrainResult:
    """Train in a folder: writes a checkpoint and a log line per epoch, the best checkpoint, configuration and receipt.

    At the end, the best checkpoint is told how its candidates are re-ranked, as the validation split favours.

    Args:
        folder: locked by the caller.
        start_from: initial weights; ignored if the folder already has a complete epoch.
    Raises:
        UserError: the folder has a run with another configuration, with other features, or with no intact checkpoint.
        DivergedError: as `core.training.train.train`.
    """
    _require_same_config(config, folder)
    resume_from = _last_complete_epoch(folder, config, features.fingerprint)
    if not folder.config.exists():
        write_atomically(folder.config, dump_yaml(config))
    _restore_log(folder, resume_from)
    if resume_from is not None and resume_from.epoch == config.recipe.epochs - 1:
        return _finish(folder, features, resume_from)

    def report(metrics: EpochMetrics, checkpoint: Checkpoint) -> None:
        save_checkpoint(folder.checkpoint(metrics.epoch), checkpoint)
        if checkpoint.best_epoch == metrics.epoch:
            save_checkpoint(folder.best_checkpoint, checkpoint.best())
        append_json_line(folder.log, metrics.to_json())
        on_epoch(metrics)

    result = train(config, features, report, resume_from=resume_from, start_from=start_from)
    return _finish(folder, features, result.last)


@dataclass(frozen=True, slots=True)
class TwoStageResult:
    """Results of both stages; the best epoch of the second one is the final model."""

    stage1: TrainResult
    stage2: TrainResult


def run_two_stage(
    config: TrainConfig, features: Features, root: Path, *, on_epoch: OnEpoch = lambda metrics: None
) -> TwoStageResult:
    """Train stage 1, then stage 2 from its last weights; writes stage1/, stage2/ and experiment_summary.json.

    Args:
        root: locked by the caller.
    Raises:
        UserError: the recipe has only one stage, or as `run`.
        DivergedError: as `core.training.train.train`.
    """
    stage1_config, stage2_config = split_stages(config)
    stage1 = run(stage1_config, features, RunFolder(root / "stage1"), on_epoch=on_epoch)
    stage2 = run(stage2_config, features, RunFolder(root / "stage2"), start_from=stage1.last, on_epoch=on_epoch)
    result = TwoStageResult(stage1, stage2)
    write_json(root / "experiment_summary.json", summarise(result))
    return result


def split_stages(config: TrainConfig) -> tuple[TrainConfig, TrainConfig]:
    """The configurations of stage 1 and stage 2 as separate runs.

    Raises:
        UserError: the recipe has only one stage.
    """
    recipe, rate = config.recipe, config.optimizer.learning_rate
    if not 0 < recipe.stage1_epochs < recipe.epochs:
        raise UserError(
            f"stage1_epochs {recipe.stage1_epochs} of {recipe.epochs} epochs does not make two stages",
            where="recipe",
            how="set recipe.stage1_epochs between 1 and epochs - 1",
        )
    stage1 = config.with_overrides({"recipe.epochs": recipe.stage1_epochs})
    stage2 = config.with_overrides(
        {
            "recipe.epochs": recipe.epochs - recipe.stage1_epochs,
            "recipe.stage1_epochs": 0,
            "recipe.stage2_lr_scale": 1.0,
            "optimizer.learning_rate": rate * recipe.stage2_lr_scale,
        }
    )
    return stage1, stage2


def summarise(result: TwoStageResult) -> dict[str, object]:
    """Content of experiment_summary.json, per stage.

    Number of epochs, seconds, best epoch and its metrics, peak memory in MiB, number of parameters, and the metrics of
    all epochs.
    """
    summary: dict[str, object] = {}
    for name, stage in (("stage1", result.stage1), ("stage2", result.stage2)):
        best = kept_epoch(stage.history, stage.last.config)
        summary[name] = {
            "epochs": len(stage.history),
            "seconds": stage.receipt.seconds,
            "best_epoch": best.epoch,
            "best_metrics": best.to_json(),
            "peak_memory_mb": stage.receipt.peak_memory_mb,
            "parameters": stage.receipt.parameters,
            "history": [metrics.to_json() for metrics in stage.history],
        }
    return summary


def _require_same_config(config: TrainConfig, folder: RunFolder) -> None:
    if not folder.config.exists():
        return
    if not folder.config.read_bytes().strip():
        raise UserError("is empty", where=folder.config, how="choose another --output-dir")  # would read as defaults
    if load_config(folder.config) != config:
        raise UserError("holds a run with another configuration", where=folder.root, how="choose another --output-dir")


def _last_complete_epoch(folder: RunFolder, config: TrainConfig, fingerprint: str) -> Checkpoint | None:
    """The newest checkpoint that can be continued, None if there are none; damaged ones are skipped with a warning."""
    problems: list[UserError] = []
    for epoch in reversed(range(config.recipe.epochs)):
        if folder.checkpoint(epoch).exists():
            try:
                checkpoint = _load_epoch(folder, epoch)
            except UserError as error:
                problems.append(error)
                continue
            _require_same_run(checkpoint, config, fingerprint, folder)
            if problems:
                logger.warning("%s; the run continues after epoch %d, whose checkpoint is intact", problems[0], epoch)
            return checkpoint
    if problems:  # perhaps written by another version, so nothing is overwritten
        raise UserError(f"{problems[0]}, and no older checkpoint is intact; choose another --output-dir")
    return None


def _load_epoch(folder: RunFolder, epoch: int) -> Checkpoint:
    path = folder.checkpoint(epoch)
    checkpoint = load_checkpoint(path)
    if checkpoint.optimizer is None or checkpoint.epoch != epoch:
        raise UserError(f"is not the checkpoint of epoch {epoch}", where=path)
    return checkpoint


def _require_same_run(checkpoint: Checkpoint, config: TrainConfig, fingerprint: str, folder: RunFolder) -> None:
    where = folder.checkpoint(checkpoint.epoch)
    if checkpoint.config != config:
        raise UserError("was trained with another configuration", where=where, how="choose another --output-dir")
    require_same_features(checkpoint, fingerprint, where)


def _restore_log(folder: RunFolder, checkpoint: Checkpoint | None) -> None:
    """Make log and best checkpoint match the newest checkpoint: the run may have been killed between the writes."""
    history = [] if checkpoint is None else checkpoint.history
    lines = "".join(json.dumps(metrics.to_json(), allow_nan=False, ensure_ascii=False) + "\n" for metrics in history)
    if (folder.log.read_bytes() if folder.log.exists() else b"") != lines.encode():
        write_atomically(folder.log, lines)
    if checkpoint is not None and not _holds_best(folder, checkpoint):
        save_checkpoint(folder.best_checkpoint, checkpoint.best())


def _holds_best(folder: RunFolder, checkpoint: Checkpoint) -> bool:
    try:
        return load_checkpoint(folder.best_checkpoint).epoch == checkpoint.best_epoch
    except UserError:
        return False


def _finish(folder: RunFolder, features: Features, last: Checkpoint) -> TrainResult:
    best = load_checkpoint(folder.best_checkpoint)
    model = restore_model(best).to(choose_device(best.config.device))
    reranking = chosen_reranking(best, model, features, best.config.evaluation)
    if reranking != best.reranking:
        save_checkpoint(folder.best_checkpoint, replace(best, reranking=reranking))
    write_json(folder.receipt, last.receipt.to_json())
    return TrainResult(last, reranking)
