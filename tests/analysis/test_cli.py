import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from core.config import TrainConfig, load_config
from core.files.folders import CampaignFolder
from core.model.checkpoints import load_checkpoint, save_checkpoint
from core.sections import dump_yaml
from tests.commands import CommandLine


@pytest.fixture
def campaign(finished_campaign: CampaignFolder, tmp_path: Path) -> CampaignFolder:
    shutil.copytree(finished_campaign.root, tmp_path / "c", ignore=shutil.ignore_patterns("wandb", "sessions"))
    return CampaignFolder(tmp_path / "c")


def test_the_official_entry_is_only_for_the_official_test_split(
    crossmodal: CommandLine, campaign: CampaignFolder
) -> None:
    """The demo's final model gets none; with the figures of the official split in its place, it gets one."""
    ask = ("leaderboard", campaign.root, "--format", "geotext", "--submitter", "A. Person")
    missing = crossmodal(*ask)
    assert missing.code == 2
    assert "there is no final model" in missing.err
    assert crossmodal("retrain", campaign.root, "--output-dir", campaign.root / "final").code == 0
    drawn = crossmodal(*ask)
    assert (drawn.code, drawn.out) == (2, "")
    assert "figures of synthetic data" in drawn.err
    assert len(drawn.err.splitlines()) == 1
    measured = json.loads(campaign.final_metrics.read_text())
    (official,) = [
        found for found in measured["evaluations"] if found["protocol"] == "geotext-official" and not found["rerank"]
    ]
    official |= {"queries_image": 55_227, "queries_text": 165_681, "groups": 951}
    campaign.final_metrics.write_text(json.dumps(measured))
    elsewhere = campaign.campaign.read_text().replace("/data/test.json", "/test.json").replace("/data/train", "/train")
    campaign.campaign.write_text(elsewhere)
    outcome = crossmodal(*ask)
    assert outcome.code == 0, outcome.err
    entry = json.loads(outcome.out)
    assert entry["metrics"]["txt_r1"] == round(100 * official["metrics"]["t2i_r1"], 2)
    assert (entry["backbone"], entry["submitter"]) == ("tiny-internvl", "A. Person")
    assert "full_test_951" in outcome.err


def test_retraining_into_the_campaign_brings_its_final_model_into_the_leaderboard(
    crossmodal: CommandLine, campaign: CampaignFolder
) -> None:
    before = campaign.leaderboard.with_suffix(".csv").read_text()
    assert crossmodal("retrain", campaign.root, "--output-dir", campaign.root / "final").code == 0
    with campaign.leaderboard.with_suffix(".csv").open() as stream:
        rows = list(csv.DictReader(stream))
    measured = json.loads(campaign.final_metrics.read_text())
    assert len(rows) == before.count("\n") - 1 + len(measured["evaluations"])
    for row, found in zip(rows[-len(measured["evaluations"]) :], measured["evaluations"], strict=True):
        assert (row["state"], row["split"], row["protocol"]) == ("final", "test", found["protocol"])
        assert float(row["i2t_r5"]) == found["metrics"]["i2t_r5"]
        assert float(row["i2t_r5_low"]) == found["intervals"]["i2t_r5"]["low"]


def test_options_of_an_entry_and_several_campaigns_do_not_go_together(
    crossmodal: CommandLine, campaign: CampaignFolder
) -> None:
    both = crossmodal("leaderboard", campaign.root, campaign.root, "--format", "geotext", "--submitter", "A. Person")
    assert both.code == 2
    assert "--format geotext: 2 campaigns" in both.err
    for option in ("--submitter", "--affiliation", "--paper", "--code", "--checkpoint", "--notes", "--id"):
        lost = crossmodal("leaderboard", campaign.root, option, "https://a.org")
        assert lost.code == 2
        assert "need --format geotext" in lost.err


def test_the_leaderboard_is_printed_and_written(crossmodal: CommandLine, campaign: CampaignFolder) -> None:
    for path in campaign.root.glob("leaderboard.*"):
        path.unlink()
    outcome = crossmodal("leaderboard", campaign.root)
    assert outcome.code == 0, outcome.err
    assert "relevance by building" in " ".join(outcome.out.split())
    assert max(map(len, outcome.out.splitlines()[:10])) <= 80
    with (campaign.root / "leaderboard.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 5
    assert (campaign.root / "leaderboard.md").read_text().count("\n| ") == 5 + 2
    assert (campaign.root / "leaderboard.tex").exists()
    assert (campaign.root / "leaderboard.html").exists()


def test_a_search_leaves_the_files_that_the_leaderboard_would_write(
    crossmodal: CommandLine, campaign: CampaignFolder
) -> None:
    left = {path.name: path.read_text() for path in campaign.root.glob("leaderboard.*")}
    assert len(left) == 4
    assert crossmodal("leaderboard", campaign.root, "--metric", "t2i_r1", "--top", "2").code == 0
    assert {path.name: path.read_text() for path in campaign.root.glob("leaderboard.*")} == left


@pytest.mark.parametrize("format", ["csv", "md", "latex", "json", "html"])
def test_a_format_is_printed_alone(crossmodal: CommandLine, campaign: CampaignFolder, format: str) -> None:
    for path in campaign.root.glob("leaderboard.*"):
        path.unlink()
    outcome = crossmodal("leaderboard", campaign.root, "--format", format)
    assert outcome.code == 0, outcome.err
    match format:
        case "csv":
            assert len(list(csv.DictReader(io.StringIO(outcome.out)))) == 5
        case "json":
            assert len(json.loads(outcome.out)) == 5
        case "md":
            assert outcome.out.startswith("## Trials of small\n\nValidation split")
        case "latex":
            assert r"\end{tabular}" in outcome.out
        case "html":
            assert outcome.out.startswith("<!doctype html>")
    assert not (campaign.root / "leaderboard.csv").exists()


def test_ranking_by_another_metric(crossmodal: CommandLine, campaign: CampaignFolder) -> None:
    outcome = crossmodal("leaderboard", campaign.root, "--format", "json", "--metric", "i2t_r10", "--top", 4)
    rows = json.loads(outcome.out)
    assert len(rows) == 4
    assert [row["i2t_r10"] for row in rows] == sorted((row["i2t_r10"] for row in rows), reverse=True)
    alias = crossmodal("leaderboard", campaign.root, "--format", "json", "--by", "i2t_r10", "--top", 4)
    assert alias.out == outcome.out


def test_two_campaigns_stand_in_one_table_or_in_two(
    crossmodal: CommandLine, campaign: CampaignFolder, tmp_path: Path
) -> None:
    same = shutil.copytree(campaign.root, tmp_path / "same")
    together = crossmodal("leaderboard", campaign.root, same, "--format", "json")
    assert [row["rank"] for row in json.loads(together.out)[:4]] == [1, 1, 3, 3]
    features = json.loads((same / "features.json").read_text())
    (same / "features.json").write_text(json.dumps({name: {**parts, "data": "x"} for name, parts in features.items()}))
    apart = crossmodal("leaderboard", campaign.root, same)
    assert apart.code == 0, apart.err
    assert "Trials of c " in apart.out
    assert "Trials of same " in apart.out
    assert apart.out.count("have a table of their own") == 2


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


def test_checkpoints_that_count_equal_texts_otherwise_are_refused(
    crossmodal: CommandLine, runs: Path, tmp_path: Path
) -> None:
    path, other = runs / "single" / "checkpoint_2.pth", tmp_path / "unique.pth"
    checkpoint = load_checkpoint(path)
    unique = checkpoint.config.with_overrides({"evaluation.unique_texts": True})
    save_checkpoint(other, replace(checkpoint, config=unique))
    outcome = crossmodal(
        "benchmark", "--checkpoints", path, other, "--labels", "a", "b", "--output-dir", tmp_path / "b"
    )
    assert (outcome.code, f"{other}: counts equal texts otherwise than the first one" in outcome.err) == (2, True)


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
    for path in campaign.root.glob("leaderboard.*"):
        path.unlink()
    (campaign.root / name).write_text("mine")
    outcome = crossmodal(command, campaign.root)
    assert outcome.code == 2
    assert f"holds {name}, which crossmodal did not write" in outcome.err
    assert (campaign.root / name).read_text() == "mine"
