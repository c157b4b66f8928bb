"""A campaign's folder as tables. Reads only, also while a driver writes; the only part of analysis that knows Optuna.

`load_trials`, one row a trial:

    number int, state str (complete, pruned, failed, running, waiting), value float (objective at the best epoch),
    best_epoch (from 0), epochs (reported), reason str (of a failure; 'stale' was retried), retry_of, session,
    seconds float, t2i_r1 … i2t_r10 and recall_mean float (fractions at the best epoch), box_iou, relation_accuracy,
    gallery_images, gallery_texts, parameters, and one column `param:<setting>` for each searched setting.

`load_history`, one row an epoch: `number` and the fields of `core.records.EpochMetrics`.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from core.config import load_yaml
from core.errors import UserError
from core.files import CampaignFolder, read_json, read_json_lines
from core.records import RETRIEVAL_KEYS

STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
EPOCH_FIGURES = (
    *RETRIEVAL_KEYS, "recall_mean", "box_iou", "relation_accuracy", "gallery_images", "gallery_texts",
)  # fmt: skip
COLUMNS = (
    "number", "state", "value", "best_epoch", "epochs", "reason", "retry_of", "session", "seconds", *EPOCH_FIGURES,
    "parameters",
)  # fmt: skip
"""Without the searched settings."""


def load_trials(folder: CampaignFolder) -> pd.DataFrame:
    """All trials of a campaign, in order of their numbers.

    Raises:
        UserError: the folder holds no campaign.
    """
    rows = [_trial_row(folder, trial) for trial in _read_study(folder)]
    return pd.DataFrame(rows, columns=None if rows else COLUMNS)


def load_history(folder: CampaignFolder) -> pd.DataFrame:
    """All epochs of all trials.

    Raises:
        UserError: the folder holds no campaign.
    """
    rows = [
        {"number": trial.number, **row}
        for trial in _read_study(folder)
        for row in read_json_lines(folder.trial(trial.number).metrics)
    ]
    return pd.DataFrame(rows)


def open_database(variable: str) -> RDBStorage:
    """The study storage behind a database URL in an environment variable.

    Raises:
        UserError: the variable is not set, or the database does not answer. The URL is never shown.
    """
    url = os.environ.get(variable)
    if not url:
        raise UserError(f"the environment variable {variable} is not set", where="study.url_variable", how="set it")
    try:
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})  # a database may restart between two trials
    except (SQLAlchemyError, ImportError, ValueError) as error:
        reason = type(error).__name__
        raise UserError(
            f"the database behind {variable} cannot be used ({reason})", where="study.url_variable", how="check the URL"
        ) from None


def _read_study(folder: CampaignFolder) -> list[FrozenTrial]:
    """The trials of a campaign, from the database or the journal."""
    if not folder.campaign.exists():
        raise UserError("holds no campaign", where=folder.root, how="name the folder that crossmodal search wrote")
    content = load_yaml(folder.campaign)
    name, variable = str(content["name"]), content.get("study", {}).get("url_variable")
    if variable is None:
        return _read_journal(folder, name)
    try:
        trials: list[FrozenTrial] = optuna.load_study(study_name=name, storage=open_database(variable)).get_trials(
            deepcopy=False
        )
    except KeyError:
        raise UserError(f"the database holds no study {name}", where=folder.root) from None
    return trials


def _read_journal(folder: CampaignFolder, name: str) -> list[FrozenTrial]:
    """Read from a copy without the line that a driver may be writing right now."""
    content = folder.journal.read_bytes() if folder.journal.exists() else b""
    if b"\n" not in content:  # a driver makes it right now
        raise UserError("holds no study yet", where=folder.root, how="wait for its first trial")
    with tempfile.TemporaryDirectory() as copy:
        path = Path(copy) / "study.journal"
        path.write_bytes(content[: content.rfind(b"\n") + 1])
        try:
            study = optuna.load_study(study_name=name, storage=JournalStorage(JournalFileBackend(str(path))))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"cannot be read as a study ({type(error).__name__})", where=folder.journal) from None
        trials: list[FrozenTrial] = study.get_trials(deepcopy=False)
        return trials


def _trial_row(folder: CampaignFolder, trial: FrozenTrial) -> dict[str, Any]:
    files, noted = folder.trial(trial.number), trial.user_attrs
    history = read_json_lines(files.metrics)
    best = next((row for row in history if row["epoch"] == noted.get("best_epoch")), {})
    receipt = read_json(files.receipt) if files.receipt.exists() else {}
    return {
        "number": trial.number,
        "state": STATES[trial.state],
        "value": noted.get("best_value"),
        "best_epoch": noted.get("best_epoch"),
        "epochs": len(history),
        "reason": noted.get("reason"),
        "retry_of": noted.get("retry_of"),
        "session": noted.get("session"),
        "seconds": noted.get("seconds"),
        **{name: best.get(name) for name in EPOCH_FIGURES},
        "parameters": receipt.get("parameters"),
        **{f"param:{name}": value for name, value in trial.params.items()},
    }
