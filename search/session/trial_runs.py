"""A trial, and the ranking of all trials, as runs of a tracker: the same while a campaign runs and rebuilt afterwards.

Figures come from the study's records, so that runs and the leaderboard agree to the last digit.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.leaderboard import rank
from analysis.trials import tabulate
from core.campaign.campaign import Campaign
from core.campaign.trials import SCORED, TrialRecord, gain_over_baseline, standing_of
from core.config import TrainConfig
from core.errors import UserError
from core.files.folders import CampaignFolder
from core.tracked_runs import RunEnd, RunStart, ShownTable, Tracker, best_figures

LEADERBOARD = "leaderboard"
"""Title of the table."""
NOT_SHOWN = ("reason", "retry_of", "origin", "session", "config_hash")
"""Columns that do not help to compare trials."""
SEARCHED = "param:"


def trial_start(campaign: str, trial: TrialRecord, config: TrainConfig) -> RunStart:
    """How the run of a trial starts; a trial that has the baseline's settings is tagged `baseline`."""
    about = {"campaign": campaign, "trial": trial.number, "confirms": trial.confirms, "retry_of": trial.retry_of}
    start = RunStart.of_training(trial.name, "search" if trial.confirms is None else "confirm", config, about)
    tags = [*start.tags, "baseline"] if trial.repeats_baseline else start.tags
    return RunStart(start.name, start.job, start.config, tags)


def trial_end(trials: Sequence[TrialRecord], trial: TrialRecord, *, parameters: int | None) -> RunEnd:
    """How the run of an ended trial ends.

    As in the leaderboard, only complete and pruned trials have figures: those of the best epoch.

    Args:
        trials: all of the search or the confirmation that the trial belongs to.
        parameters: number of trainable parameters, if its receipt says so.
    """
    assert trial.state in ("complete", "pruned", "failed"), "the trial has ended"
    summary: dict[str, Any] = {
        "reason": trial.reason,
        "seconds": trial.seconds,
        "epochs": trial.epochs,
        "session": trial.session,
        "parameters": parameters,
    }
    if trial.state in SCORED and trial.best is not None:
        gain = gain_over_baseline(trials, trial)
        summary |= {"best_value": trial.value, "gain_over_baseline": gain, **best_figures(trial.best)}
    return RunEnd("interrupted" if trial.is_stale else trial.state, summary)


def track_leaderboard(
    tracker: Tracker, campaign: Campaign, folder: CampaignFolder, trials: Sequence[TrialRecord]
) -> bool:
    """Write the ranking of a search as a run of its own, named by the number of trials that it ranks.

    Nothing is written before a trial has a value, or if this ranking was written before.

    Args:
        trials: all of the search.
    Returns:
        Whether it was written.
    """
    standing = standing_of(trials)
    name = f"{LEADERBOARD}-{standing.ended:04d}-trials"
    if tracker.holds(name):
        return False
    try:
        table = rank(tabulate(folder, trials), by=campaign.objective)
    except UserError:
        return False
    about = {"campaign": campaign.name, "objective": campaign.objective, "trials": standing.ended}
    tracker.start(RunStart(name, LEADERBOARD, about))
    tracker.show(name, LEADERBOARD, _as_shown(table, {trial.number: trial.name for trial in trials}))
    best = None if standing.best is None else standing.best[1]
    tracker.finish(name, RunEnd("complete", {"best_value": best, "gain_over_baseline": standing.gain}))
    return True


def _as_shown(table: pd.DataFrame, names: dict[int, str]) -> ShownTable:
    table = table.drop(columns=list(NOT_SHOWN))
    table.insert(1, "run", table["number"].map(names))
    columns = [str(column).removeprefix(SEARCHED) for column in table.columns]
    return ShownTable(columns, [[_plain(cell) for cell in row] for row in table.itertuples(index=False, name=None)])


def _plain(cell: Any) -> Any:
    """A cell without pandas' and numpy's types."""
    if pd.isna(cell):
        return None
    return cell.item() if hasattr(cell, "item") else cell
