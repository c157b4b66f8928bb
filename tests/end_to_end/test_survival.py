"""Campaigns that are really killed: whatever is lost, it is never a finished trial, and none runs twice."""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from analysis.leaderboard import rank
from analysis.trials import load_trials
from core.files import CampaignFolder, read_json_lines
from tests.commands import run, start
from tests.conftest import CAMPAIGN, write_campaign

pytestmark = pytest.mark.slow


def descendants(pid: int) -> list[int]:
    """All processes below one, Ray's daemons and workers among them, though they lead groups of their own."""
    listing = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for line in listing.splitlines():
        child, parent = map(int, line.split())
        children.setdefault(parent, []).append(child)
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def kill_everything(process: subprocess.Popen[str]) -> None:
    victims = [process.pid, *descendants(process.pid)]
    for pid in victims:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.communicate()


def finished(folder: CampaignFolder) -> dict[int, float]:
    """Number → value of the trials that have ended well."""
    if not folder.journal.exists() or not folder.campaign.exists():
        return {}
    trials = load_trials(folder)
    if trials.empty:
        return {}
    ended = trials[trials["state"] == "complete"]
    return dict(zip(ended["number"], ended["value"], strict=True))


def wait_for(folder: CampaignFolder, trials: int, process: subprocess.Popen[str], timeout: float = 180) -> None:
    """Until so many trials have ended, or the driver has."""
    deadline = time.monotonic() + timeout
    while len(finished(folder)) < trials and process.poll() is None:
        assert time.monotonic() < deadline, "the campaign does not get on"
        time.sleep(0.1)


@pytest.fixture
def long_campaign(demo: Path, tmp_path: Path) -> Path:
    """Twelve trials of about a second."""
    content = CAMPAIGN.replace("trials: 5", "trials: 12") + "checkpoint_every_s: 0\n"
    return write_campaign(tmp_path, demo, content, epochs=25)


Begin = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Starts the command line; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: object) -> subprocess.Popen[str]:
        started.append(start(*arguments, cwd=tmp_path))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            kill_everything(process)
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()


def test_a_driver_killed_again_and_again_loses_nothing(long_campaign: Path, tmp_path: Path, begin: Begin) -> None:
    folder = CampaignFolder(tmp_path / "c")
    command = ("search", long_campaign, "--output-dir", folder.root)
    generator, kills = random.Random(0), 0
    kept: dict[int, float] = {}
    for _ in range(5):
        process = begin(*command)
        wait_for(folder, len(kept) + 1, process)
        time.sleep(generator.uniform(0, 1.5))
        assert process.poll() is None, "the campaign ended before it could be killed"
        kill_everything(process)
        kills += 1
        now = finished(folder)
        assert {number: now[number] for number in kept} == kept  # still there, with the same value
        kept = now
    assert kills == 5
    last = run(*command, cwd=tmp_path)
    assert last.code == 0, last.err
    trials = load_trials(folder)
    ended = trials[trials["reason"].isna()]
    assert len(ended) == 12
    assert set(ended["state"]) == {"complete"}
    assert {number: finished(folder)[number] for number in kept} == kept
    stale = trials[trials["reason"] == "stale"]
    assert stale["number"].isin(trials["retry_of"]).all()  # each interrupted trial was put back in the queue
    assert trials["retry_of"].dropna().is_unique  # once
    configs = [folder.trial(int(number)).config.read_text() for number in ended["number"]]
    assert len(set(configs)) == 12  # none ran twice
    for number in ended["number"]:
        epochs = [row["epoch"] for row in read_json_lines(folder.trial(int(number)).metrics)]
        assert epochs == list(range(25))
    table = rank(trials)
    assert dict(zip(table["number"], table["recall_mean"], strict=True)) == finished(folder)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_in_good_order_and_the_same_command_continues(
    long_campaign: Path, tmp_path: Path, begin: Begin, number: signal.Signals, code: int
) -> None:
    folder = CampaignFolder(tmp_path / "c")
    command = ("search", long_campaign, "--output-dir", folder.root, "--trials", 5)
    process = begin(*command)
    wait_for(folder, 1, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Continue with the same command" in out
    states = set(load_trials(folder)["state"])
    assert "running" not in states  # all is told
    kept = finished(folder)
    assert run(*command, cwd=tmp_path).code == 0
    assert {number: finished(folder)[number] for number in kept} == kept
    assert len(finished(folder)) == 5


def test_an_interrupted_trial_continues_from_its_checkpoint(demo: Path, tmp_path: Path, begin: Begin) -> None:
    content = CAMPAIGN.replace("trials: 5", "trials: 1") + "checkpoint_every_s: 0\nresources: {cpu: 1}\n"
    campaign = write_campaign(tmp_path, demo, content, epochs=400)
    folder = CampaignFolder(tmp_path / "c")
    command = ("search", campaign, "--output-dir", folder.root)
    process = begin(*command)
    deadline = time.monotonic() + 90
    while len(read_json_lines(folder.trial(0).metrics)) < 40 and time.monotonic() < deadline:
        time.sleep(0.05)
    kill_everything(process)
    before = read_json_lines(folder.trial(0).metrics)
    assert 40 <= len(before) < 400
    assert run(*command, cwd=tmp_path).code == 0
    after = read_json_lines(folder.trial(1).metrics)
    assert [row["epoch"] for row in after] == list(range(400))
    taken_up = [a["train_seconds"] == b["train_seconds"] for a, b in zip(before, after, strict=False)]
    assert sum(taken_up) >= 30  # those epochs were not trained again


def test_a_second_driver_is_refused_by_name(long_campaign: Path, tmp_path: Path, begin: Begin) -> None:
    folder = CampaignFolder(tmp_path / "c")
    process = begin("search", long_campaign, "--output-dir", folder.root)
    wait_for(folder, 1, process)
    second = run("search", long_campaign, "--output-dir", folder.root, cwd=tmp_path)
    status = run("status", folder.root, cwd=tmp_path)
    kill_everything(process)
    assert second.code == 2
    assert f"process {process.pid} on" in second.err
    assert status.code == 0
    assert f"driver: process {process.pid}" in status.out
    assert "gone" in run("status", folder.root, cwd=tmp_path).out


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU that must not be there")
def test_failing_trials_keep_their_reason_and_too_many_in_a_row_stop_the_campaign(demo: Path, tmp_path: Path) -> None:
    campaign = write_campaign(tmp_path, demo, CAMPAIGN + "max_failed_trials: 2\n")
    run("features", "extract", "--config", tmp_path / "train.yaml", cwd=tmp_path)
    config = tmp_path / "train.yaml"
    config.write_text(config.read_text().replace("device: cpu", "device: cuda"))
    outcome = run("search", campaign, "--output-dir", tmp_path / "c", cwd=tmp_path)
    assert outcome.code == 2
    assert "trials failed in a row" in outcome.err
    assert "this machine has no usable GPU" in outcome.err
    status = run("status", tmp_path / "c", cwd=tmp_path)
    assert "× UserError: features.device is cuda" in status.out
    assert run("search", campaign, "--output-dir", tmp_path / "c", "--trials", 9, cwd=tmp_path).code == 2


def test_a_worker_that_hangs_is_killed_and_the_campaign_goes_on(demo: Path, tmp_path: Path, begin: Begin) -> None:
    content = CAMPAIGN.replace("trials: 5", "trials: 2") + "trial_timeout_s: 20\nmax_failed_trials: 9\n"
    campaign = write_campaign(tmp_path, demo, content, epochs=400)
    folder = CampaignFolder(tmp_path / "c")
    with begin("search", campaign, "--output-dir", folder.root) as process:
        deadline = time.monotonic() + 90
        while not all(read_json_lines(folder.trial(number).metrics) for number in (0, 1)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        workers = [pid for pid in descendants(process.pid) if "ray::ImplicitFunc" in command_of(pid)]
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGSTOP)
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, out + err
    trials = load_trials(folder)
    assert sorted(trials["state"]) == ["complete", "failed"]
    assert "no report for 20 s" in trials["reason"].tolist()


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def test_a_torn_journal_is_mended(long_campaign: Path, tmp_path: Path) -> None:
    folder = CampaignFolder(tmp_path / "c")
    command = ("search", long_campaign, "--output-dir", folder.root)
    assert run(*command, "--trials", 2, cwd=tmp_path).code == 0
    kept = finished(folder)
    with folder.journal.open("ab") as stream:
        stream.write(json.dumps({"op_code": 4, "worker_id": "x"}).encode()[:15])
    assert run(*command, "--trials", 3, cwd=tmp_path).code == 0
    assert {number: finished(folder)[number] for number in kept} == kept
    assert len(finished(folder)) == 3
