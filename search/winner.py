"""The winner of a campaign: which trial is retrained as the final model, and with which stages and epochs."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from analysis.confirmation import Confirmed, best_confirmed
from analysis.leaderboard import rank
from analysis.trials import tabulate
from core.campaign.campaign import read_campaign
from core.campaign.study import read_trials
from core.campaign.trials import TrialRecord
from core.config import RecipeConfig, TrainConfig, config_hash
from core.errors import UserError
from core.files.folders import CampaignFolder
from search.study.restore import trial_config

METHODOLOGY = RecipeConfig(epochs=8, stage1_epochs=3)
"""Its stage split is used if no trial has two stages, nor the baseline."""


@dataclass(frozen=True, slots=True)
class Winner:
    """The trial that is retrained."""

    campaign: str
    number: int
    value: float
    """Objective in the search."""
    config: TrainConfig
    """What is trained."""
    split_of: str | None
    """Whose stage split a single-stage trial is given, in words; None if it keeps its own."""
    threads: int
    """Processor threads of the trial. With as many, the final model's figures are the trial's to the last digit."""
    epochs: int
    """Epochs up to the trial's best one."""
    confirmed: Confirmed | None
    """The same trial under other seeds, if that was done; it was then chosen by its mean."""
    folder: CampaignFolder = field(compare=False)

    @property
    def was_single_stage(self) -> bool:
        """Whether it has two stages although the trial had one."""
        return self.split_of is not None

    @property
    def has_two_stages(self) -> bool:
        """Whether the final model is trained in two stages, each in a folder of its own."""
        return has_two_stages(self.config.recipe)

    @property
    def checkpoint(self) -> Path:
        """The best weights of the trial."""
        return self.folder.trial(self.number).best_checkpoint


def has_two_stages(recipe: RecipeConfig) -> bool:
    """Whether some epochs align and some are joint."""
    return 0 < recipe.stage1_epochs < recipe.epochs


def find_winner(folder: CampaignFolder) -> Winner:
    """The winner as a two-stage configuration; a single-stage one is split as its best two-stage neighbour.

    Raises:
        UserError: as `find_as_searched`, or one epoch cannot be split.
    """
    winner = find_as_searched(folder)
    if winner.has_two_stages:
        return winner
    like, source = _split_to_follow(folder)
    return replace(winner, config=in_two_stages(winner.config, like, where=folder.root), split_of=source)


def find_as_searched(folder: CampaignFolder) -> Winner:
    """The trial with the best confirmed mean, or else the best complete trial; its settings come from the study.

    Raises:
        UserError: the campaign has no complete trial that keeps the constraints, or the study contradicts it.
    """
    campaign, trials = read_campaign(folder), read_trials(folder)
    eligible, confirmed = eligible_trials(folder, trials), best_confirmed(folder)
    best = trials[confirmed.trial if confirmed else int(eligible.iloc[0]["number"])]
    config = trial_config(campaign, best.parameters)
    if config_hash(config) != best.config_hash:
        raise UserError(f"trial {best.number} ran with settings other than those in the study", where=folder.root)
    assert best.value is not None, "a complete trial has a value"
    assert best.best is not None, "a complete trial has a best epoch"
    return Winner(
        campaign=campaign.name,
        number=best.number,
        value=best.value,
        config=config,
        split_of=None,
        threads=campaign.resources.threads,
        epochs=best.best.epoch + 1,
        confirmed=confirmed,
        folder=folder,
    )


def eligible_trials(folder: CampaignFolder, trials: Sequence[TrialRecord]) -> pd.DataFrame:
    """The complete trials that keep the constraints, as ranked by the leaderboard.

    Raises:
        UserError: there is none.
    """
    ranked = rank(tabulate(folder, trials), by=read_campaign(folder).objective)
    eligible = ranked[ranked["rank"].notna()]
    if eligible.empty:
        raise nothing_eligible(folder)
    return eligible


def nothing_eligible(folder: CampaignFolder) -> UserError:
    """The error for a campaign none of whose trials may be the best."""
    constrained = read_campaign(folder).constraints.root
    bounds = "; ".join(f"{name} {bound}" for name, bound in constrained.items())
    problem = f"no complete trial keeps the constraints ({bounds})" if constrained else "no trial is complete"
    return UserError(problem, where=folder.root, how="continue it with crossmodal search")


def _split_to_follow(folder: CampaignFolder) -> tuple[RecipeConfig, str]:
    """The stages of the best two-stage trial, else of the baseline, else of the methodology; and which, in words."""
    campaign, trials = read_campaign(folder), read_trials(folder)
    for number in map(int, eligible_trials(folder, trials)["number"]):
        recipe = trial_config(campaign, trials[number].parameters).recipe
        if has_two_stages(recipe):
            return recipe, f"trial {number}, the best with two stages"
    if has_two_stages(campaign.base.recipe):
        return campaign.base.recipe, "the campaign's own configuration"
    return METHODOLOGY, "the methodology"


def in_two_stages(config: TrainConfig, like: RecipeConfig, *, where: Path) -> TrainConfig:
    """A single-stage configuration, split into stages in the proportion of another one.

    Raises:
        UserError: one epoch cannot be split; names `where`.
    """
    epochs = config.recipe.epochs
    if epochs < 2:
        raise UserError("one epoch cannot be split into two stages", where=where, how="retrain with --as-searched")
    split = min(max(1, round(epochs * like.stage1_epochs / like.epochs)), epochs - 1)
    return config.with_overrides({"recipe.stage1_epochs": split, "recipe.stage2_lr_scale": like.stage2_lr_scale})


def on_all_buildings(winner: Winner) -> Winner:
    """The winner to be trained on the validation buildings, too, for as many epochs as were best without them."""
    aligning = winner.config.recipe.stage1_epochs if winner.has_two_stages else 0
    epochs = max(winner.epochs, aligning + 1)
    recipe = {"recipe.epochs": epochs, "recipe.stage1_epochs": min(winner.config.recipe.stage1_epochs, epochs)}
    return replace(winner, config=winner.config.with_overrides({"data.train_on": "all", **recipe}))
