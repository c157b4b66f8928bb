import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from core.config import TrainConfig, load_config
from core.errors import UserError
from core.features.store import Features
from core.files.folders import RunFolder
from core.files.json_files import read_json_lines
from core.model.checkpoints import load_checkpoint, save_checkpoint
from core.records import EpochMetrics
from core.training.runs import (
    hold_run,
    hold_two_stage,
    require_free_run,
    require_free_two_stage,
    run,
    run_two_stage,
    split_stages,
)


def figures(folder: RunFolder) -> list[dict[str, object]]:
    return [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in read_json_lines(folder.log)]


def stop_after(epoch: int) -> Callable[[EpochMetrics], None]:
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
        run(small_config, planted_features, broken, on_epoch=stop_after(1))
    run(small_config, planted_features, broken)
    assert figures(broken) == figures(whole)
    weights = [load_checkpoint(folder.checkpoint(3)).weights for folder in (whole, broken)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_kill_between_checkpoint_and_log_leaves_no_gap(
    planted_features: Features, small_config: TrainConfig, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(small_config, planted_features, folder, on_epoch=stop_after(2))
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
    run(small_config, planted_features, RunFolder(tmp_path), on_epoch=stop_after(0))
    assert RunFolder(tmp_path).checkpoint(3).stat().st_mtime_ns == before


def test_a_run_ends_with_how_to_rerank_in_its_best_checkpoint(
    planted_features: Features, small_config: TrainConfig, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    result = run(small_config, planted_features, folder)
    chosen = load_checkpoint(folder.best_checkpoint).reranking
    assert chosen is not None
    assert chosen == result.best.reranking
    assert chosen.reranked >= chosen.plain == max(metrics.recall_mean for metrics in result.history)
    assert load_checkpoint(folder.checkpoint(3)).reranking is None


def test_a_run_killed_before_it_chose_how_to_rerank_chooses_when_started_again(
    planted_features: Features, small_config: TrainConfig, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    run(small_config, planted_features, folder)
    whole = load_checkpoint(folder.best_checkpoint)
    save_checkpoint(folder.best_checkpoint, dataclasses.replace(whole, reranking=None))
    folder.receipt.unlink()
    result = run(small_config, planted_features, folder)
    assert load_checkpoint(folder.best_checkpoint).reranking == whole.reranking == result.reranking
    assert folder.receipt.exists()


def test_a_run_on_all_buildings_keeps_its_last_epoch_and_chooses_nothing_on_them(
    planted_features: Features, small_config: TrainConfig, tmp_path: Path
) -> None:
    result = run(small_config.with_overrides({"data.train_on": "all"}), planted_features, RunFolder(tmp_path))
    best = load_checkpoint(RunFolder(tmp_path).best_checkpoint)
    assert best.epoch == 3
    assert best.reranking is result.reranking is None
    with pytest.raises(UserError, match="holds a run with another configuration"):
        run(small_config, planted_features, RunFolder(tmp_path))


def test_nothing_is_chosen_where_the_configuration_gives_the_weight(
    planted_features: Features, small_config: TrainConfig, tmp_path: Path
) -> None:
    result = run(small_config.with_overrides({"evaluation.rerank_weight": 0.5}), planted_features, RunFolder(tmp_path))
    assert result.reranking is None


def test_a_folder_with_another_configuration_is_refused(
    planted_features: Features, small_config: TrainConfig, tmp_path: Path
) -> None:
    run(small_config, planted_features, RunFolder(tmp_path))
    with pytest.raises(UserError, match="holds a run with another configuration; choose another --output-dir"):
        run(small_config.with_overrides({"seed": 3}), planted_features, RunFolder(tmp_path))


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "torn": lambda data: data[:1000],
    "empty": lambda data: b"",
    "garbage": lambda data: b"not a checkpoint at all",
    "changed": lambda data: data.replace(b"weights", b"heights"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_continued(
    planted_features: Features,
    small_config: TrainConfig,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[bytes], bytes],
) -> None:
    folder = RunFolder(tmp_path)
    run(small_config, planted_features, folder)
    before, weights = figures(folder), load_checkpoint(folder.checkpoint(3)).weights
    folder.checkpoint(3).write_bytes(damage(folder.checkpoint(3).read_bytes()))
    run(small_config, planted_features, folder)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "core.training.runs"]
    assert "checkpoint_3.pth: is damaged" in line
    assert "continues after epoch 2" in line
    assert figures(folder) == before
    assert all(torch.equal(load_checkpoint(folder.checkpoint(3)).weights[name], weights[name]) for name in weights)


def test_a_run_without_any_whole_checkpoint_is_refused_and_left_alone(
    planted_features: Features, small_config: TrainConfig, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    run(small_config, planted_features, folder)
    for epoch in range(4):
        folder.checkpoint(epoch).write_bytes(b"of another version, perhaps")
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match=r"checkpoint_3\.pth: is damaged.* no older checkpoint is intact"):
        run(small_config, planted_features, folder)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("damage", ["missing", "torn", "of another epoch"])
def test_the_best_checkpoint_is_written_again_where_it_is_not_whole(
    planted_features: Features, small_config: TrainConfig, tmp_path: Path, damage: str
) -> None:
    folder = RunFolder(tmp_path)
    best = run(small_config, planted_features, folder).best
    match damage:
        case "missing":
            folder.best_checkpoint.unlink()
        case "torn":
            folder.best_checkpoint.write_bytes(folder.best_checkpoint.read_bytes()[:500])
        case "of another epoch":
            folder.best_checkpoint.write_bytes(folder.checkpoint((best.epoch + 1) % 4).read_bytes())
    run(small_config, planted_features, folder)
    again = load_checkpoint(folder.best_checkpoint)
    assert again.epoch == best.epoch
    assert all(torch.equal(again.weights[name], value) for name, value in best.weights.items())


@pytest.mark.parametrize("content", ["", "{{{\n", "[]\n", '{"epoch": 0}\n', "\xff"])
def test_a_log_that_does_not_tell_the_run_is_written_again(
    planted_features: Features, small_config: TrainConfig, tmp_path: Path, content: str
) -> None:
    folder = RunFolder(tmp_path)
    run(small_config, planted_features, folder)
    log = folder.log.read_bytes()
    folder.log.write_text(content)
    run(small_config, planted_features, folder)
    assert folder.log.read_bytes() == log


@pytest.mark.parametrize("content", ["", "  \n", "[1]", "3", "{{", "seed: 4", "lerning_rate: 3"])
def test_a_configuration_that_is_not_the_runs_is_one_line_and_nothing_is_written(
    planted_features: Features, small_config: TrainConfig, tmp_path: Path, content: str
) -> None:
    folder = RunFolder(tmp_path)
    run(small_config, planted_features, folder)
    folder.config.write_text(content)
    before = snapshot(tmp_path)
    with pytest.raises(UserError) as caught:
        run(small_config, planted_features, folder)
    assert "\n" not in str(caught.value)
    assert snapshot(tmp_path) == before


def test_checkpoints_of_another_configuration_are_not_continued(
    planted_features: Features, small_config: TrainConfig, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    run(small_config, planted_features, folder)
    folder.config.unlink()
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match=r"checkpoint_3\.pth: was trained with another configuration"):
        run(small_config.with_overrides({"seed": 3}), planted_features, folder)
    assert snapshot(tmp_path) == before


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["config.yaml", "log.txt", "receipt.json", "checkpoint_3.pth", "checkpoint_best.pth"])
def test_a_run_is_not_started_among_foreign_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    before = snapshot(tmp_path)
    for refuse in (require_free_run, lambda root: hold_run(root).__enter__()):
        with pytest.raises(UserError, match=f"holds {name}, which crossmodal did not write"):
            refuse(tmp_path)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["stage1", "stage2/log.txt", "experiment_summary.json"])
def test_two_stages_are_not_started_among_foreign_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match="which crossmodal did not write"), hold_two_stage(tmp_path):
        pass
    assert snapshot(tmp_path) == before


def test_files_of_other_names_stay_as_they_are(
    planted_features: Features, small_config: TrainConfig, tmp_path: Path
) -> None:
    names = ["thesis.tex", "log.txt.bak", "checkpoint.pth", "checkpoint_mine.pth", "stage3", ".log.txt.swp"]
    for name in names:
        (tmp_path / name).write_text(name)
    with hold_run(tmp_path):
        run(small_config, planted_features, RunFolder(tmp_path))
    assert [(tmp_path / name).read_text() for name in names] == names


def test_a_held_run_keeps_others_out_until_it_ends(tmp_path: Path) -> None:
    with hold_two_stage(tmp_path):
        for root, ask in ((tmp_path, require_free_two_stage), (tmp_path / "stage1", require_free_run)):
            with pytest.raises(UserError, match=f"process {os.getpid()} on .* is working in this folder"):
                ask(root)
    require_free_two_stage(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="cannot be written to"):
        require_free_run(tmp_path / "file" / "below")
    with pytest.raises(UserError, match="is a file, not a folder"):
        require_free_run(tmp_path / "file")


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
    with pytest.raises(UserError, match="stage1_epochs 0 of 4 epochs does not make two stages"):
        split_stages(small_config)
