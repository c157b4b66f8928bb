"""The Optuna study of a campaign: where it is stored, and its trials as `TrialRecord`s.

The only module of core that imports Optuna. What Optuna does not store of a trial by itself is stored in user
attributes, one per field of `Notes`.
"""

import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from core.campaign.campaign import Campaign, read_campaign
from core.campaign.trials import ENDED, STALE, State, TrialRecord
from core.errors import UserError
from core.files.folders import CampaignFolder
from core.files.json_files import read_json_lines
from core.records import EpochMetrics, Record

STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Notes(Record):
    """User attributes of a trial, some set when it starts and the rest when it ends."""

    retry_of: int | None = None
    origin: int | None = None
    confirms: int | None = None
    seed: int | None = None
    imported_from: str | None = None
    settings_from: str | None = None
    violations: dict[str, float] | None = None
    """Of the campaign's constraints, by an imported trial."""
    session: int | None = None
    config_hash: str | None = None
    best_value: float | None = None
    reports: dict[int, tuple[float, ...]] | None = None
    """Of a study with several goals, for which Optuna takes no reports."""
    best: EpochMetrics | None = None
    trainable_parameters: int | None = None
    reason: str | None = None
    seconds: float | None = None

    def attributes(self) -> dict[str, Any]:
        """The fields that are not None, by name."""
        return {name: value for name, value in self.to_json().items() if value is not None}


def note(trial: Trial, notes: Notes) -> None:
    """Set the user attributes of a running trial to the fields that are not None."""
    for name, value in notes.attributes().items():
        trial.set_user_attr(name, value)


def read_records(study: optuna.Study, earlier: Sequence[TrialRecord] = ()) -> list[TrialRecord]:
    """All trials of a study, in order of their numbers.

    A trial is stale exactly if another one retries it, so an interrupted trial needs no mark of its own, which the dead
    driver could not have set.

    Args:
        earlier: result of an earlier call; trials that had ended by then are not converted again.
    Raises:
        UserError: the user attributes of a trial are invalid.
    """
    known = {record.number: record for record in earlier if record.state in (*ENDED, "imported")}
    trials = study.get_trials(deepcopy=False)
    records = [known.get(trial.number) or _record(trial, study.study_name) for trial in trials]
    retried = {record.retry_of for record in records}
    return [_as_stale(record) if record.number in retried else record for record in records]


def _as_stale(record: TrialRecord) -> TrialRecord:
    return record if record.is_stale else replace(record, reason=STALE)


def _record(trial: FrozenTrial, name: str) -> TrialRecord:
    try:
        notes = Notes.from_json(trial.user_attrs)
    except ValueError as error:
        problem = " ".join(str(error).split())
        raise UserError(
            f"the attributes of trial {trial.number} cannot be read ({problem})", where=f"study {name}"
        ) from None
    return TrialRecord(
        number=trial.number,
        state=STATES[trial.state] if notes.imported_from is None else "imported",
        origin=trial.number if notes.origin is None else notes.origin,
        retry_of=notes.retry_of,
        confirms=notes.confirms,
        seed=notes.seed,
        imported_from=notes.imported_from,
        settings_from=notes.settings_from,
        reason=notes.reason,
        value=notes.best_value,
        best=notes.best,
        trainable_parameters=notes.trainable_parameters,
        reports=notes.reports or {step: (value,) for step, value in trial.intermediate_values.items()},
        seconds=notes.seconds,
        session=notes.session,
        config_hash=notes.config_hash,
        parameters=trial.params,
        ended_at=trial.datetime_complete,
    )


def confirmation_study(campaign: Campaign) -> str:
    """Name of the study of a campaign's confirmation; no campaign has such a name."""
    return f"{campaign.name}/confirmation"


def read_trials(folder: CampaignFolder) -> list[TrialRecord]:
    """The trials of a campaign's search, from its database or journal; safe while a driver is writing.

    Raises:
        UserError: the folder holds no campaign, or its study cannot be read.
    """
    campaign = read_campaign(folder)
    return campaign.judge(_read_study(campaign, folder, campaign.name, read_records))


def read_confirmations(folder: CampaignFolder) -> list[TrialRecord]:
    """The trials that confirm some of a campaign's search; none before `crossmodal confirm`.

    Raises:
        UserError: as `read_trials`.
    """
    if not folder.confirmation.campaign.exists():
        return []
    campaign = read_campaign(folder)
    return _read_study(campaign, folder.confirmation, confirmation_study(campaign), read_records)


def read_importance(folder: CampaignFolder) -> dict[str, float]:
    """How much each searched setting decided whether a trial is among the best tenth, by PED-ANOVA.

    Only complete trials count, and a conditional setting as far as it was drawn. Below about 30 complete trials the
    best tenth are so few that the shares are mostly chance.

    Returns:
        Optuna's name of each parameter → its share of 1, the largest first; empty with fewer than two complete trials.
    Raises:
        UserError: as `read_trials`.
    Source: Watanabe et al. 2023 (2304.10255), and for conditional settings 2601.20800.
    """
    campaign = read_campaign(folder)
    return _read_study(campaign, folder, campaign.name, _importance)


def _importance(study: optuna.Study) -> dict[str, float]:
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # imports scipy, for most in vain

    if len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of too few trials, which whoever shows the shares has to say anyway
        shares = get_param_importances(
            study, evaluator=PedAnovaImportanceEvaluator(), target=lambda trial: trial.values[0]
        )  # the first of several goals
    return dict(sorted(shares.items(), key=lambda share: (-share[1], share[0])))


def _read_study(campaign: Campaign, folder: CampaignFolder, name: str, read: Callable[[optuna.Study], Read]) -> Read:
    """What `read` makes of a study, which it may use only until it returns."""
    variable = campaign.study.url_variable
    if variable is None:
        return _read_journal(folder, name, read)
    return read(_load(open_database(variable), name, where=folder.root))


def _read_journal(folder: CampaignFolder, name: str, read: Callable[[optuna.Study], Read]) -> Read:
    """Read a copy without the last line if a driver is still writing it."""
    content = folder.journal.read_bytes() if folder.journal.exists() else b""
    if b"\n" not in content:
        if folder.trials():
            raise UserError("is missing or empty, though there are trials", where=folder.journal, how="restore it")
        # a driver is just creating it
        raise UserError("holds no study yet", where=folder.root, how="wait for its first trial")
    read_json_lines(folder.journal)  # names the line that is not JSON
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "study.journal"
        path.write_bytes(content[: content.rfind(b"\n") + 1])
        try:
            storage = JournalStorage(JournalFileBackend(str(path)))
            return read(_load(storage, name, where=folder.journal))
        except UserError:
            raise
        except Exception as error:
            raise _unreadable(folder.journal, error) from None


def _load(storage: BaseStorage, name: str, *, where: Path) -> optuna.Study:
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        raise UserError(f"holds no study {name}", where=where, how="restore it, or wait for its first trial") from None


def open_database(variable: str) -> RDBStorage:
    """The study storage behind a database URL in an environment variable.

    Raises:
        UserError: the variable is not set, or the database cannot be used. The URL is never shown.
    """
    from sqlalchemy.exc import SQLAlchemyError  # slow to import, and most studies are journals

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
    """The study storage in a journal file, which is created if it is missing.

    Raises:
        UserError: a line of it is damaged.
        OSError: the file cannot be read or created.
    """
    read_json_lines(path)  # names the line that is not JSON
    try:
        return JournalStorage(JournalFileBackend(str(path)))
    except OSError:
        raise
    except Exception as error:  # Optuna does not validate the lines that it replays, so it may raise anything
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(
        f"cannot be read as a study ({type(error).__name__})", where=path, how="restore it, or start a new campaign"
    )
