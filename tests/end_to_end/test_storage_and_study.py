"""A campaign with checkpoints in an object store and the study in PostgreSQL, both on loopback."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis.trials import load_trials
from core.files.folders import CampaignFolder
from tests.commands import LAST_RESORT_S, CommandLine, finish, free_port, run, wait_until
from tests.conftest import CAMPAIGN, write_campaign
from tests.end_to_end.conftest import Begin

pytestmark = pytest.mark.slow
PASSWORD = "known-only-to-the-test"


@pytest.fixture
def s3() -> Iterator[str]:
    """An S3-compatible server, in a process of its own."""
    port = free_port()
    serve = "import sys; from moto.server import main; main(sys.argv[1:])"
    server = subprocess.Popen(
        [sys.executable, "-c", serve, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    wait_until(lambda: is_open(port), during=server)
    options = f"scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1&allow_bucket_creation=true"
    yield f"s3://campaigns/test?{options}"
    server.kill()
    server.wait()


def is_open(port: int) -> bool:
    """Whether a server listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def find_postgres() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


class Postgres:
    """A real server on loopback, run by an ordinary user, since PostgreSQL refuses root."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self._folder, self._port = programs, folder, free_port()
        self._user: dict[str, Any] = {}
        (folder / "password").write_text(PASSWORD)
        if os.geteuid() == 0:
            entry = pwd.getpwnam("nobody")
            for path in (folder, folder / "password"):
                os.chown(path, entry.pw_uid, entry.pw_gid)
            self._user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        options = ["-U", "tester", "-A", "scram-sha-256", f"--pwfile={folder}/password"]
        setup: list[str | Path] = [programs / "initdb", "-D", folder / "data", *options]
        subprocess.run(setup, check=True, capture_output=True, cwd=folder, **self._user)
        self.url = {"CROSSMODAL_STUDY_URL": f"postgresql://tester:{PASSWORD}@127.0.0.1:{self._port}/postgres"}

    def start(self) -> None:
        listen = ["-h", "127.0.0.1", "-p", str(self._port), "-k", str(self._folder)]
        command: list[str | Path] = [self._programs / "postgres", "-D", self._folder / "data", *listen]
        self._server = subprocess.Popen(command, cwd=self._folder, stderr=subprocess.DEVNULL, text=True, **self._user)
        wait_until(lambda: is_open(self._port), during=self._server)

    def stop(self) -> None:
        self._server.send_signal(signal.SIGINT)  # its fast shutdown: open connections are cut
        self._server.wait(timeout=LAST_RESORT_S)


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    programs = find_postgres()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="crossmodal-postgres-"))  # the path of a socket must be short
    server = Postgres(programs, folder)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


def test_checkpoints_travel_through_an_object_store(demo: Path, tmp_path: Path, s3: str) -> None:
    campaign = write_campaign(tmp_path, demo, CAMPAIGN.replace("trials: 5", "trials: 2") + f'storage: "{s3}"\n')
    folder = CampaignFolder(tmp_path / "c")
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    outcome = run("search", campaign, "--output-dir", folder.root, cwd=tmp_path, extra=keys)
    assert outcome.code == 0, outcome.err
    assert all(folder.trial(number).best_checkpoint.exists() for number in range(2))
    assert not folder.sessions.exists()


def test_the_study_lives_in_postgresql_and_its_password_in_no_file(
    crossmodal: CommandLine, demo: Path, tmp_path: Path, postgres: Postgres
) -> None:
    content = CAMPAIGN.replace("trials: 5", "trials: 1") + "study: {url_variable: CROSSMODAL_STUDY_URL}\n"
    campaign = write_campaign(tmp_path, demo, content)
    folder = CampaignFolder(tmp_path / "c")
    command = ("search", campaign, "--output-dir", folder.root)
    url = postgres.url
    assert run(*command, cwd=tmp_path, extra=url).code == 0
    extended = run(*command, "--trials", 2, cwd=tmp_path, extra=url)
    assert extended.code == 0, extended.err
    board = run("leaderboard", folder.root, cwd=tmp_path, extra=url)
    assert board.code == 0, board.err
    assert "2 trials (" in board.out or "2 trials, ranked by" in board.out
    assert not folder.journal.exists()
    for path in folder.root.rglob("*"):
        if path.is_file():
            assert PASSWORD.encode() not in path.read_bytes(), path
    another = run("search", campaign, "--output-dir", tmp_path / "another", cwd=tmp_path, extra=url)
    assert another.code == 2
    assert "the study small belongs to another campaign" in another.err
    unset = crossmodal("status", folder.root)
    assert unset.code == 2
    assert "CROSSMODAL_STUDY_URL is not set" in unset.err
    elsewhere = {name: value.replace("@127.0.0.1:", "@127.0.0.1:1") for name, value in url.items()}
    gone = run("status", folder.root, cwd=tmp_path, extra=elsewhere)
    assert gone.code == 2
    assert PASSWORD not in gone.err


def test_the_dashboard_shows_a_study_in_postgresql(
    demo: Path, tmp_path: Path, postgres: Postgres, begin: Begin
) -> None:
    pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed (the extra dashboard)")
    content = CAMPAIGN.replace("trials: 5", "trials: 1") + "study: {url_variable: CROSSMODAL_STUDY_URL}\n"
    campaign = write_campaign(tmp_path, demo, content)
    searched = run("search", campaign, "--output-dir", tmp_path / "c", cwd=tmp_path, extra=postgres.url)
    assert searched.code == 0, searched.err
    process = begin("dashboard", tmp_path / "c", "--port", 0, extra=postgres.url)
    assert process.stdout is not None
    address = process.stdout.readline().split(": ", 1)[1].split()[0]
    with urllib.request.urlopen(f"{address}api/studies") as answer:
        (study,) = json.load(answer)["study_summaries"]
    assert study["study_name"] == "small"
    with urllib.request.urlopen(f"{address}api/studies/{study['study_id']}") as answer:
        assert [trial["state"] for trial in json.load(answer)["trials"]] == ["Complete"]
    process.send_signal(signal.SIGINT)
    ended = finish(process)
    assert (ended.code, ended.err) == (0, "")


def test_a_database_that_goes_away_stops_the_campaign_in_one_line(
    endless_campaign: Path, tmp_path: Path, postgres: Postgres, begin: Begin
) -> None:
    endless_campaign.write_text(endless_campaign.read_text() + "study: {url_variable: CROSSMODAL_STUDY_URL}\n")
    folder = CampaignFolder(tmp_path / "c")
    command = ("search", endless_campaign, "--output-dir", folder.root)
    process = begin(*command, extra=postgres.url)
    wait_until(folder.trial(0).best_checkpoint.exists, during=process)
    postgres.stop()
    lost = finish(process)
    postgres.start()
    assert lost.code == 2, lost.out + lost.err
    assert "no longer answers" in lost.err
    assert len(lost.err.strip().splitlines()) == 1
    assert PASSWORD not in lost.out + lost.err
    limit = len(list(folder.root.glob("trials/*/checkpoint_best.pth"))) + 1
    again = run(*command, "--trials", limit, cwd=tmp_path, extra=postgres.url)
    assert again.code == 0, again.err
    assert f"{limit} trials complete" in again.out


def test_reading_a_journal_campaign_needs_no_database(finished_campaign: CampaignFolder) -> None:
    assert len(load_trials(finished_campaign)) == 5
