"""A whole campaign as a user runs it: real JPEGs, a real tiny InternVL, real Ray workers, real W&B files."""

import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from analysis.leaderboard import rank
from analysis.trials import load_trials
from core.config import TrainConfig, config_hash, load_config
from core.evaluation.metrics import chance_recall, members_by_group
from core.features.opening import open_features
from core.files.folders import CampaignFolder
from core.files.json_files import read_json, read_json_lines
from core.model.checkpoints import load_checkpoint
from core.training.train import train
from tests.commands import run
from tests.conftest import CAMPAIGN, write_campaign
from tests.wandb_files import read_runs


def figures(folder: CampaignFolder, number: int) -> list[dict[str, object]]:
    """The epochs of a trial without their times."""
    rows = read_json_lines(folder.trial(number).metrics)
    return [{key: value for key, value in row.items() if not key.endswith("seconds")} for row in rows]


def best_joint_value(folder: CampaignFolder, number: int) -> float:
    """Epochs of alignment do not count: every recipe here has a joint stage."""
    rows = read_json_lines(folder.trial(number).metrics)
    return max(float(row["recall_mean"]) for row in rows if row["stage"] == 2)


def test_the_baseline_runs_first_and_as_configured(finished_campaign: CampaignFolder) -> None:
    base = load_config(finished_campaign.root.parent / "train.yaml")
    assert load_config(finished_campaign.trial(0).config) == base
    started = {number: finished_campaign.trial(number).config.stat().st_mtime_ns for number in range(5)}
    assert min(started, key=lambda number: started[number]) == 0


def test_every_trial_leaves_config_metrics_receipt_and_checkpoint(finished_campaign: CampaignFolder) -> None:
    for number in range(5):
        trial = finished_campaign.trial(number)
        receipt = read_json(trial.receipt)
        assert receipt["config_hash"] == config_hash(load_config(trial.config))
        assert len(read_json_lines(trial.metrics)) == 3
        assert trial.best_checkpoint.exists()


def test_every_trial_has_an_offline_run_in_the_campaigns_group(finished_campaign: CampaignFolder) -> None:
    runs = read_runs(finished_campaign.root)
    trials = [f"trial-{number:04d}" for number in range(5)]
    assert sorted(runs) == ["leaderboard-0005-trials", *trials]
    assert {run["group"] for run in runs.values()} == {"small"}
    assert {runs[name]["job_type"] for name in trials} == {"search"}
    for number, name in enumerate(trials):
        rows = read_json_lines(finished_campaign.trial(number).metrics)
        assert [row["recall_mean"] for row in runs[name]["rows"]] == [row["recall_mean"] for row in rows]
        assert runs[name]["summary"]["best_value"] == best_joint_value(finished_campaign, number)
        assert runs[name]["config"]["model.adapter_width"] == 32


def test_sorting_runs_by_their_summary_gives_the_leaderboard(finished_campaign: CampaignFolder) -> None:
    table = rank(load_trials(finished_campaign))
    runs = read_runs(finished_campaign.root)
    trials = [run for run in runs.values() if run["job_type"] == "search"]
    ranked = sorted(trials, key=lambda run: (-float(run["summary"]["recall_mean"]), run["config"]["trial"]))
    assert [run["config"]["trial"] for run in ranked] == table["number"].tolist()
    for name in ("recall_mean", "t2i_r1", "i2t_r10", "best_epoch", "seconds", "parameters", "gain_over_baseline"):
        assert [run["summary"][name] for run in ranked] == table[name].tolist()
    assert all("complete" in run["tags"] for run in ranked)
    assert [run["name"] for run in ranked if "baseline" in run["tags"]] == ["trial-0000"]


def test_the_leaderboard_is_a_table_in_a_run_of_its_own(finished_campaign: CampaignFolder) -> None:
    (folder,) = finished_campaign.root.glob("wandb/offline-run-*leaderboard-0005-trials*")
    (path,) = folder.glob("files/media/table/*.json")
    shown, table = read_json(path), rank(load_trials(finished_campaign))
    rows = [dict(zip(shown["columns"], row, strict=True)) for row in shown["data"]]
    assert [row["run"] for row in rows] == [f"trial-{number:04d}" for number in table["number"]]
    for name in ("rank", "recall_mean", "gain_over_baseline", "t2i_r1"):
        assert [row[name] for row in rows] == table[name].tolist()
    assert [row["optimizer.learning_rate"] for row in rows] == table["param:optimizer.learning_rate"].tolist()


def test_the_leaderboard_equals_the_study(finished_campaign: CampaignFolder) -> None:
    table = rank(load_trials(finished_campaign))
    assert table["recall_mean"].tolist() == table["value"].tolist()
    best_epochs = {number: best_joint_value(finished_campaign, number) for number in range(5)}
    assert dict(zip(table["number"], table["value"], strict=True)) == best_epochs


def test_ray_leaves_nothing_behind(finished_campaign: CampaignFolder) -> None:
    assert not any(finished_campaign.sessions.iterdir())


def test_a_trial_repeats_without_ray(finished_campaign: CampaignFolder) -> None:
    config = load_config(finished_campaign.trial(2).config)
    alone = train(config, open_features(config)).history
    assert [row["recall_mean"] for row in figures(finished_campaign, 2)] == [m.recall_mean for m in alone]


@pytest.mark.slow
def test_a_fresh_worker_gives_the_figures_of_a_reused_one(
    finished_campaign: CampaignFolder, demo: Path, tmp_path: Path
) -> None:
    """In the reused campaign the fifth trial ran on a worker that had trained others before."""
    config = load_config(finished_campaign.trial(4).config)
    campaign = write_campaign(tmp_path, demo, CAMPAIGN.replace("trials: 5", "trials: 1"))
    (tmp_path / "train.yaml").write_text(finished_campaign.trial(4).config.read_text())
    outcome = run("search", campaign, "--output-dir", tmp_path / "fresh", "--no-reuse", cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    fresh = CampaignFolder(tmp_path / "fresh")
    assert load_config(fresh.trial(0).config) == config
    assert figures(fresh, 0) == figures(finished_campaign, 4)


@pytest.mark.slow
def test_a_campaign_is_extended_by_running_it_again(finished_campaign: CampaignFolder, tmp_path: Path) -> None:
    folder = CampaignFolder(shutil.copytree(finished_campaign.root, tmp_path / "copy"))
    command = ("search", finished_campaign.root.parent / "campaign.yaml", "--output-dir", folder.root)
    first = load_trials(folder)
    again = run(*command, cwd=tmp_path)
    assert again.code == 0, again.err
    pd.testing.assert_frame_equal(load_trials(folder), first)
    extended = run(*command, "--trials", 7, cwd=tmp_path)
    assert extended.code == 0, extended.err
    trials = load_trials(folder)
    assert trials["number"].tolist() == list(range(7))
    assert trials["value"].tolist()[:5] == first["value"].tolist()
    assert len(set(trials["param:optimizer.learning_rate"])) == 7  # the seed does not repeat its first draws


def test_first_token_pooling_cannot_retrieve(demo_config: TrainConfig) -> None:
    config = demo_config.with_overrides(
        {"features.text": "lm.first", "features.allow_degenerate": True, "recipe.epochs": 4}
    )
    features = open_features(config)
    split = features.validation
    captions = split.groups[split.caption_image]
    best = max(metrics.t2i_r1 for metrics in train(config, features).history)
    chance = chance_recall(members_by_group(captions, split.groups), len(split.groups), 1)
    assert best <= 2 * chance + 1 / len(captions)


def test_a_campaign_file_survives_its_own_copy(finished_campaign: CampaignFolder, tmp_path: Path) -> None:
    """The resolved campaign in the folder is a campaign file of its own."""
    folder = CampaignFolder(shutil.copytree(finished_campaign.root, tmp_path / "copy"))
    outcome = run("search", folder.campaign, "--output-dir", folder.root, cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    assert json.loads(folder.trial(0).receipt.read_text())["epochs"] == 3


def test_what_is_scored_kept_and_retrained_is_one_epoch_of_the_joint_stage(finished_campaign: CampaignFolder) -> None:
    for number in range(5):
        kept = load_checkpoint(finished_campaign.trial(number).best_checkpoint)
        row = load_trials(finished_campaign).iloc[number]
        assert (kept.epoch, kept.history[kept.epoch].stage) == (row["best_epoch"], 2)
        assert kept.history[kept.epoch].recall_mean == row["value"] == best_joint_value(finished_campaign, number)


@pytest.mark.slow
def test_storage_that_others_use_too_is_left_as_it_was(demo: Path, tmp_path: Path) -> None:
    store = tmp_path / "stor"
    (store / "trials").mkdir(parents=True)
    theirs = {
        store / "thesis.tex": "mine",
        store / "trials" / "checkpoint.pth": "mine",
        tmp_path / "c" / "notes": "mine",
    }
    for path, content in theirs.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    campaign = write_campaign(tmp_path, demo, CAMPAIGN.replace("trials: 5", "trials: 1") + "storage: ./stor\n")
    outcome = run("search", campaign, "--output-dir", tmp_path / "c", cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    assert {path: path.read_text() for path in theirs} == theirs
    assert sorted(path.name for path in store.iterdir()) == ["thesis.tex", "trials"]


@pytest.mark.slow
def test_data_that_changed_under_a_started_campaign_is_refused_before_anything_is_extracted(
    demo: Path, tmp_path: Path
) -> None:
    shutil.copytree(demo, tmp_path / "data", ignore=shutil.ignore_patterns("features"))
    campaign = write_campaign(tmp_path, tmp_path / "data", CAMPAIGN.replace("trials: 5", "trials: 1"))
    command = ("search", campaign, "--output-dir", tmp_path / "c")
    assert run(*command, cwd=tmp_path).code == 0
    stores = sorted((tmp_path / "data" / "features").iterdir())
    image = next((tmp_path / "data" / "images" / "train").rglob("*.jpeg"))
    before = image.stat()
    image.write_bytes(bytes(reversed(image.read_bytes()[:-2])) + b"\xff\xd9")
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))  # equal size and time
    for refused in ((*command, "--trials", 2), ("retrain", tmp_path / "c", "--output-dir", tmp_path / "final")):
        outcome = run(*refused, cwd=tmp_path)
        assert outcome.code == 2
        assert "the annotations or images changed since the campaign started" in outcome.err
    assert sorted((tmp_path / "data" / "features").iterdir()) == stores
    assert not (tmp_path / "final").exists()
