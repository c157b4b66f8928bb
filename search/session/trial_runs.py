"""A trial, and the ranking of all trials, as runs of a tracker: the same while a campaign runs and rebuilt afterwards.

Figures come from the study's records, so that runs and the leaderboard agree to the last digit.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import pandas as pd

from analysis.leaderboard import rank
from analysis.trials import tabulate
from core.campaign.campaign import Campaign
from core.campaign.trials import SCORED, TrialRecord, gain_over_baseline, standing_of
from core.config import TrainConfig
from core.errors import UserError
from core.files.folders import CampaignFolder
from core.records import GROUNDING_METRICS
from core.tracked_runs import RunEnd, RunStart, ShownTable, Tracker, best_figures

LEADERBOARD: Literal["leaderboard"] = "leaderboard"
"""Kind of the run, and title of the table."""
NOT_SHOWN = ("reason", "retry_of", "origin", "session", "config_hash")
"""Columns that do not help to compare trials."""
SEARCHED = "param:"
BEST, GAIN = "best_value", "gain_over_baseline"
"""The objective at the best epoch, in summaries, and its difference to the baseline's."""


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
        summary |= {BEST: trial.value, **best_figures(trial.best)}
    return with_gain(RunEnd("interrupted" if trial.is_stale else trial.state, summary), trials, trial)


def with_gain(end: RunEnd, trials: Sequence[TrialRecord], trial: TrialRecord) -> RunEnd:
    """The end of a trial's run with the gain over the baseline, if both have figures by now."""
    gain = gain_over_baseline(trials, trial)
    return end if gain is None or BEST not in end.summary else replace(end, summary={**end.summary, GAIN: gain})


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
    tracker.finish(name, RunEnd("complete", {BEST: best, GAIN: standing.gain}))
    return True


def _as_shown(table: pd.DataFrame, names: dict[int, str]) -> ShownTable:
    table = table.drop(columns=[*NOT_SHOWN, *(name for name in GROUNDING_METRICS if table[name].isna().all())])
    table.insert(1, "run", table["number"].map(names))
    columns = [str(column).removeprefix(SEARCHED) for column in table.columns]
    return ShownTable(columns, [[_plain(cell) for cell in row] for row in table.itertuples(index=False, name=None)])


def _plain(cell: Any) -> Any:
    """A cell without pandas' and numpy's types."""
    if pd.isna(cell):
        return None
    return cell.item() if hasattr(cell, "item") else cell
