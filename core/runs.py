"""Training runs on disk: one run in a folder, and the two-stage run in two of them.

A run started again in its folder continues after its last whole epoch. `core.training` does the work and knows no
files; the command line and `search.retrain` call this module.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from core.config import TrainConfig, dump_yaml, load_config
from core.errors import UserError
from core.features import Features
from core.files import RunFolder, append_json_line, read_json_lines, write_atomically, write_json
from core.records import EpochMetrics, Receipt, best_epoch
from core.training import TrainResult, train

OnEpoch = Callable[[EpochMetrics], None]


def run(
    config: TrainConfig,
    features: Features,
    folder: RunFolder,
    *,
    start_from: Checkpoint | None = None,
    on_epoch: OnEpoch = lambda metrics: None,
) -> TrainResult:
    """Train into a folder: a checkpoint and a log line an epoch, the best checkpoint, configuration and receipt.

    Args:
        start_from: begin with these weights; ignored when the folder already holds a whole epoch.
    Raises:
        UserError: the folder holds a run with another configuration.
    """
    _claim(config, folder)
    resume_from = _last_whole_epoch(folder, config.recipe.epochs, features.fingerprint)
    _restore_log(folder, resume_from)
    if resume_from is not None and resume_from.epoch == config.recipe.epochs - 1:
        return _finish(folder, TrainResult(resume_from))

    def report(metrics: EpochMetrics, checkpoint: Checkpoint) -> None:
        save_checkpoint(folder.checkpoint(metrics.epoch), checkpoint)
        if checkpoint.best_epoch == metrics.epoch:
            save_checkpoint(folder.best_checkpoint, checkpoint.best())
        append_json_line(folder.log, metrics.to_json())
        on_epoch(metrics)

    return _finish(folder, train(config, features, report, resume_from=resume_from, start_from=start_from))


@dataclass(frozen=True, slots=True)
class TwoStageResult:
    """Both stages of a two-stage run; the second one's best epoch is the final model."""

    stage1: TrainResult
    stage2: TrainResult


def run_two_stage(
    config: TrainConfig, features: Features, root: Path, *, on_epoch: OnEpoch = lambda metrics: None
) -> TwoStageResult:
    """Align, then train jointly from the aligned weights; writes stage1/, stage2/ and experiment_summary.json.

    Raises:
        UserError: the recipe has only one stage.
    """
    stage1_config, stage2_config = split_stages(config)
    stage1 = run(stage1_config, features, RunFolder(root / "stage1"), on_epoch=on_epoch)
    stage2 = run(stage2_config, features, RunFolder(root / "stage2"), start_from=stage1.last, on_epoch=on_epoch)
    result = TwoStageResult(stage1, stage2)
    write_json(root / "experiment_summary.json", summarise(result))
    return result


def split_stages(config: TrainConfig) -> tuple[TrainConfig, TrainConfig]:
    """The configurations of stage 1 and of stage 2 as runs of their own.

    Raises:
        UserError: the recipe has only one stage.
    """
    recipe, rate = config.recipe, config.optimizer.learning_rate
    if not 0 < recipe.stage1_epochs < recipe.epochs:
        raise UserError(
            f"stage1_epochs {recipe.stage1_epochs} of {recipe.epochs} epochs leaves no two stages",
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
    """Per stage: epochs, seconds, best epoch, its metrics, peak memory, parameters, and the curve."""
    summary: dict[str, object] = {}
    for name, stage in (("stage1", result.stage1), ("stage2", result.stage2)):
        best = best_epoch(stage.history, stage.last.config.objective)
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


def _claim(config: TrainConfig, folder: RunFolder) -> None:
    """Write the configuration, or make sure that the folder's run has the same one."""
    if folder.config.exists():
        if load_config(folder.config) != config:
            raise UserError(
                "holds a run with another configuration", where=folder.root, how="choose another --output-dir"
            )
        return
    write_atomically(folder.config, dump_yaml(config))


def _last_whole_epoch(folder: RunFolder, epochs: int, fingerprint: str) -> Checkpoint | None:
    for epoch in reversed(range(epochs)):
        if folder.checkpoint(epoch).exists():
            return load_checkpoint(folder.checkpoint(epoch), fingerprint=fingerprint)
    return None


def _restore_log(folder: RunFolder, checkpoint: Checkpoint | None) -> None:
    """Make the log tell exactly the epochs of the checkpoint: a kill may fall between the two writes."""
    history = [] if checkpoint is None else [metrics.to_json() for metrics in checkpoint.history]
    if read_json_lines(folder.log) != history:
        folder.log.unlink(missing_ok=True)
        for metrics in history:
            append_json_line(folder.log, metrics)
    if checkpoint is not None and checkpoint.best_epoch == checkpoint.epoch:
        save_checkpoint(folder.best_checkpoint, checkpoint.best())


def _finish(folder: RunFolder, result: TrainResult) -> TrainResult:
    receipt: Receipt = result.receipt
    write_json(folder.receipt, receipt.to_json())
    return result
