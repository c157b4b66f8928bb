"""The studies of a real campaign as optuna-dashboard sees them, and over HTTP if it is installed."""

import json
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from core.campaign.campaign import Campaign, read_campaign
from core.campaign.study import read_trials
from core.errors import UserError
from core.files.folders import CampaignFolder
from core.sections import dump_yaml
from search.dashboard import CampaignStudies, open_server, read_only
from tests.commands import CommandLine, Outcome, finish, free_port, start, wait_until

VARIABLE = "CROSSMODAL_STUDY_URL"
Serve = Callable[..., str]


@pytest.fixture
def copied(finished_campaign: CampaignFolder, tmp_path: Path) -> CampaignFolder:
    """A copy of a campaign with five trials."""
    shutil.copytree(finished_campaign.root, tmp_path / "copy", ignore=shutil.ignore_patterns("wandb", "sessions"))
    return CampaignFolder(tmp_path / "copy")


def add_confirmation(storage: Any, trials: int = 3) -> None:
    study = optuna.create_study(study_name="small/confirmation", storage=storage, direction="maximize")
    for number in range(trials):
        study.tell(study.ask(), number / 10)


def journal(path: Path) -> JournalStorage:
    path.parent.mkdir(exist_ok=True)
    return JournalStorage(JournalFileBackend(str(path)))


@pytest.fixture
def in_a_database(copied: CampaignFolder, monkeypatch: pytest.MonkeyPatch) -> Iterator[CampaignFolder]:
    """The same campaign with its studies in a database, which holds one of another campaign, too."""
    url = f"sqlite:///{copied.root.parent / 'studies.db'}"
    monkeypatch.setenv(VARIABLE, url)
    storage = RDBStorage(url)
    optuna.copy_study(
        from_study_name="small", from_storage=journal(copied.journal), to_storage=storage, to_study_name="small"
    )
    add_confirmation(storage)
    optuna.create_study(study_name="another", storage=storage)
    content = read_campaign(copied).model_dump(mode="json", by_alias=True) | {"study": {"url_variable": VARIABLE}}
    copied.campaign.write_text(dump_yaml(Campaign.model_validate(content)))
    copied.journal.unlink()
    yield copied
    storage.engine.dispose()


def studies_of(folder: CampaignFolder) -> CampaignStudies:
    return CampaignStudies(read_campaign(folder), folder)


def test_the_search_and_its_confirmation_are_one_storage(copied: CampaignFolder) -> None:
    studies = studies_of(copied)
    assert [study.study_name for study in studies.get_all_studies()] == ["small"]
    add_confirmation(journal(copied.confirmation.journal))  # while the dashboard is open
    assert [study.study_name for study in studies.get_all_studies()] == ["small", "small/confirmation"]
    for name, count in (("small", 5), ("small/confirmation", 3)):
        study = optuna.load_study(study_name=name, storage=studies)
        assert len(study.trials) == count
        assert study.directions == [optuna.study.StudyDirection.MAXIMIZE]
    searched = optuna.load_study(study_name="small", storage=studies)
    expected = {trial.number: trial.value for trial in read_trials(copied)}
    assert {trial.number: trial.value for trial in searched.trials} == expected
    assert searched.best_value == max(value for value in expected.values() if value is not None)
    assert searched.user_attrs == optuna.load_study(study_name="small", storage=journal(copied.journal)).user_attrs


def test_a_database_shows_the_studies_of_this_campaign_alone(in_a_database: CampaignFolder) -> None:
    studies = studies_of(in_a_database)
    assert [study.study_name for study in studies.get_all_studies()] == ["small", "small/confirmation"]
    counts = [
        len(optuna.load_study(study_name=name, storage=studies).trials) for name in ("small", "small/confirmation")
    ]
    assert counts == [5, 3]


def test_trials_that_a_driver_adds_are_seen(copied: CampaignFolder) -> None:
    studies = studies_of(copied)
    assert len(studies.get_all_trials(0)) == 5
    optuna.load_study(study_name="small", storage=journal(copied.journal)).ask()
    assert studies.get_all_trials(0)[-1].state == TrialState.RUNNING


def test_a_half_written_last_line_is_waited_for(copied: CampaignFolder) -> None:
    studies = studies_of(copied)
    with copied.journal.open("a") as half:
        half.write('{"op_code": 4, "work')
    assert len(studies.get_all_trials(0)) == 5
    assert len(studies_of(copied).get_all_trials(0)) == 5


def test_nothing_is_written(copied: CampaignFolder) -> None:
    before = copied.journal.read_bytes()
    studies = studies_of(copied)
    study = optuna.load_study(study_name="small", storage=studies)
    for change in (
        study.ask,
        lambda: study.set_user_attr("note", "mine"),
        lambda: optuna.delete_study(study_name="small", storage=studies),
        lambda: optuna.create_study(study_name="mine", storage=studies),
    ):
        with pytest.raises(PermissionError, match="written by its driver only"):
            change()
    assert copied.journal.read_bytes() == before
    assert not copied.confirmation.root.exists()


@pytest.mark.parametrize(
    ("method", "status"), [("GET", "200 OK"), ("POST", "403 Forbidden"), ("DELETE", "403 Forbidden")]
)
def test_requests_that_change_something_are_refused(method: str, status: str) -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [])
        return [b"read"]

    answers: list[str] = []
    body = b"".join(read_only(application)({"REQUEST_METHOD": method}, lambda status, _: answers.append(status)))
    assert answers == [status]
    assert (body == b"read") == (method == "GET")


def test_without_the_extra_one_line_says_what_to_install(
    crossmodal: CommandLine, finished_campaign: CampaignFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)  # as if it were not installed
    outcome = crossmodal("dashboard", finished_campaign.root)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "error: optuna-dashboard is not installed; run pip install optuna-dashboard\n"


@pytest.fixture
def _installed() -> None:
    pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed (the extra dashboard)")


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts `crossmodal dashboard` on a free port; returns its address."""
    started: list[subprocess.Popen[str]] = []

    def serve(folder: CampaignFolder) -> str:
        process = start("dashboard", folder.root, "--port", 0, cwd=tmp_path)
        started.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "http://127.0.0.1:" in line, process.communicate()
        return line.split(": ", 1)[1].split()[0]

    yield serve
    for process in started:
        process.send_signal(signal.SIGINT)
        assert finish(process) == Outcome(0, "", "")


def get(address: str) -> Any:
    with urllib.request.urlopen(address) as answer:
        return json.load(answer)


def shown(address: str) -> dict[str, int]:
    """Name of each study → number of its trials."""
    studies = get(f"{address}api/studies")["study_summaries"]
    return {study["study_name"]: len(get(f"{address}api/studies/{study['study_id']}")["trials"]) for study in studies}


@pytest.mark.usefixtures("_installed")
def test_the_dashboard_shows_a_journal_while_it_grows(copied: CampaignFolder, serve: Serve) -> None:
    address = serve(copied)
    assert shown(address) == {"small": 5}
    study = get(f"{address}api/studies/0")
    best = max(trial.value or 0.0 for trial in read_trials(copied))
    assert study["best_trials"][0]["values"] == [best]
    with urllib.request.urlopen(f"{address}dashboard") as page:
        assert b"Optuna Dashboard" in page.read()
    add_confirmation(journal(copied.confirmation.journal))
    optuna.load_study(study_name="small", storage=journal(copied.journal)).ask()
    wait_until(lambda: shown(address) == {"small": 6, "small/confirmation": 3})


@pytest.mark.usefixtures("_installed")
def test_the_dashboard_changes_nothing(copied: CampaignFolder, serve: Serve) -> None:
    before = copied.journal.read_bytes()
    address = serve(copied)
    for method, place in (("DELETE", "studies/0"), ("POST", "studies"), ("PUT", "studies/0/note")):
        request = urllib.request.Request(f"{address}api/{place}", method=method, data=b"{}")
        with pytest.raises(urllib.error.HTTPError, match="Forbidden") as refused:
            urllib.request.urlopen(request)
        with refused.value as answer:
            assert json.load(answer) == {"reason": "a campaign is changed by its driver only"}
    assert copied.journal.read_bytes() == before


@pytest.mark.usefixtures("_installed")
def test_the_dashboard_shows_a_database(in_a_database: CampaignFolder, serve: Serve) -> None:
    assert shown(serve(in_a_database)) == {"small": 5, "small/confirmation": 3}


@pytest.mark.usefixtures("_installed")
def test_an_address_that_is_taken_is_one_line(copied: CampaignFolder) -> None:
    with open_server(copied, "127.0.0.1", 0) as server:
        with pytest.raises(UserError, match="choose another --port") as refused:
            open_server(copied, "127.0.0.1", server.server_port)
        assert str(refused.value).startswith(f"127.0.0.1:{server.server_port}: cannot be listened on (Address")


@pytest.mark.usefixtures("_installed")
def test_a_campaign_without_a_study_is_refused(copied: CampaignFolder) -> None:
    copied.journal.unlink()
    with pytest.raises(UserError, match="holds no study yet"):
        open_server(copied, "127.0.0.1", free_port())
    assert not copied.journal.exists()
