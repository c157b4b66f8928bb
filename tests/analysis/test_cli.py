import csv
import io
import json
import shutil
from pathlib import Path

import pytest

from core.config import TrainConfig, load_config
from core.files.folders import CampaignFolder
from core.sections import dump_yaml
from tests.commands import CommandLine


@pytest.fixture
def campaign(finished_campaign: CampaignFolder, tmp_path: Path) -> CampaignFolder:
    shutil.copytree(finished_campaign.root, tmp_path / "c", ignore=shutil.ignore_patterns("wandb", "sessions"))
    return CampaignFolder(tmp_path / "c")


def test_the_official_entry_is_that_of_the_final_model(crossmodal: CommandLine, campaign: CampaignFolder) -> None:
    missing = crossmodal("leaderboard", campaign.root, "--format", "geotext")
    assert missing.code == 2
    assert "there is no final model" in missing.err
    assert crossmodal("retrain", campaign.root, "--output-dir", campaign.root / "final").code == 0
    outcome = crossmodal("leaderboard", campaign.root, "--format", "geotext")
    assert outcome.code == 0, outcome.err
    entry = json.loads(outcome.out)
    measured = json.loads(campaign.final_metrics.read_text())["evaluations"]
    (official,) = [found for found in measured if found["protocol"] == "geotext-official" and not found["rerank"]]
    assert entry["metrics"]["txt_r1"] == round(100 * official["metrics"]["t2i_r1"], 2)
    assert entry["backbone"] == "tiny-internvl"
    assert entry["training_data"] == "synthetic"


def test_the_leaderboard_is_printed_and_written(crossmodal: CommandLine, campaign: CampaignFolder) -> None:
    outcome = crossmodal("leaderboard", campaign.root)
    assert outcome.code == 0, outcome.err
    assert "relevance by building" in " ".join(outcome.out.split())
    assert max(map(len, outcome.out.splitlines()[:10])) <= 80
    with (campaign.root / "leaderboard.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 5
    assert (campaign.root / "leaderboard.md").read_text().count("\n| ") == 5 + 2


@pytest.mark.parametrize("format", ["csv", "md", "latex", "json"])
def test_a_format_is_printed_alone(crossmodal: CommandLine, campaign: CampaignFolder, format: str) -> None:
    outcome = crossmodal("leaderboard", campaign.root, "--format", format)
    assert outcome.code == 0, outcome.err
    match format:
        case "csv":
            assert len(list(csv.DictReader(io.StringIO(outcome.out)))) == 5
        case "json":
            assert len(json.loads(outcome.out)) == 5
        case "md":
            assert outcome.out.startswith("Validation split")
        case "latex":
            assert r"\end{tabular}" in outcome.out
    assert not (campaign.root / "leaderboard.csv").exists()


def test_ranking_by_another_metric(crossmodal: CommandLine, campaign: CampaignFolder) -> None:
    rows = json.loads(crossmodal("leaderboard", campaign.root, "--format", "json", "--by", "i2t_r10").out)
    assert [row["i2t_r10"] for row in rows] == sorted((row["i2t_r10"] for row in rows), reverse=True)


@pytest.fixture
def runs(crossmodal: CommandLine, demo_config: TrainConfig, tmp_path: Path) -> Path:
    """A single-stage and a two-stage run on the same features."""
    for name, stage1 in (("single", 0), ("two", 1)):
        changes = {"recipe.stage1_epochs": stage1, "recipe.epochs": 3}
        (tmp_path / f"{name}.yaml").write_text(dump_yaml(demo_config.with_overrides(changes)))
    single = ["train", "--config", tmp_path / "single.yaml", "--output_dir", tmp_path / "single"]
    two = ["train-two-stage", "--config", tmp_path / "two.yaml", "--output_dir", tmp_path / "two"]
    assert crossmodal(*single).code == crossmodal(*two).code == 0
    return tmp_path


def test_compare_writes_the_methodologys_table(crossmodal: CommandLine, runs: Path) -> None:
    outcome = crossmodal(
        *("compare", "--single_stage_checkpoint", runs / "single" / "checkpoint_2.pth"),
        *("--two_stage_checkpoint", runs / "two" / "stage2" / "checkpoint_1.pth", "--output_dir", runs / "cmp"),
    )
    assert outcome.code == 0, outcome.err
    rows = {row["metric"]: row for row in json.loads((runs / "cmp" / "comparison.json").read_text())}
    assert set(rows) >= {"t2i_r1", "i2t_r10", "box_iou", "relation_accuracy", "training_epochs"}
    assert rows["t2i_r1"]["verdict"] in ("better", "worse", "not distinguishable")
    assert (rows["training_epochs"]["single_stage"], rows["training_epochs"]["two_stage"]) == (3, 3)  # with stage 1
    assert {path.suffix for path in (runs / "cmp").iterdir()} == {".csv", ".md", ".json", ".html"}


def test_benchmark_takes_lists_as_the_methodology_writes_them(crossmodal: CommandLine, runs: Path) -> None:
    checkpoints = [runs / "single" / "checkpoint_2.pth", runs / "two" / "stage2" / "checkpoint_1.pth"]
    outcome = crossmodal(
        "benchmark", "--checkpoints", *checkpoints, "--labels", "Single-Stage", "Two-Stage", "--output_dir", runs / "b"
    )
    assert outcome.code == 0, outcome.err
    assert [row["label"] for row in json.loads((runs / "b" / "benchmark.json").read_text())] == [
        "Single-Stage",
        "Two-Stage",
    ]
    unequal = crossmodal("benchmark", "--checkpoints", *checkpoints, "--labels", "One", "--output-dir", runs / "c")
    assert unequal.code == 2
    assert "2 checkpoints and 1 labels" in unequal.err
    assert not (runs / "c").exists()


def test_checkpoints_of_other_features_are_not_compared(crossmodal: CommandLine, runs: Path) -> None:
    config = load_config(runs / "single.yaml").with_overrides({"features.max_tokens": 100})
    (runs / "other.yaml").write_text(dump_yaml(config))
    other = ["train", "--config", runs / "other.yaml", "--output_dir", runs / "other"]
    assert crossmodal(*other).code == 0
    checkpoints = [runs / "single" / "checkpoint_2.pth", runs / "other" / "checkpoint_2.pth"]
    outcome = crossmodal("benchmark", "--checkpoints", *checkpoints, "--labels", "a", "b", "--output_dir", runs / "b")
    assert outcome.code == 2
    assert "was trained on features" in outcome.err


def test_checkpoints_whose_data_changed_are_refused_before_any_extraction(
    crossmodal: CommandLine, demo: Path, demo_config: TrainConfig, tmp_path: Path
) -> None:
    images = shutil.copytree(demo / "images", tmp_path / "images")
    (tmp_path / "a.yaml").write_text(dump_yaml(demo_config.with_overrides({"data.image_root": str(images)})))
    assert crossmodal("train", "--config", tmp_path / "a.yaml", "--output_dir", tmp_path / "run").code == 0
    shutil.copy(images / "train/0003/image-01.jpeg", images / "train/0003/image-00.jpeg")
    checkpoint = tmp_path / "run" / "checkpoint_1.pth"
    for command in (
        ("benchmark", "--checkpoints", checkpoint, "--labels", "a"),
        ("compare", "--single_stage_checkpoint", checkpoint, "--two_stage_checkpoint", checkpoint),
    ):
        outcome = crossmodal(*command, "--output_dir", tmp_path / "out")
        assert outcome.code == 2
        assert f"{checkpoint}: was trained on features" in outcome.err
        assert "extracting" not in outcome.out
    assert not (tmp_path / "out").exists()


def test_efficiency_reads_both_logs(crossmodal: CommandLine, runs: Path) -> None:
    outcome = crossmodal(
        *("efficiency", "--single_stage_log", runs / "single" / "log.txt"),
        *("--two_stage_log", runs / "two" / "experiment_summary.json", "--output_dir", runs / "e"),
    )
    assert outcome.code == 0, outcome.err
    rows = {row["metric"]: row for row in json.loads((runs / "e" / "efficiency.json").read_text())}
    assert (rows["epochs"]["single_stage"], rows["epochs"]["two_stage"]) == (3, 3)


def test_a_report_is_one_page(crossmodal: CommandLine, campaign: CampaignFolder) -> None:
    assert crossmodal("report", campaign.root).code == 0
    page = (campaign.root / "report.html").read_text()
    assert "optimizer.learning_rate" in page
    assert "data:image/jpeg" in page


def test_a_report_without_the_model_says_so_and_has_no_pictures(
    crossmodal: CommandLine, campaign: CampaignFolder
) -> None:
    for path in campaign.root.glob("trials/*/checkpoint_best.pth"):
        path.unlink()
    outcome = crossmodal("report", campaign.root)
    assert outcome.code == 0, outcome.err
    assert "without pictures: " in outcome.out
    page = (campaign.root / "report.html").read_text()
    assert "there is no such checkpoint" in page
    assert "data:image/jpeg" not in page


def test_a_report_of_a_campaign_without_a_finished_trial_writes_nothing(
    crossmodal: CommandLine, campaign: CampaignFolder
) -> None:
    lines = campaign.journal.read_text().splitlines(keepends=True)
    campaign.journal.write_text(lines[0])  # the study as it was created
    outcome = crossmodal("report", campaign.root)
    assert outcome.code == 2
    assert "no trial has finished yet" in outcome.err
    assert not (campaign.root / "report.html").exists()


@pytest.mark.parametrize(("command", "name"), [("report", "report.html"), ("leaderboard", "leaderboard.csv")])
def test_a_foreign_file_in_a_campaign_folder_is_not_overwritten(
    crossmodal: CommandLine, campaign: CampaignFolder, command: str, name: str
) -> None:
    (campaign.root / "identity.json").unlink()  # a folder assembled by hand
    (campaign.root / name).write_text("mine")
    outcome = crossmodal(command, campaign.root)
    assert outcome.code == 2
    assert f"holds {name}, which crossmodal did not write" in outcome.err
    assert (campaign.root / name).read_text() == "mine"
