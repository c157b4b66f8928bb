"""Campaigns that are really killed: no finished trial is ever lost, and none runs twice."""

import os
import random
import signal
from functools import partial
from pathlib import Path

import pytest
import torch

from analysis.leaderboard import rank
from analysis.trials import load_trials
from core.config import load_config
from core.features.opening import open_features
from core.files.folders import CampaignFolder
from core.files.json_files import read_json_lines
from tests.commands import command_of, descendants, finish, hold, kill_everything, run, wait_until, wait_until_held
from tests.conftest import CAMPAIGN, ONE_AT_A_TIME, write_campaign
from tests.end_to_end.conftest import EPOCHS, Begin, epochs_of, epochs_reported, finished, have_ended, have_reported

pytestmark = pytest.mark.slow


def test_a_driver_killed_repeatedly_loses_nothing(endless_campaign: Path, tmp_path: Path, begin: Begin) -> None:
    endless_campaign.write_text(endless_campaign.read_text().replace(ONE_AT_A_TIME, ""))  # two workers and more
    folder = CampaignFolder(tmp_path / "c")
    command = ("search", endless_campaign, "--output-dir", folder.root)
    generator, kills = random.Random(0), 0
    kept: dict[int, float] = {}
    for _ in range(5):
        process = begin(*command)
        wait_until(partial(have_ended, folder, len(kept) + 1), during=process)
        point = epochs_reported(folder) + generator.randrange(2 * EPOCHS)  # anywhere within two trials
        wait_until(partial(have_reported, folder, point), during=process)
        kill_everything(process)
        kills += 1
        now = finished(folder)
        assert {number: now[number] for number in kept} == kept  # still there, with the same value
        kept = now
    assert kills == 5
    limit = len(kept) + 4
    last = run(*command, "--trials", limit, cwd=tmp_path)
    assert last.code == 0, last.err
    trials = load_trials(folder)
    ended = trials[trials["reason"].isna()]
    assert len(ended) == limit
    assert set(ended["state"]) == {"complete"}
    assert {number: finished(folder)[number] for number in kept} == kept
    stale = trials[trials["reason"] == "stale"]
    assert stale["number"].isin(trials["retry_of"]).all()  # each interrupted trial was put back in the queue
    assert trials["retry_of"].dropna().is_unique  # once
    configs = [folder.trial(int(number)).config.read_text() for number in ended["number"]]
    assert len(set(configs)) == limit  # none ran twice
    for number in ended["number"]:
        assert epochs_of(folder, int(number)) == list(range(EPOCHS))
    table = rank(trials)
    assert dict(zip(table["number"], table["recall_mean"], strict=True)) == finished(folder)


def test_a_signal_stops_gracefully_and_the_same_command_continues(
    endless_campaign: Path, tmp_path: Path, begin: Begin
) -> None:
    folder = CampaignFolder(tmp_path / "c")
    command = ("search", endless_campaign, "--output-dir", folder.root)
    kept: dict[int, float] = {}
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = begin(*command)
        wait_until(partial(have_ended, folder, len(kept) + 1), during=process)
        process.send_signal(number)
        stopped = finish(process)
        assert stopped.code == code, stopped.err
        assert "Run the same command to continue" in stopped.out
        assert "running" not in set(load_trials(folder)["state"])  # everything is stored
        now = finished(folder)
        assert {number: now[number] for number in kept} == kept
        kept = now
    limit = len(kept) + 1
    assert run(*command, "--trials", limit, cwd=tmp_path).code == 0
    assert {number: finished(folder)[number] for number in kept} == kept
    assert len(finished(folder)) == limit


def test_an_interrupted_trial_continues_from_its_checkpoint(demo: Path, tmp_path: Path, begin: Begin) -> None:
    content = CAMPAIGN.replace("trials: 5", "trials: 1") + "checkpoint_every_s: 0\nresources: {cpu: 1}\n"
    campaign = write_campaign(tmp_path, demo, content, epochs=60)
    folder = CampaignFolder(tmp_path / "c")
    command = ("search", campaign, "--output-dir", folder.root)
    process = begin(*command, command=hold("0000/metrics.jsonl", 80))  # twice an epoch: a torn line is looked for first
    wait_until_held(process)
    kill_everything(process)
    before = read_json_lines(folder.trial(0).metrics)
    assert 30 <= len(before) < 60
    assert run(*command, cwd=tmp_path).code == 0
    after = read_json_lines(folder.trial(1).metrics)
    assert [row["epoch"] for row in after] == list(range(60))
    taken_up = [a["train_seconds"] == b["train_seconds"] for a, b in zip(before, after, strict=False)]
    assert sum(taken_up) >= 30  # those epochs were not trained again


def test_a_second_driver_is_refused_by_name(endless_campaign: Path, tmp_path: Path, begin: Begin) -> None:
    folder = CampaignFolder(tmp_path / "c")
    process = begin("search", endless_campaign, "--output-dir", folder.root)
    wait_until(lambda: have_ended(folder, 1), during=process)
    second = run("search", endless_campaign, "--output-dir", folder.root, cwd=tmp_path)
    status = run("status", folder.root, cwd=tmp_path)
    kill_everything(process)
    assert second.code == 2
    assert f"process {process.pid} on" in second.err
    assert status.code == 0
    assert f"driver: process {process.pid}" in status.out
    assert "which is not running" in run("status", folder.root, cwd=tmp_path).out


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU that must not be there")
def test_failing_trials_keep_their_reason_and_too_many_in_a_row_stop_the_campaign(demo: Path, tmp_path: Path) -> None:
    campaign = write_campaign(tmp_path, demo, CAMPAIGN + "max_failed_trials: 2\n")
    config = tmp_path / "train.yaml"
    open_features(load_config(config))  # extracted without a GPU
    config.write_text(config.read_text().replace("device: cpu", "device: cuda"))
    outcome = run("search", campaign, "--output-dir", tmp_path / "c", cwd=tmp_path)
    assert outcome.code == 2
    assert "trials failed in a row" in outcome.err
    assert "this machine has no usable GPU" in outcome.err
    status = run("status", tmp_path / "c", cwd=tmp_path)
    assert "× UserError: device is cuda" in status.out
    assert run("search", campaign, "--output-dir", tmp_path / "c", "--trials", 9, cwd=tmp_path).code == 2


JUMPING_CLOCK = """
import time
from pathlib import Path
clock, jump = time.monotonic, Path("two hours later")
time.monotonic = lambda: clock() + 7200 * jump.exists()
"""
"""For a driver whose clock jumps by two hours when that file appears."""


def test_a_worker_that_hangs_is_killed_and_the_campaign_continues(demo: Path, tmp_path: Path, begin: Begin) -> None:
    content = CAMPAIGN.replace("trials: 5", "trials: 2") + "trial_timeout_s: 3600\nmax_failed_trials: 9\n"
    campaign = write_campaign(tmp_path, demo, content, epochs=20)
    folder = CampaignFolder(tmp_path / "c")
    python, option, program, *held = hold("0000/metrics.jsonl", 1)
    process = begin(
        *("search", campaign, "--output-dir", folder.root), command=[python, option, JUMPING_CLOCK + program, *held]
    )
    wait_until_held(process)
    (worker,) = [pid for pid in descendants(process.pid) if "ray::ImplicitFunc" in command_of(pid)]
    os.kill(worker, signal.SIGSTOP)
    process.send_signal(signal.SIGCONT)
    wait_until(lambda: epochs_of(folder, 0), during=process)
    (tmp_path / "two hours later").touch()
    ended = finish(process)
    assert ended.code == 0, ended.out + ended.err
    trials = load_trials(folder)
    assert trials["state"].tolist() == ["failed", "complete"]
    assert trials["reason"].tolist()[0] == "no report for 3600 s"
