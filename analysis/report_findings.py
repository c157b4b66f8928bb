"""Everything that a campaign's report says, read from the folder once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.confirmation import Confirmed, load_confirmation
from analysis.leaderboard import failures, rank
from analysis.report_settings import Searched, searched_settings
from analysis.report_space import NextSpace, propose_space
from analysis.trials import load_history, load_trials
from core.campaign.campaign import Campaign, read_campaign
from core.campaign.study import read_importance
from core.campaign.trials import BASELINE
from core.config import TrainConfig, load_config
from core.errors import UserError
from core.files.folders import CampaignFolder, TrialFolder
from core.files.json_files import read_json
from core.records import Evaluation, Grounding

MAIN_PROTOCOL = "building"


@dataclass(frozen=True, slots=True)
class Findings:
    """What a campaign searched, found and confirmed."""

    campaign: Campaign
    trials: pd.DataFrame
    """As returned by `load_trials`."""
    ranked: pd.DataFrame
    """As returned by `rank`, by the objective."""
    history: pd.DataFrame
    """As returned by `load_history`; without the epochs of trials whose files are lost."""
    settings: Sequence[Searched]
    importance: Mapping[str, float]
    """Share of each of `settings`, the largest first; of those left out it is not counted."""
    confirmed: Sequence[Confirmed]
    final: Evaluation | None
    """Of the final model on the test split, by building and similarity alone."""
    grounding: Mapping[str, Grounding]
    """Verdicts on boxes and relations of the final model."""
    next_space: NextSpace
    failures: Mapping[str, int]
    best: "pd.Series[Any] | None"
    """Row of `ranked` of the best trial: the best confirmed one, else the best complete one."""
    best_config: TrainConfig | None
    """Its configuration; None if its file is lost."""
    model: Path | None
    """Checkpoint of the final model, or else of the best trial."""
    model_name: str
    """Which of them, in words."""

    @property
    def objective(self) -> str:
        return self.campaign.objective

    @property
    def best_number(self) -> int | None:
        return None if self.best is None else int(self.best["number"])

    @property
    def baseline(self) -> "pd.Series[Any] | None":
        """Row of `ranked` of the baseline, once it is complete."""
        rows = self.ranked[(self.ranked["origin"] == BASELINE) & (self.ranked["state"] == "complete")]
        return None if rows.empty else rows.iloc[0]


def read_findings(folder: CampaignFolder) -> Findings:
    """Read all that a report says, apart from its pictures.

    Raises:
        UserError: the folder holds no campaign, no trial has a value yet, or a file is damaged.
    """
    campaign, trials = read_campaign(folder), load_trials(folder)
    confirmed = load_confirmation(folder)
    ranked = rank(trials, campaign.objective, confirmed)
    settings = searched_settings(campaign.space, trials)
    best = _best(ranked)
    files = None if best is None else folder.trial(int(best["number"]))
    model, model_name = _model(folder, files)
    final, grounding = _final(folder)
    return Findings(
        campaign=campaign,
        trials=trials,
        ranked=ranked,
        history=load_history(folder),
        settings=settings,
        importance=_among(settings, read_importance(folder)),
        confirmed=confirmed,
        final=final,
        grounding=grounding,
        next_space=propose_space(campaign, ranked),
        failures=failures(trials),
        best=best,
        best_config=None if files is None or not files.config.exists() else load_config(files.config),
        model=model,
        model_name=model_name,
    )


def _best(ranked: pd.DataFrame) -> "pd.Series[Any] | None":
    eligible = ranked[ranked["rank"].notna()]
    return None if eligible.empty else eligible.iloc[0]


def _model(folder: CampaignFolder, best: TrialFolder | None) -> tuple[Path | None, str]:
    """The checkpoint to take pictures of, and its name."""
    if folder.final_checkpoint.exists():
        return folder.final_checkpoint, "the final model"
    return (None, "no model") if best is None else (best.best_checkpoint, f"trial {int(best.root.name)}")


def _among(settings: Sequence[Searched], shares: Mapping[str, float]) -> dict[str, float]:
    kept = {name: share for name, share in shares.items() if name in {setting.name for setting in settings}}
    total = sum(kept.values())
    return {name: share / total for name, share in kept.items()} if total else {}


def _final(folder: CampaignFolder) -> tuple[Evaluation | None, dict[str, Grounding]]:
    """What the final model reached, by building and similarity alone, and the verdicts on its regions."""
    if not folder.final_metrics.exists():
        return None, {}
    try:
        content = read_json(folder.final_metrics)
        evaluations = [Evaluation.from_json(each) for each in content["evaluations"]]
        grounding = {name: Grounding.from_json(each) for name, each in content["grounding"].items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError("is not a final model's scorecard", where=folder.final_metrics, how="retrain again") from None
    plain = [each for each in evaluations if not each.rerank and each.query_bank == "none"]
    return next((each for each in plain if each.protocol == MAIN_PROTOCOL), None), grounding
