"""optuna-dashboard, an optional extra, on the studies of a campaign: the search and, once there is one, a confirmation.

Nothing is ever written: the driver is a study's only writer, and a second one could damage its journal.
"""

import copy
import json
from collections.abc import Callable, Container, Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any, NoReturn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from optuna.storages import BaseStorage, get_storage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from core.campaign.campaign import Campaign, read_campaign
from core.campaign.study import confirmation_study, open_database, open_journal
from core.errors import UserError
from core.files.folders import CampaignFolder

Application = Callable[..., Iterable[bytes]]
"""A WSGI application."""
READS = ("GET", "HEAD")


class CampaignStudies(BaseStorage):  # type: ignore[misc]
    """The studies of a campaign as one storage that can only be read; each study is numbered by its place.

    The search and its confirmation have journals of their own, and a dashboard shows one storage. A database may hold
    studies of other campaigns, which are not shown.
    """

    def __init__(self, campaign: Campaign, folder: CampaignFolder) -> None:
        self._places = [(campaign.name, folder.journal), (confirmation_study(campaign), folder.confirmation.journal)]
        self._database = None
        if campaign.study.url_variable is not None:
            self._database = get_storage(open_database(campaign.study.url_variable))
        self._journals: dict[Path, BaseStorage] = {}

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise PermissionError("the studies of a campaign are written by its driver only")

    create_new_study = delete_study = set_study_user_attr = set_study_system_attr = _refuse
    create_new_trial = set_trial_param = set_trial_state_values = set_trial_intermediate_value = _refuse
    set_trial_user_attr = set_trial_system_attr = _refuse

    def _storage(self, journal: Path) -> BaseStorage | None:
        if self._database is not None:
            return self._database
        if journal not in self._journals and _has_lines(journal):
            self._journals[journal] = open_journal(journal)
        return self._journals.get(journal)

    def _find(self, study_id: int) -> tuple[BaseStorage, int]:
        """The storage that holds a study, and the study's id there."""
        name, journal = self._places[study_id]
        storage = self._storage(journal)
        if storage is None:
            raise KeyError(name)
        return storage, storage.get_study_id_from_name(name)

    def get_all_studies(self) -> list[Any]:
        studies = []
        for number, (name, journal) in enumerate(self._places):
            storage = self._storage(journal)
            for study in storage.get_all_studies() if storage else []:
                if study.study_name == name:
                    shown = copy.copy(study)
                    shown._study_id = number
                    studies.append(shown)
        return studies

    def get_study_id_from_name(self, study_name: str) -> int:
        number = [name for name, _ in self._places].index(study_name)
        self._find(number)
        return number

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._places[study_id][0]

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        storage, number = self._find(study_id)
        return list(storage.get_study_directions(number))

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        storage, number = self._find(study_id)
        return dict(storage.get_study_user_attrs(number))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        storage, number = self._find(study_id)
        return dict(storage.get_study_system_attrs(number))

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        storage, number = self._find(study_id)
        return list(storage.get_all_trials(number, deepcopy=deepcopy, states=states))

    def get_trial(self, trial_id: int) -> NoReturn:
        raise KeyError(trial_id)  # ids are unique in one study only, and the pages ask for all trials of a study


def _has_lines(journal: Path) -> bool:
    """Whether a driver has begun a study there; opening the file would create it."""
    return journal.exists() and b"\n" in journal.read_bytes()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None: ...


def open_server(folder: CampaignFolder, host: str, port: int) -> WSGIServer:
    """A server that shows the studies of a campaign once its `serve_forever` is called.

    Args:
        port: 0 for any free one.
    Raises:
        UserError: optuna-dashboard is not installed, there is no study yet, it cannot be read, or the address is taken.
    """
    try:
        from optuna_dashboard import wsgi
    except ImportError:
        raise UserError("optuna-dashboard is not installed", how="run pip install optuna-dashboard") from None
    studies = CampaignStudies(read_campaign(folder), folder)
    if not studies.get_all_studies():
        raise UserError("holds no study yet", where=folder.root, how="wait for its first trial")
    try:
        return make_server(host, port, read_only(wsgi(studies)), server_class=_Server, handler_class=_Quiet)
    except OSError as error:
        raise UserError(
            f"cannot be listened on ({error.strerror})", where=f"{host}:{port}", how="choose another --port"
        ) from None


def read_only(application: Application) -> Application:
    """Answers requests that would change something itself."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in READS:
            return application(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "application/json")])
        return [json.dumps({"reason": "a campaign is changed by its driver only"}).encode()]

    return answer
