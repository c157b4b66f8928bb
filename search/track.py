"""Rebuilding the runs of a campaign from its own files, for one that ran without a tracker, or for another tracker.

What was tracked before is left as it is, so that tracking twice writes nothing twice.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from analysis.trials import read_parameters
from core.campaign.campaign import Campaign, read_campaign
from core.campaign.study import read_confirmations, read_trials
from core.campaign.trials import ENDED, TrialRecord
from core.errors import UserError
from core.files.folders import CampaignFolder, TrialFolder
from core.files.json_files import read_json_lines
from core.files.ownership import read_identity
from core.records import EpochMetrics
from core.tracked_runs import Tracker
from search.final_run import FINAL, track_final
from search.session.trial_runs import track_leaderboard, trial_end, trial_start
from search.study.restore import trial_config

OpenTracker = Callable[[Path, str], Tracker]
"""Opens the tracker of an output folder with an id."""


@dataclass(slots=True)
class Rebuilt:
    """What became of the runs of a campaign."""

    written: int = 0
    known: int = 0
    """Runs that were tracked before."""
    problems: int = 0
    """Calls to the tracker that failed."""
    notes: list[str] = field(default_factory=list)
    """One line for each thing that is missing."""


def rebuild_runs(folder: CampaignFolder, open_tracker: OpenTracker) -> Rebuilt:
    """Write the ended trials of a search and of its confirmation, the leaderboard and the final model as runs.

    Trials that are running or waiting are left to a later call.

    Raises:
        UserError: the folder holds no campaign, or its study or a file of a trial cannot be read.
    """
    campaign, rebuilt = read_campaign(folder), Rebuilt()
    trials, repeats = read_trials(folder), read_confirmations(folder)
    with _tracker(open_tracker, folder.root, rebuilt) as tracker:
        _rebuild_trials(tracker, campaign, folder, trials, rebuilt)
        rebuilt.written += track_leaderboard(tracker, campaign, folder, trials)
    if repeats:
        with _tracker(open_tracker, folder.confirmation.root, rebuilt) as tracker:
            _rebuild_trials(tracker, campaign, folder.confirmation, repeats, rebuilt)
    if folder.final_metrics.exists():
        output = folder.final_metrics.parent
        with _tracker(open_tracker, output, rebuilt) as tracker:
            if tracker.holds(FINAL):
                rebuilt.known += 1
            else:
                rebuilt.notes += track_final(tracker, campaign, trials, output)
                rebuilt.written += 1
    return rebuilt


@contextmanager
def _tracker(open_tracker: OpenTracker, root: Path, rebuilt: Rebuilt) -> Iterator[Tracker]:
    tracker = open_tracker(root, str(read_identity(root)["id"]))
    try:
        yield tracker
    finally:
        tracker.close()
        rebuilt.problems += tracker.problems


def _rebuild_trials(
    tracker: Tracker, campaign: Campaign, folder: CampaignFolder, trials: Sequence[TrialRecord], rebuilt: Rebuilt
) -> None:
    for trial in trials:
        if trial.state not in ENDED:
            continue
        if tracker.holds(trial.name):
            rebuilt.known += 1
            continue
        files = folder.trial(trial.number)
        try:
            config = trial_config(campaign, trial.parameters)
        except UserError as error:  # the driver was killed before it drew them all
            rebuilt.notes.append(f"{trial.name} is left out: {error}")
            continue
        if trial.seed is not None:
            config = config.with_overrides({"seed": trial.seed})
        tracker.start(trial_start(campaign.name, trial, config))
        for metrics in _epochs(files, trial, rebuilt.notes):
            tracker.epoch(trial.name, metrics)
        end = trial_end(trials, trial, parameters=read_parameters(files.receipt))
        if campaign.wandb.artifacts and end.state == "complete" and files.best_checkpoint.exists():
            end = replace(end, checkpoint=files.best_checkpoint)
        tracker.finish(trial.name, end)
        rebuilt.written += 1


def _epochs(files: TrialFolder, trial: TrialRecord, notes: list[str]) -> list[EpochMetrics]:
    """The epochs of a trial; those that were lost are noted."""
    rows = read_json_lines(files.metrics) if files.metrics.exists() else []
    if len(rows) < trial.epochs:
        notes.append(f"{files.metrics} lacks {trial.epochs - len(rows)} of {trial.epochs} epochs")
    try:
        return [EpochMetrics.from_json(row) for row in rows]
    except ValueError:
        raise UserError("does not hold the epochs of a trial", where=files.metrics, how="remove it") from None
