import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from analysis.leaderboard import rank
from analysis.status import read_status
from analysis.trials import load_trials
from core.campaign.campaign import Campaign, load_campaign
from core.campaign.study import Notes, confirmation_study
from core.config import RecipeConfig, TrainConfig, config_hash
from core.errors import UserError
from core.files.folders import CampaignFolder
from core.records import RETRIEVAL_KEYS, EpochMetrics, Samples
from core.samples import write_samples
from core.sections import dump_yaml
from search.study.restore import trial_config
from search.winner import Winner, find_as_searched, find_winner, in_two_stages, on_all_buildings

SPACE = {
    "recipe.stage1_epochs": {"int": [0, 8]},
    "recipe.stage2_lr_scale": {"log": [0.05, 1.0], "when": {"recipe.stage1_epochs": {"min": 1}}},
}
DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "recipe.stage1_epochs": IntDistribution(0, 8),
    "recipe.stage2_lr_scale": FloatDistribution(0.05, 1.0, log=True),
}


@dataclass(frozen=True)
class Finished:
    """A complete trial of a study: its stage split and learning rate scale, its value and its best epoch."""

    stage1: int
    value: float
    scale: float = 1.0
    best_epoch: int = 7
    notes: Notes = field(default_factory=Notes)

    @property
    def parameters(self) -> dict[str, Any]:
        scale = {"recipe.stage2_lr_scale": self.scale} if self.stage1 else {}
        return {"recipe.stage1_epochs": self.stage1, **scale}


def campaign_of(base: TrainConfig, **recipe: Any) -> Campaign:
    train = base.with_overrides({"recipe.epochs": 8, **{f"recipe.{name}": value for name, value in recipe.items()}})
    return Campaign.model_validate({"name": "mine", "train": train.model_dump(mode="json"), "space": SPACE})


def write_campaign(folder: CampaignFolder, campaign: Campaign, trials: Sequence[Finished]) -> CampaignFolder:
    folder.root.mkdir(parents=True, exist_ok=True)
    folder.campaign.write_text(dump_yaml(campaign))
    write_study(folder, campaign, campaign.name, trials)
    return folder


def write_study(folder: CampaignFolder, campaign: Campaign, name: str, trials: Sequence[Finished]) -> None:
    storage = JournalStorage(JournalFileBackend(str(folder.journal)))
    study = optuna.create_study(study_name=name, storage=storage, direction="maximize")
    for trial in trials:
        figures: dict[str, Any] = {field.name: 1 for field in dataclasses.fields(EpochMetrics)}
        counts = dict.fromkeys(("steps_without_regions", "gallery_images", "gallery_texts"), 9)
        best = EpochMetrics(**{**figures, **counts, "epoch": trial.best_epoch, "stage": 2, "recall_mean": trial.value})
        hashed = config_hash(trial_config(campaign, trial.parameters))
        notes = dataclasses.replace(trial.notes, best=best, best_value=trial.value, config_hash=hashed)
        study.add_trial(
            optuna.trial.create_trial(
                value=trial.value,
                params=trial.parameters,
                distributions={key: DISTRIBUTIONS[key] for key in trial.parameters},
                user_attrs=notes.attributes(),
            )
        )


def confirm(folder: CampaignFolder, campaign: Campaign, values: Mapping[int, Sequence[float]]) -> None:
    """As if trials had been repeated: trial → value under each seed."""
    repeats = [
        Finished(0, value, notes=Notes(confirms=trial, seed=seed))
        for trial, found in values.items()
        for seed, value in enumerate(found, start=1)
    ]
    write_campaign(folder.confirmation, campaign, [])
    storage = JournalStorage(JournalFileBackend(str(folder.confirmation.journal)))
    optuna.delete_study(study_name=campaign.name, storage=storage)
    write_study(folder.confirmation, campaign, confirmation_study(campaign), repeats)
    for number, repeat in enumerate(repeats):
        hits = Samples(np.full(40, repeat.value), np.arange(40) // 2)
        write_samples(folder.confirmation.samples(number), dict.fromkeys(RETRIEVAL_KEYS, hits))


@pytest.fixture
def folder(tmp_path: Path) -> CampaignFolder:
    return CampaignFolder(tmp_path / "campaign")


def copy_of(campaign: CampaignFolder, tmp_path: Path) -> CampaignFolder:
    shutil.copytree(campaign.root, tmp_path / "copy", ignore=shutil.ignore_patterns("wandb", "sessions"))
    return CampaignFolder(tmp_path / "copy")


def test_the_winner_is_the_first_of_the_leaderboard(finished_campaign: CampaignFolder) -> None:
    best = rank(load_trials(finished_campaign)).iloc[0]
    winner = find_winner(finished_campaign)
    assert (winner.number, winner.value) == (best["number"], best["recall_mean"])
    assert winner.confirmed is None


def test_a_single_stage_winner_is_split_as_the_campaign_does(finished_campaign: CampaignFolder) -> None:
    campaign = load_campaign(finished_campaign.campaign)
    single = campaign.base.with_overrides({"recipe.stage1_epochs": 0})
    split = in_two_stages(single, campaign.base.recipe, where=finished_campaign.root)
    assert (split.recipe.stage1_epochs, split.recipe.epochs) == (1, 3)


def test_the_winner_and_its_settings_are_those_of_the_study_whatever_became_of_its_files(
    finished_campaign: CampaignFolder, tmp_path: Path
) -> None:
    folder = copy_of(finished_campaign, tmp_path)
    best = find_winner(finished_campaign)
    files = folder.trial(best.number)
    files.metrics.unlink()
    files.best_checkpoint.unlink()
    files.config.write_text(dump_yaml(best.config.with_overrides({"recipe.stage1_epochs": 0})))
    assert find_winner(folder) == best
    assert read_status(folder).standing.best == (best.number, best.value)


def test_a_folder_without_a_campaign_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        find_winner(CampaignFolder(tmp_path))


def test_a_confirmed_mean_is_worth_more_than_one_lucky_seed(folder: CampaignFolder, base: TrainConfig) -> None:
    campaign = campaign_of(base)
    write_campaign(folder, campaign, [Finished(3, 0.2), Finished(2, 0.7), Finished(4, 0.6)])
    assert find_winner(folder).number == 1
    confirm(folder, campaign, {0: [0.2, 0.2], 1: [0.3, 0.5], 2: [0.5, 0.6]})
    winner = find_winner(folder)
    assert (winner.number, winner.value) == (2, 0.6)
    assert winner.confirmed is not None
    assert winner.confirmed.mean.value == pytest.approx(0.55)
    assert find_as_searched(folder).number == 2


def test_a_single_stage_winner_gets_the_stages_of_the_best_trial_with_two(
    folder: CampaignFolder, base: TrainConfig
) -> None:
    trials = [Finished(1, 0.2, 0.9), Finished(0, 0.7), Finished(8, 0.65), Finished(5, 0.6, 0.25), Finished(2, 0.5, 0.1)]
    winner = find_winner(write_campaign(folder, campaign_of(base, stage1_epochs=1), trials))
    recipe = winner.config.recipe
    assert (winner.number, recipe.stage1_epochs, recipe.epochs, recipe.stage2_lr_scale) == (1, 5, 8, 0.25)
    assert winner.was_single_stage
    assert winner.split_of == "trial 3, the best with two stages"


@pytest.mark.parametrize(
    ("recipe", "split", "source"),
    [
        ({"stage1_epochs": 6, "stage2_lr_scale": 0.5}, (6, 0.5), "the campaign's own configuration"),
        ({}, (3, 1.0), "the methodology"),
    ],
    ids=["the campaign's", "the methodology's"],
)
def test_without_a_trial_of_two_stages_the_campaign_or_the_methodology_gives_them(
    folder: CampaignFolder, base: TrainConfig, recipe: dict[str, Any], split: tuple[int, float], source: str
) -> None:
    write_campaign(folder, campaign_of(base, **recipe), [Finished(0, 0.2), Finished(0, 0.7)])
    winner = find_winner(folder)
    assert (winner.config.recipe.stage1_epochs, winner.config.recipe.stage2_lr_scale) == split
    assert winner.split_of == source


def test_as_searched_keeps_one_stage_and_two(folder: CampaignFolder, base: TrainConfig) -> None:
    single = find_as_searched(write_campaign(folder, campaign_of(base), [Finished(0, 0.7), Finished(5, 0.6)]))
    assert (single.has_two_stages, single.was_single_stage) == (False, False)
    assert single.config.recipe.stage1_epochs == 0
    other = CampaignFolder(folder.root.parent / "other")
    two = write_campaign(other, campaign_of(base), [Finished(0, 0.6), Finished(5, 0.7, 0.5)])
    assert find_as_searched(two) == find_winner(two)
    assert find_winner(two).config.recipe.stage1_epochs == 5


def test_stages_are_split_in_proportion_and_never_empty(base: TrainConfig, tmp_path: Path) -> None:
    def split(epochs: int, like: RecipeConfig) -> int:
        config = base.with_overrides({"recipe.epochs": epochs})
        return in_two_stages(config, like, where=tmp_path).recipe.stage1_epochs

    assert split(4, RecipeConfig(epochs=8, stage1_epochs=4)) == 2
    assert split(2, RecipeConfig(epochs=8, stage1_epochs=7)) == 1
    assert split(9, RecipeConfig(epochs=100, stage1_epochs=1)) == 1
    with pytest.raises(UserError, match=r"one epoch cannot be split into two stages; retrain with --as-searched"):
        split(1, RecipeConfig(epochs=8, stage1_epochs=4))


def winner_of(config: TrainConfig, epochs: int) -> Winner:
    return Winner("mine", 1, 0.5, config, None, 1, epochs, None, CampaignFolder(Path("unused")))


@pytest.mark.parametrize(
    ("stage1", "best", "expected"),
    [(3, 6, (3, 6)), (3, 8, (3, 8)), (0, 2, (0, 2)), (5, 2, (5, 6)), (8, 4, (4, 4))],
    ids=["two stages", "to the end", "one stage", "a split that came later", "one stage that aligns"],
)
def test_on_all_buildings_as_many_epochs_as_validation_chose(
    base: TrainConfig, stage1: int, best: int, expected: tuple[int, int]
) -> None:
    config = base.with_overrides({"recipe.epochs": 8, "recipe.stage1_epochs": stage1})
    everything = on_all_buildings(winner_of(config, best)).config
    assert everything.data.train_on == "all"
    assert (everything.recipe.stage1_epochs, everything.recipe.epochs) == expected
    assert everything.with_overrides({"data.train_on": "training", "recipe.epochs": 8, "recipe.stage1_epochs": stage1})\
        == config  # fmt: skip
