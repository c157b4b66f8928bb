"""A campaign folder as data frames. Only reads, also while a driver writes.

Metrics come from the study alone. Files of trials hold more (every epoch, the weights); losing one changes no metric,
and `lost_files` names it.

`load_trials`, one row per trial that is the campaign's own:

    number int, state str (complete, pruned, failed, running, waiting), value float (objective at the best epoch),
    best_epoch (from 0), epochs (reported), reason str (of a failure; 'stale' was retried), retry_of, origin (first
    trial of its line of retries), session, seconds float, t2i_r1 … i2t_r10 and recall_mean float (fractions at the
    best epoch), box_iou, relation_accuracy, gallery_images, gallery_texts, gallery_groups (buildings), parameters,
    config_hash, broken (figures that break a constraint of the campaign, empty if none), on_front (of several
    goals), and one column `param:<setting>` for each searched setting.

`load_history`, one row per epoch: `number` and the fields of `core.records.EpochMetrics`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.lost_files import lost_of_trial
from core.campaign.study import read_trials
from core.campaign.trials import SCORED, TrialRecord
from core.errors import UserError
from core.files.folders import CampaignFolder
from core.files.json_files import read_json, read_json_lines
from core.records import RETRIEVAL_KEYS, Receipt

EPOCH_FIGURES = (
    *RETRIEVAL_KEYS, "recall_mean", "box_iou", "relation_accuracy", "gallery_images", "gallery_texts",
    "gallery_groups",
)  # fmt: skip
COLUMNS = (
    "number", "state", "value", "best_epoch", "epochs", "reason", "retry_of", "origin", "session", "seconds",
    *EPOCH_FIGURES, "parameters", "config_hash", "broken", "on_front",
)  # fmt: skip
"""Columns of `load_trials`, without the searched settings."""


def load_trials(folder: CampaignFolder) -> pd.DataFrame:
    """All trials of a campaign, in order of their numbers.

    Raises:
        UserError: the folder holds no campaign.
    """
    return tabulate(folder, read_trials(folder))


def tabulate(folder: CampaignFolder, trials: Sequence[TrialRecord]) -> pd.DataFrame:
    """`load_trials` for trials that were already read from the study."""
    rows = [_row(folder, trial) for trial in trials if trial.state != "imported"]
    return pd.DataFrame(rows, columns=None if rows else COLUMNS)


def load_history(folder: CampaignFolder) -> pd.DataFrame:
    """All epochs of all trials.

    Raises:
        UserError: the folder holds no campaign.
    """
    rows = [
        {"number": trial.number, **row}
        for trial in read_trials(folder)
        for row in read_json_lines(folder.trial(trial.number).metrics)
    ]
    return pd.DataFrame(rows)


def _row(folder: CampaignFolder, trial: TrialRecord) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state,
        "value": trial.value,
        "best_epoch": getattr(trial.best, "epoch", None),
        "epochs": trial.epochs,
        "reason": trial.reason,
        "retry_of": trial.retry_of,
        "origin": trial.origin,
        "session": trial.session,
        "seconds": trial.seconds,
        **{name: getattr(trial.best, name, None) for name in EPOCH_FIGURES},
        "parameters": read_parameters(folder.trial(trial.number).receipt),
        "config_hash": trial.config_hash,
        "broken": ", ".join(trial.broken),
        "on_front": trial.on_front,
        **{f"param:{name}": value for name, value in trial.parameters.items()},
    }


def read_parameters(receipt: Path) -> int | None:
    """Trainable parameters, as counted by a trial; None if its receipt is lost.

    Raises:
        UserError: the receipt is damaged.
    """
    if not receipt.exists():
        return None
    try:
        return Receipt.from_json(read_json(receipt)).parameters
    except ValueError:
        raise UserError(
            "is not the receipt of a trial", where=receipt, how="remove it; crossmodal search restores it"
        ) from None


def lost_files(folder: CampaignFolder, trials: pd.DataFrame) -> list[Path]:
    """Files of ended trials that are missing or torn; the trials' figures are still in the study.

    Args:
        trials: as returned by `load_trials`.
    """
    ended = trials[trials["state"].isin(SCORED)] if len(trials) else trials
    return [
        path
        for number, state, epochs in zip(ended["number"], ended["state"], ended["epochs"], strict=True)
        for path in lost_of_trial(folder.trial(int(number)), pruned=state == "pruned", epochs=int(epochs))
    ]
