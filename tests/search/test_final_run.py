"""The retrained winner of a real campaign as an offline run, read back from its files."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.campaign.study import read_trials
from core.campaign.trials import standing_of
from core.config import load_config
from core.errors import UserError
from core.evaluation.examples import load_examples
from core.files.folders import CampaignFolder
from core.files.json_files import read_json, read_json_lines
from core.model.checkpoints import load_checkpoint, save_checkpoint
from core.records import Examples, FoundImage, QueryExample, RegionExample
from core.tracked_runs import Picture, ShownTable
from core.tracking import build_tracker
from search.final_run import read_final, shown_examples, track_retrained
from search.track import rebuild_runs
from tests.commands import CommandLine
from tests.conftest import made_once
from tests.wandb_files import read_runs


@pytest.fixture(scope="module")
def retrained(finished_campaign: CampaignFolder, tmp_path_factory: pytest.TempPathFactory) -> CampaignFolder:
    """A copy of the campaign with its final model, which was retrained without a tracker; to be read only."""
    from core.features.opening import open_features
    from search.retrain import retrain
    from search.winner import find_winner

    def make(work: Path) -> None:
        shutil.copytree(finished_campaign.root, work / "small", ignore=shutil.ignore_patterns("wandb", "sessions"))
        winner = find_winner(finished_campaign)
        retrain(winner, open_features(winner.config, with_test=True), work / "small" / "final")

    return CampaignFolder(made_once(tmp_path_factory, "retrained", make) / "small")


@pytest.fixture
def copied(retrained: CampaignFolder, tmp_path: Path) -> CampaignFolder:
    shutil.copytree(retrained.root, tmp_path / "copy")
    return CampaignFolder(tmp_path / "copy")


@pytest.fixture
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


def test_both_stages_are_one_run_with_the_settings_of_the_winner(retrained: CampaignFolder) -> None:
    final = read_final(retrained.root / "final")
    searched = load_config(retrained.trial(final.trial).config)
    assert [metrics.epoch for metrics in final.history] == [0, 1, 2]
    assert final.config.recipe.epochs == searched.recipe.epochs
    assert final.config.optimizer == searched.optimizer
    stages = [metrics.stage for metrics in final.history]
    assert stages == [1] * final.config.recipe.stage1_epochs + [2] * (3 - final.config.recipe.stage1_epochs)


@pytest.mark.usefixtures("_offline")
def test_the_final_run_has_validation_and_test_figures(copied: CampaignFolder) -> None:
    output = copied.root / "final"
    assert track_retrained(copied, output) == []
    found = read_runs(output)["final"]
    assert (found["group"], found["job_type"]) == ("small", "final")
    assert found["tags"] == ["two-stage", "fusion-interaction", "complete"]
    logged = [row for stage in ("stage1", "stage2")
              for row in read_json_lines(output / stage / "log.txt")]  # fmt: skip
    rows = [row for row in found["rows"] if "recall_mean" in row]
    assert [row["recall_mean"] for row in rows] == [row["recall_mean"] for row in logged]
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    best = max(row["recall_mean"] for row in logged if row["stage"] == 2)
    assert found["summary"]["recall_mean"] == best
    assert found["summary"]["gain_over_baseline"] == best - (standing_of(read_trials(copied)).baseline or 0.0)
    card = read_json(output / "metrics.json")
    assert found["config"]["trial"] == card["trial"]
    by_building = next(each for each in card["evaluations"] if each["protocol"] == "building" and not each["rerank"])
    assert found["summary"]["test/building/t2i_r1"] == by_building["metrics"]["t2i_r1"]
    assert found["summary"][f"{card['regions_split']}/box_iou"] == card["regions"]["box_iou"]


@pytest.mark.usefixtures("_offline")
def test_the_final_run_shows_queries_and_boxes(copied: CampaignFolder) -> None:
    assert track_retrained(copied, copied.root / "final") == []
    (folder,) = (copied.root / "final").glob("wandb/offline-run-*")
    row: dict[str, Any] = {}
    for logged in read_runs(copied.root / "final")["final"]["rows"]:
        row |= logged
    panel = read_json(folder / "files" / row["retrieval_examples.path"])
    assert panel["columns"][:3] == ["caption", "rank", "its own image"]
    examples = load_examples(read_final(copied.root / "final").checkpoint)
    assert [cells[1] for cells in panel["data"]] == [each.rank for each in (*examples.right, *examples.wrong)]
    assert row["box_examples.count"] == len(row["box_examples.captions"]) > 0
    for layers in row["box_examples.all_boxes"]:
        assert sorted(layers) == ["predicted", "true"]
    assert all((folder / "files" / name).exists() for name in row["box_examples.filenames"])


@pytest.mark.usefixtures("_offline")
def test_a_final_run_is_written_once(copied: CampaignFolder) -> None:
    for _ in range(2):
        assert track_retrained(copied, copied.root / "final") == []
    rebuilt = rebuild_runs(copied, lambda root, identity: build_tracker(
        project="crossmodal-search", group="small", mode="offline", folder=root, identity=identity
    ))  # fmt: skip
    assert (rebuilt.written, rebuilt.known) == (6, 1)
    assert list(read_runs(copied.root / "final")) == ["final"]


def test_retraining_goes_on_if_its_run_cannot_be_written(
    copied: CampaignFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    (copied.root / "final" / "wandb").mkdir()
    (note,) = track_retrained(copied, copied.root / "final")
    assert note.startswith("the final run is not tracked: ")
    assert "holds wandb, which crossmodal did not write" in note


def test_without_features_the_final_run_has_no_examples(
    copied: CampaignFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    best = copied.root / "final" / "stage2" / "checkpoint_best.pth"
    checkpoint = load_checkpoint(best)
    elsewhere = checkpoint.config.with_overrides({"features.store": str(copied.root / "nowhere")})
    save_checkpoint(best, replace(checkpoint, config=elsewhere))
    (note,) = track_retrained(copied, copied.root / "final")
    assert note.startswith("the final run has no examples: ")
    assert "t2i_r1" in read_runs(copied.root / "final")["final"]["summary"]


@pytest.mark.parametrize("lost", ["metrics.json", "stage2/receipt.json", "stage1/config.yaml"])
def test_a_folder_without_a_whole_final_model_is_refused(copied: CampaignFolder, lost: str) -> None:
    (copied.root / "final" / lost).unlink()
    with pytest.raises(UserError):
        read_final(copied.root / "final")


def test_a_disabled_tracker_writes_nothing(copied: CampaignFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert track_retrained(copied, copied.root / "final") == []
    assert not (copied.root / "final" / "wandb").exists()


def test_examples_become_a_table_and_pictures(demo: Path) -> None:
    image = next(path for path in (demo / "images").rglob("*") if path.is_file())
    found = [FoundImage(image, 0.9, True), FoundImage(image, 0.5, False)]
    query = QueryExample("a tower", image, 1, found)
    box, predicted = (0.0, 0.0, 0.5, 0.5), (0.1, 0.1, 0.5, 0.5)
    region = RegionExample(image, "the door", box, predicted, 0.64, "left", "right", "the tower", box)
    shown = shown_examples(Examples([query], [], 1, 2, 3, [region, replace(region, relation=None)]))
    panel, boxes = shown["retrieval_examples"], shown["box_examples"]
    assert isinstance(panel, ShownTable)
    assert panel.columns == ["caption", "rank", "its own image", "1", "2"]
    (row,) = panel.rows
    assert row[:2] == ["a tower", 1]
    assert [cell.caption for cell in row[3:]] == ["right, similarity 0.900", "wrong, similarity 0.500"]
    assert max(row[2].image.size) <= 256
    assert not isinstance(boxes, ShownTable)
    first, second = boxes
    assert isinstance(first, Picture)
    assert [(each.kind, each.box, each.label) for each in first.boxes] == [
        ("true", box, "left"), ("predicted", predicted, "right, IoU 0.64"),
    ]  # fmt: skip
    assert [each.label for each in second.boxes] == ["reference", "IoU 0.64"]


@pytest.mark.slow
def test_the_retrain_command_tracks_the_final_model(
    crossmodal: CommandLine, copied: CampaignFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    outcome = crossmodal("retrain", copied.root, "--output-dir", copied.root / "another")
    assert outcome.code == 0, outcome.err
    assert list(read_runs(copied.root / "another")) == ["final"]


@pytest.mark.usefixtures("_offline")
def test_a_model_trained_on_all_buildings_has_no_validation_figures(
    finished_campaign: CampaignFolder, tmp_path: Path
) -> None:
    from core.features.opening import open_features
    from search.retrain import retrain
    from search.winner import find_winner, on_all_buildings

    shutil.copytree(finished_campaign.root, tmp_path / "c", ignore=shutil.ignore_patterns("wandb", "sessions"))
    folder, output = CampaignFolder(tmp_path / "c"), tmp_path / "c" / "final"
    winner = on_all_buildings(find_winner(folder))
    retrain(winner, open_features(winner.config, with_test=True), output)
    assert track_retrained(folder, output) == []
    found = read_runs(output)["final"]
    assert not [row for row in found["rows"] if "recall_mean" in row]
    assert not {"recall_mean", "best_value", "gain_over_baseline"} & found["summary"].keys()
    assert any(name.startswith("test/") for name in found["summary"])
