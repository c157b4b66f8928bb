"""Retraining the winner as the final two-stage model, and the one look at the test split."""

from dataclasses import dataclass
from pathlib import Path

from analysis.leaderboard import rank
from analysis.trials import load_trials
from core.config import TrainConfig, load_config
from core.errors import UserError
from core.features import Features
from core.files import CampaignFolder, write_json
from core.records import Scorecard
from core.runs import OnEpoch, hold_two_stage, require_free_two_stage, run_two_stage
from core.scorecard import measure
from search.config import load_campaign

DEFAULT_STAGE_SPLIT = 3 / 8
"""The methodology's: 3 epochs of 8 align. Used where neither the winner nor the baseline has two stages."""

METRICS = "metrics.json"


@dataclass(frozen=True, slots=True)
class Winner:
    """The trial that is retrained."""

    number: int
    value: float
    config: TrainConfig
    """Always with two stages."""
    was_single_stage: bool


def find_winner(folder: CampaignFolder) -> Winner:
    """The best trial of a campaign, as a two-stage configuration.

    Raises:
        UserError: the campaign has no finished trial, or too few epochs for two stages.
    """
    campaign = load_campaign(folder.campaign)
    best = rank(load_trials(folder), by=campaign.objective).iloc[0]
    config = load_config(folder.trial(int(best["number"])).config)
    recipe, base = config.recipe, campaign.base.recipe
    single = not 0 < recipe.stage1_epochs < recipe.epochs
    if single:
        if recipe.epochs < 2:
            raise UserError("one epoch cannot be split into two stages", where=folder.root, how="search with more")
        split = base.stage1_epochs or round(recipe.epochs * DEFAULT_STAGE_SPLIT)
        split = min(max(1, split), recipe.epochs - 1)
        config = config.with_overrides({"recipe.stage1_epochs": split, "recipe.stage2_lr_scale": base.stage2_lr_scale})
    return Winner(int(best["number"]), float(best[campaign.objective]), config, single)


def retrain(winner: Winner, features: Features, output: Path, *, on_epoch: OnEpoch = lambda metrics: None) -> Scorecard:
    """Train the final two-stage model and measure it, once, on the test split.

    Writes what `run_two_stage` writes, and metrics.json, the scorecard.

    Args:
        features: opened with the test split.
    """
    assert features.test is not None, "the caller opens the test split"
    with hold_two_stage(output, METRICS):
        best = run_two_stage(winner.config, features, output, on_epoch=on_epoch).stage2.best
        name = str(output / "stage2" / "checkpoint_best.pth")
        card = measure(best, features, name=name, rerank=winner.config.evaluation.k_test).scorecard
        write_json(output / METRICS, {"trial": winner.number, **card.to_json()})
    return card


def require_free_output(output: Path) -> None:
    """Raises UserError where `retrain` would find somebody else's files or another process at work."""
    require_free_two_stage(output, METRICS)
