import json
import math
import shutil
from pathlib import Path

import pytest

from core.config import TrainConfig
from core.errors import UserError
from core.features.opening import open_features
from core.features.store import Features
from core.files.folders import CampaignFolder
from core.files.json_files import read_json_lines
from core.records import EpochMetrics
from core.training.train import train
from search.rerun import TIMES, Change, FoundTrial, compare_epoch, find_trial, repeat


def ran(config: TrainConfig, features: Features, *, epochs: int | None = None) -> FoundTrial:
    result = train(config, features)
    known = {
        metrics.epoch: {name: value for name, value in metrics.to_json().items() if name not in TIMES}
        for metrics in result.history[:epochs]
    }
    return FoundTrial(config, 1, known, result.receipt)


def test_a_repeated_trial_has_the_same_figures(planted_features: Features, small_config: TrainConfig) -> None:
    config = small_config.with_overrides({"recipe.stage1_epochs": 1})
    repeated = repeat(ran(config, planted_features), planted_features)
    assert (repeated.changes, repeated.notes) == ([], [])


def test_a_pruned_trial_is_repeated_as_far_as_it_came(planted_features: Features, small_config: TrainConfig) -> None:
    seen: list[EpochMetrics] = []
    repeated = repeat(ran(small_config, planted_features, epochs=2), planted_features, on_epoch=seen.append)
    assert repeated.changes == []
    assert [metrics.epoch for metrics in seen] == [0, 1]


def test_another_seed_is_told_figure_by_figure(planted_features: Features, small_config: TrainConfig) -> None:
    first = ran(small_config, planted_features)
    other = ran(small_config.with_overrides({"seed": 1}), planted_features)
    changes = repeat(FoundTrial(first.config, 1, other.epochs, first.receipt), planted_features).changes
    assert {change.epoch for change in changes} == {0, 1, 2, 3}
    (loss,) = [change for change in changes if (change.epoch, change.name) == (2, "loss")]
    assert (loss.before, loss.after) == (other.epochs[2]["loss"], first.epochs[2]["loss"])


def test_what_else_differs_is_noted(planted_features: Features, small_config: TrainConfig) -> None:
    trial = ran(small_config.with_overrides({"recipe.epochs": 1}), planted_features)
    assert trial.receipt is not None
    moved = {**trial.receipt.to_json(), "device": "NVIDIA X"}
    from_gpu = FoundTrial(trial.config, 1, trial.epochs, type(trial.receipt).from_json(moved))
    assert repeat(from_gpu, planted_features).notes == ["device: the trial had NVIDIA X, this is cpu"]
    lost = repeat(FoundTrial(trial.config, 1, trial.epochs, None), planted_features)
    assert lost.notes == ["the receipt of the trial is lost, so it is not known where it ran"]


def test_every_figure_counts_to_the_last_digit() -> None:
    before = {"loss": 0.5, "box_iou": None, "loss_box": 0.25, "t2i_r1": 0.1}
    after = {"loss": math.nextafter(0.5, 1), "box_iou": None, "loss_box": None, "t2i_r1": 0.1}
    first, second = compare_epoch(3, before, after)
    assert first == Change(3, "loss", 0.5, math.nextafter(0.5, 1))
    assert (second.name, second.before, math.isnan(second.after)) == ("loss_box", 0.25, True)


@pytest.fixture
def campaign(finished_campaign: CampaignFolder, tmp_path: Path) -> CampaignFolder:
    shutil.copytree(finished_campaign.root, tmp_path / "c", ignore=shutil.ignore_patterns("wandb", "sessions"))
    return CampaignFolder(tmp_path / "c")


def test_a_trial_of_a_campaign_comes_out_the_same(campaign: CampaignFolder) -> None:
    found = find_trial(campaign, 2)
    assert [row["epoch"] for row in read_json_lines(campaign.trial(2).metrics)] == list(found.epochs)
    repeated = repeat(found, open_features(found.config))
    assert repeated.changes == []
    assert [note for note in repeated.notes if not note.startswith("git_commit")] == []  # code may change between tests


def test_without_its_log_the_best_epoch_is_known_of_the_study(campaign: CampaignFolder) -> None:
    whole = find_trial(campaign, 1)
    campaign.trial(1).metrics.unlink()
    campaign.trial(1).receipt.unlink()
    found = find_trial(campaign, 1)
    ((epoch, figures),) = found.epochs.items()
    assert figures == whole.epochs[epoch]
    assert found.receipt is None


def test_trials_that_are_not_there_or_damaged_are_one_line(campaign: CampaignFolder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no trial 99, but 5 trials from 0"):
        find_trial(campaign, 99)
    with pytest.raises(UserError, match="holds no campaign"):
        find_trial(CampaignFolder(tmp_path / "gone"), 0)
    campaign.trial(0).receipt.write_text("{}")
    with pytest.raises(UserError, match="is not the receipt of a trial"):
        find_trial(campaign, 0)
    campaign.trial(0).metrics.write_text(json.dumps({"epoch": 0}) + "\n")
    with pytest.raises(UserError, match="is not the log of a trial"):
        find_trial(campaign, 0)
