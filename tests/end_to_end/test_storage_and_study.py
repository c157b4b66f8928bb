"""A campaign whose checkpoints lie in an object store and whose study lies in PostgreSQL, both on loopback."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from analysis.trials import load_trials
from core.files import CampaignFolder
from tests.commands import free_port, run
from tests.conftest import CAMPAIGN, write_campaign

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
    )
    wait_until_open(port)
    options = f"scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1&allow_bucket_creation=true"
    yield f"s3://campaigns/test?{options}"
    server.kill()
    server.wait()


def wait_until_open(port: int) -> None:
    """Until something listens there."""
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.2)


def find_postgres() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@pytest.fixture
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server on loopback, run by an ordinary user, since PostgreSQL refuses root."""
    programs = find_postgres()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    folder = Path("/tmp") / f"crossmodal-postgres-{os.getpid()}"
    folder.mkdir()
    (folder / "password").write_text(PASSWORD)
    user: dict[str, object] = {}
    if os.geteuid() == 0:
        entry = pwd.getpwnam("nobody")
        for path in (folder, folder / "password"):
            os.chown(path, entry.pw_uid, entry.pw_gid)
        user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    port = free_port()
    data = folder / "data"
    setup = [programs / "initdb", "-D", data, "-U", "tester", "-A", "scram-sha-256", f"--pwfile={folder}/password"]
    subprocess.run(setup, check=True, capture_output=True, cwd=folder, **user)  # type: ignore[call-overload]
    listen = ["-h", "127.0.0.1", "-p", str(port), "-k", folder]
    server = subprocess.Popen(
        [programs / "postgres", "-D", data, *listen], cwd=folder, stderr=subprocess.DEVNULL, **user
    )  # type: ignore[call-overload]
    wait_until_open(port)
    yield f"postgresql://tester:{PASSWORD}@127.0.0.1:{port}/postgres"
    server.terminate()
    server.wait()
    shutil.rmtree(folder, ignore_errors=True)


def test_checkpoints_travel_through_an_object_store(demo: Path, tmp_path: Path, s3: str) -> None:
    campaign = write_campaign(tmp_path, demo, CAMPAIGN.replace("trials: 5", "trials: 2") + f'storage: "{s3}"\n')
    folder = CampaignFolder(tmp_path / "c")
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    outcome = run("search", campaign, "--output-dir", folder.root, cwd=tmp_path, extra=keys)
    assert outcome.code == 0, outcome.err
    assert all(folder.trial(number).best_checkpoint.exists() for number in range(2))
    assert not folder.sessions.exists()


def test_the_study_lives_in_postgresql_and_its_password_in_no_file(demo: Path, tmp_path: Path, postgres: str) -> None:
    content = CAMPAIGN.replace("trials: 5", "trials: 2") + "study: {url_variable: CROSSMODAL_STUDY_URL}\n"
    campaign = write_campaign(tmp_path, demo, content)
    folder = CampaignFolder(tmp_path / "c")
    command = ("search", campaign, "--output-dir", folder.root)
    url = {"CROSSMODAL_STUDY_URL": postgres}
    assert run(*command, cwd=tmp_path, extra=url).code == 0
    extended = run(*command, "--trials", 3, cwd=tmp_path, extra=url)
    assert extended.code == 0, extended.err
    board = run("leaderboard", folder.root, cwd=tmp_path, extra=url)
    assert board.code == 0, board.err
    assert "3 trials in" in board.out
    assert not folder.journal.exists()
    for path in folder.root.rglob("*"):
        if path.is_file():
            assert PASSWORD.encode() not in path.read_bytes(), path
    unset = run("status", folder.root, cwd=tmp_path)
    assert unset.code == 2
    assert "CROSSMODAL_STUDY_URL is not set" in unset.err
    gone = run(
        "status", folder.root, cwd=tmp_path, extra={"CROSSMODAL_STUDY_URL": postgres.replace("postgres", "gone", 1)}
    )
    assert gone.code == 2
    assert PASSWORD not in gone.err


def test_reading_a_journal_campaign_needs_no_database(finished_campaign: CampaignFolder) -> None:
    assert len(load_trials(finished_campaign)) == 5
