"""Limits that change while a campaign runs; the driver stands still while they do, so that what follows is certain."""

import signal
from pathlib import Path

import pytest

from analysis.trials import load_trials
from core.files.folders import CampaignFolder
from tests.commands import CommandLine, finish, hold, run, wait_until_held
from tests.conftest import CAMPAIGN, write_campaign
from tests.end_to_end.conftest import Begin, finished

pytestmark = pytest.mark.slow


def test_limits_that_are_raised_before_the_last_trial_ends_are_reached(
    endless_campaign: Path, tmp_path: Path, begin: Begin
) -> None:
    """By its sixth epoch, Ray has asked for a second trial, and was told that there is none yet."""
    folder = CampaignFolder(tmp_path / "c")
    command = ("search", endless_campaign, "--output-dir", folder.root, "--trials", 1)
    process = begin(*command, command=hold("0000/metrics.jsonl", 12))
    wait_until_held(process)
    changed = run("limits", folder.root, "--trials", 3, cwd=tmp_path)
    assert changed.out.startswith("limits before: 1 trials\nlimits now: 3 trials; driver: process ")
    assert load_trials(folder)["state"].tolist() == ["running"]
    process.send_signal(signal.SIGCONT)
    ended = finish(process)
    assert ended.code == 0, ended.err
    assert sorted(finished(folder)) == [0, 1, 2]
    assert "3/3 trials" in ended.out  # the driver shows the limit of now
    again = run(*command, cwd=tmp_path)
    assert again.code == 0, again.err
    assert "up to 3 trials" in again.out  # the same command keeps it
    assert sorted(finished(folder)) == [0, 1, 2]


def test_a_lowered_limit_starts_nothing_more(endless_campaign: Path, tmp_path: Path, begin: Begin) -> None:
    folder = CampaignFolder(tmp_path / "c")
    process = begin("search", endless_campaign, "--output-dir", folder.root, command=hold("0003/metrics.jsonl", 4))
    wait_until_held(process)
    assert run("limits", folder.root, "--trials", 1, cwd=tmp_path).code == 0
    started = load_trials(folder)["number"].tolist()
    process.send_signal(signal.SIGCONT)
    ended = finish(process)
    assert ended.code == 0, ended.err
    trials = load_trials(folder)
    assert trials["number"].tolist() == started
    assert set(trials["state"]) == {"complete"}  # those that ran ended as usual


def test_a_campaign_starts_warm(
    crossmodal: CommandLine, demo: Path, finished_campaign: CampaignFolder, tmp_path: Path
) -> None:
    """A real search whose history is another real one, of five trials."""
    content = CAMPAIGN.replace("name: small", "name: warm") + f"warm_start: [{finished_campaign.root}]\n"
    campaign, folder = write_campaign(tmp_path, demo, content), CampaignFolder(tmp_path / "b")
    command = ("search", campaign, "--output-dir", folder.root, "--trials", 2)
    outcome = run(*command, cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    assert f"warm start from {finished_campaign.root}: 5 of 5 complete trials are history for the sampler" in (
        outcome.out
    )
    assert sorted(finished(folder)) == [0, 6]
    assert "2 complete, 0 pruned, 0 failed, 0 interrupted, 0 running, 0 waiting, 5 imported" in (
        crossmodal("status", folder.root).out
    )
    more = run(*command[:-1], 3, cwd=tmp_path)
    for outcome in (more, crossmodal("leaderboard", folder.root), crossmodal("report", folder.root)):
        assert outcome.code == 0, outcome.err
        assert "missing" not in outcome.out
    assert sorted(finished(folder)) == [0, 6, 7]
