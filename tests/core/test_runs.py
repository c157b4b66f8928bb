import json
from pathlib import Path

import pytest
import torch

from core.checkpoints import load_checkpoint
from core.config import TrainConfig, load_config
from core.errors import UserError
from core.features import Features
from core.files import RunFolder, read_json_lines
from core.records import EpochMetrics
from core.runs import run, run_two_stage, split_stages


def figures(folder: RunFolder) -> list[dict[str, object]]:
    return [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in read_json_lines(folder.log)]


def stop_after(epoch: int) -> object:
    def stop(metrics: EpochMetrics) -> None:
        if metrics.epoch == epoch:
            raise KeyboardInterrupt

    return stop


def test_a_run_leaves_every_file(planted_features: Features, small_config: TrainConfig, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    result = run(small_config, planted_features, folder)
    assert [row["epoch"] for row in read_json_lines(folder.log)] == [0, 1, 2, 3]
    assert all(load_checkpoint(folder.checkpoint(epoch)).epoch == epoch for epoch in range(4))
    assert load_checkpoint(folder.best_checkpoint).epoch == result.best.epoch
    assert load_config(folder.config) == small_config
    assert json.loads(folder.receipt.read_text())["epochs"] == 4


def test_an_interrupted_run_started_again_ends_with_the_same_figures(
    planted_features: Features, small_config: TrainConfig, tmp_path: Path
) -> None:
    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    run(small_config, planted_features, whole)
    with pytest.raises(KeyboardInterrupt):
        run(small_config, planted_features, broken, on_epoch=stop_after(1))  # type: ignore[arg-type]
    run(small_config, planted_features, broken)
    assert figures(broken) == figures(whole)
    weights = [load_checkpoint(folder.checkpoint(3)).weights for folder in (whole, broken)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_kill_between_checkpoint_and_log_leaves_no_gap(
    planted_features: Features, small_config: TrainConfig, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(small_config, planted_features, folder, on_epoch=stop_after(2))  # type: ignore[arg-type]
    lines = folder.log.read_text().splitlines(keepends=True)
    folder.log.write_text("".join(lines[:-1]) + lines[-1][:20])
    folder.best_checkpoint.unlink()
    run(small_config, planted_features, folder)
    assert [row["epoch"] for row in read_json_lines(folder.log)] == [0, 1, 2, 3]
    assert folder.best_checkpoint.exists()


def test_a_finished_run_started_again_trains_nothing(
    planted_features: Features, small_config: TrainConfig, tmp_path: Path
) -> None:
    run(small_config, planted_features, RunFolder(tmp_path))
    before = RunFolder(tmp_path).checkpoint(3).stat().st_mtime_ns
    run(small_config, planted_features, RunFolder(tmp_path), on_epoch=stop_after(0))  # type: ignore[arg-type]
    assert RunFolder(tmp_path).checkpoint(3).stat().st_mtime_ns == before


def test_a_folder_with_another_configuration_is_refused(
    planted_features: Features, small_config: TrainConfig, tmp_path: Path
) -> None:
    run(small_config, planted_features, RunFolder(tmp_path))
    with pytest.raises(UserError, match="holds a run with another configuration; choose another --output-dir"):
        run(small_config.with_overrides({"seed": 3}), planted_features, RunFolder(tmp_path))


def test_a_damaged_checkpoint_is_named_instead_of_trusted(
    planted_features: Features, small_config: TrainConfig, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    run(small_config, planted_features, folder)
    folder.checkpoint(3).write_bytes(folder.checkpoint(3).read_bytes()[:1000])
    with pytest.raises(UserError, match=r"checkpoint_3\.pth: is damaged"):
        run(small_config, planted_features, folder)


def test_two_stages_write_both_and_a_summary(
    planted_features: Features, small_config: TrainConfig, tmp_path: Path
) -> None:
    config = small_config.with_overrides({"recipe.stage1_epochs": 3})
    run_two_stage(config, planted_features, tmp_path)
    summary = json.loads((tmp_path / "experiment_summary.json").read_text())
    assert [summary[stage]["epochs"] for stage in ("stage1", "stage2")] == [3, 1]
    assert summary["stage1"]["parameters"] == summary["stage2"]["parameters"] > 0
    assert summary["stage1"]["best_metrics"]["recall_mean"] == max(
        row["recall_mean"] for row in summary["stage1"]["history"]
    )


def test_stages_by_hand_give_the_same_final_weights(
    planted_features: Features, small_config: TrainConfig, tmp_path: Path
) -> None:
    config = small_config.with_overrides({"recipe.stage1_epochs": 3, "recipe.stage2_lr_scale": 0.5})
    together = run_two_stage(config, planted_features, tmp_path / "together")
    first, second = split_stages(config)
    run(first, planted_features, RunFolder(tmp_path / "one"))
    start = load_checkpoint(tmp_path / "one" / "checkpoint_2.pth")
    by_hand = run(second, planted_features, RunFolder(tmp_path / "two"), start_from=start)
    assert all(torch.equal(by_hand.last.weights[k], v) for k, v in together.stage2.last.weights.items())


def test_one_stage_cannot_be_split(small_config: TrainConfig) -> None:
    with pytest.raises(UserError, match="stage1_epochs 0 of 4 epochs leaves no two stages"):
        split_stages(small_config)
