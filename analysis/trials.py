"""A campaign's folder as tables. Reads only, also while a driver writes; the only part of analysis that knows Optuna.

Figures come from the study alone; files of trials hold more (every epoch, the weights), and one that is lost changes
no figure: `lost_files` names it.

`load_trials`, one row a trial:

    number int, state str (complete, pruned, failed, running, waiting), value float (objective at the best epoch),
    best_epoch (from 0), epochs (reported), reason str (of a failure; 'stale' was retried), retry_of, origin (first
    trial of its line of retries), session, seconds float, t2i_r1 … i2t_r10 and recall_mean float (fractions at the
    best epoch), box_iou, relation_accuracy, gallery_images, gallery_texts, parameters, config_hash, and one column
    `param:<setting>` for each searched setting.

`load_history`, one row an epoch: `number` and the fields of `core.records.EpochMetrics`.
"""

import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from analysis.campaign import read_campaign
from core.errors import UserError
from core.files.folders import CampaignFolder, TrialFolder
from core.files.json_files import read_json, read_json_lines
from core.records import RETRIEVAL_KEYS, Receipt

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
    "number", "state", "value", "best_epoch", "epochs", "reason", "retry_of", "origin", "session", "seconds",
    *EPOCH_FIGURES, "parameters", "config_hash",
)  # fmt: skip
"""Without the searched settings."""


def load_trials(folder: CampaignFolder) -> pd.DataFrame:
    """All trials of a campaign, in order of their numbers.

    Raises:
        UserError: the folder holds no campaign.
    """
    rows = [_trial_row(folder, trial) for trial in read_study(folder)]
    return pd.DataFrame(rows, columns=None if rows else COLUMNS)


def trial_parameters(folder: CampaignFolder, number: int) -> dict[str, Any]:
    """What was drawn for one trial, as the study holds it.

    Raises:
        UserError: the folder holds no campaign.
    """
    return dict(read_study(folder)[number].params)


def load_history(folder: CampaignFolder) -> pd.DataFrame:
    """All epochs of all trials.

    Raises:
        UserError: the folder holds no campaign.
    """
    rows = [
        {"number": trial.number, **row}
        for trial in read_study(folder)
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


def open_journal(path: Path) -> JournalStorage:
    """The study storage in a journal file, which is made if it is missing.

    Raises:
        UserError: a line of it is damaged.
    """
    read_json_lines(path)  # names the line that is not JSON
    try:
        return JournalStorage(JournalFileBackend(str(path)))
    except OSError:
        raise
    except Exception as error:  # Optuna replays lines that it trusts, and fails in as many ways as they can be wrong
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(
        f"cannot be read as a study ({type(error).__name__})", where=path, how="restore it, or start a new campaign"
    )


def read_study(folder: CampaignFolder) -> list[FrozenTrial]:
    """The trials of a campaign, from the database or the journal, in order of their numbers.

    Raises:
        UserError: the folder holds no campaign, or its study cannot be read.
    """
    campaign = read_campaign(folder)
    variable = campaign.study.url_variable
    if variable is None:
        return _read_journal(folder, campaign.name)
    return _trials_of(open_database(variable), campaign.name, where=folder.root)


def _read_journal(folder: CampaignFolder, name: str) -> list[FrozenTrial]:
    """Read from a copy without the line that a driver may be writing right now."""
    content = folder.journal.read_bytes() if folder.journal.exists() else b""
    if b"\n" not in content:  # a driver makes it right now
        raise UserError("holds no study yet", where=folder.root, how="wait for its first trial")
    read_json_lines(folder.journal)  # names the line that is not JSON
    with tempfile.TemporaryDirectory() as copy:
        path = Path(copy) / "study.journal"
        path.write_bytes(content[: content.rfind(b"\n") + 1])
        try:
            storage = JournalStorage(JournalFileBackend(str(path)))
            return _trials_of(storage, name, where=folder.journal)
        except UserError:
            raise
        except Exception as error:
            raise _unreadable(folder.journal, error) from None


def _trials_of(storage: BaseStorage, name: str, *, where: Path) -> list[FrozenTrial]:
    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        raise UserError(f"holds no study {name}", where=where, how="restore it, or wait for its first trial") from None
    trials: list[FrozenTrial] = study.get_trials(deepcopy=False)
    return trials


def _trial_row(folder: CampaignFolder, trial: FrozenTrial) -> dict[str, Any]:
    noted = trial.user_attrs
    best = noted.get("best") or {}
    return {
        "number": trial.number,
        "state": STATES[trial.state],
        "value": noted.get("best_value"),
        "best_epoch": best.get("epoch"),
        "epochs": len(trial.intermediate_values),
        "reason": noted.get("reason"),
        "retry_of": noted.get("retry_of"),
        "origin": noted.get("origin", trial.number),
        "session": noted.get("session"),
        "seconds": noted.get("seconds"),
        **{name: best.get(name) for name in EPOCH_FIGURES},
        "parameters": _parameters(folder.trial(trial.number).receipt),
        "config_hash": noted.get("config_hash"),
        **{f"param:{name}": value for name, value in trial.params.items()},
    }


def _parameters(receipt: Path) -> int | None:
    """Trainable parameters, as the trial counted them."""
    if not receipt.exists():
        return None
    try:
        return Receipt.from_json(read_json(receipt)).parameters
    except ValueError:
        raise UserError(
            "is no receipt of a trial", where=receipt, how="remove it; crossmodal search restores it"
        ) from None


def lost_files(folder: CampaignFolder, trials: pd.DataFrame) -> list[Path]:
    """Files of ended trials that are missing or torn; their figures are in the study all the same.

    Args:
        trials: as `load_trials` gives them.
    """
    ended = trials[trials["state"].isin(["complete", "pruned"])] if len(trials) else trials
    return [
        path
        for _, row in ended.iterrows()
        for path in lost_of_trial(
            folder.trial(int(row["number"])), pruned=row["state"] == "pruned", epochs=int(row["epochs"])
        )
    ]


def lost_of_trial(files: TrialFolder, *, pruned: bool, epochs: int) -> list[Path]:
    """Files of one ended trial that are missing or torn, found without parsing any; a pruned one has no checkpoint."""
    whole = {
        files.config: _ends_a_line(files.config),
        files.metrics: _ends_a_line(files.metrics) and files.metrics.read_bytes().count(b"\n") == epochs,
        files.receipt: _ends_a_line(files.receipt),
        files.best_checkpoint: pruned or zipfile.is_zipfile(files.best_checkpoint),
    }
    return [path for path, is_whole in whole.items() if not is_whole]


def _ends_a_line(path: Path) -> bool:
    return path.is_file() and path.read_bytes().endswith(b"\n")
