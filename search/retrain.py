"""Retraining the winner as the final two-stage model, and evaluating it once on the test split."""

from dataclasses import dataclass
from pathlib import Path

import torch

from analysis.leaderboard import rank
from analysis.trials import tabulate
from core.campaign.campaign import read_campaign
from core.campaign.study import read_trials
from core.config import RecipeConfig, TrainConfig, config_hash
from core.errors import UserError
from core.evaluation.scorecard import measure
from core.features.store import Features
from core.files.folders import CampaignFolder
from core.files.json_files import write_json
from core.records import Scorecard, best_epoch
from core.training.runs import OnEpoch, hold_two_stage, require_free_two_stage, run_two_stage
from search.study.restore import trial_config

DEFAULT_STAGE_SPLIT = 3 / 8
"""Share of alignment epochs in the methodology. Used if neither the winner nor the baseline has two stages."""

METRICS = "metrics.json"


@dataclass(frozen=True, slots=True)
class Winner:
    """The trial that is retrained."""

    number: int
    value: float
    config: TrainConfig
    """Always with two stages."""
    was_single_stage: bool
    threads: int
    """Processor threads of the trial. With as many, the final model's figures are the trial's to the last digit."""


def find_winner(folder: CampaignFolder) -> Winner:
    """The best complete trial of a campaign as a two-stage configuration; value and settings come from the study.

    Raises:
        UserError: the campaign has no complete trial, or too few epochs for two stages.
    """
    campaign = read_campaign(folder)
    trials = read_trials(folder)
    table = rank(tabulate(folder, trials), by=campaign.objective)
    complete = table[table["state"] == "complete"]
    if complete.empty:
        raise UserError("no trial is complete", where=folder.root, how="continue it with crossmodal search")
    best = complete.iloc[0]
    config = trial_config(campaign, trials[int(best["number"])].parameters)
    if config_hash(config) != best["config_hash"]:
        raise UserError(f"trial {best['number']} ran with settings other than those in the study", where=folder.root)
    single = not 0 < config.recipe.stage1_epochs < config.recipe.epochs
    if single:
        config = in_two_stages(config, campaign.base.recipe, where=folder.root)
    return Winner(int(best["number"]), float(best["value"]), config, single, campaign.resources.threads)


def in_two_stages(config: TrainConfig, base: RecipeConfig, *, where: Path) -> TrainConfig:
    """A single-stage configuration, split into stages like the baseline.

    Raises:
        UserError: one epoch cannot be split; names `where`.
    """
    epochs = config.recipe.epochs
    if epochs < 2:
        raise UserError("one epoch cannot be split into two stages", where=where, how="search with more epochs")
    split = min(max(1, base.stage1_epochs or round(epochs * DEFAULT_STAGE_SPLIT)), epochs - 1)
    return config.with_overrides({"recipe.stage1_epochs": split, "recipe.stage2_lr_scale": base.stage2_lr_scale})


@dataclass(frozen=True, slots=True)
class FinalModel:
    """The retrained winner."""

    value: float
    """Validation objective of the epoch that was kept; comparable with the winner's."""
    card: Scorecard
    """On the test split."""


def retrain(
    winner: Winner, features: Features, output: Path, *, on_epoch: OnEpoch = lambda metrics: None
) -> FinalModel:
    """Train the final two-stage model and evaluate it once on the test split.

    Writes the files of `run_two_stage`, and the scorecard as metrics.json.

    Args:
        features: opened with the test split.
    """
    assert features.test is not None, "the caller opens the test split"
    objective = winner.config.objective
    torch.set_num_threads(winner.threads)
    with hold_two_stage(output, METRICS):
        stage2 = run_two_stage(winner.config, features, output, on_epoch=on_epoch).stage2
        name = str(output / "stage2" / "checkpoint_best.pth")
        card = measure(stage2.best, features, name=name, settings=winner.config.evaluation).scorecard
        write_json(output / METRICS, {"trial": winner.number, **card.to_json()})
    return FinalModel(float(getattr(best_epoch(stage2.history, objective), objective)), card)


def require_free_output(output: Path) -> None:
    """Raise UserError if the folder has foreign files or another process where `retrain` would write."""
    require_free_two_stage(output, METRICS)
