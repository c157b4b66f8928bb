"""Torn files and a full disk: never a wrong figure or a lost trial; they are reported, or the work is redone."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from analysis.trials import load_trials
from core.files.folders import CampaignFolder
from tests.commands import finish, run, wait_until
from tests.end_to_end.conftest import Begin, have_ended

pytestmark = pytest.mark.slow


@pytest.fixture
def copied(finished_campaign: CampaignFolder, tmp_path: Path) -> CampaignFolder:
    shutil.copytree(finished_campaign.root, tmp_path / "small")
    return CampaignFolder(tmp_path / "small")


def values(folder: CampaignFolder) -> dict[int, float]:
    trials = load_trials(folder)
    ended = trials[trials["state"] == "complete"]
    return dict(zip(ended["number"], ended["value"], strict=True))


def tear(path: Path, size: int = 40) -> None:
    path.write_bytes(path.read_bytes()[:-size])


def test_a_campaign_with_torn_files_keeps_its_figures_and_continues(copied: CampaignFolder, tmp_path: Path) -> None:
    kept = values(copied)
    tear(copied.trial(1).metrics)
    tear(copied.trial(2).best_checkpoint)
    tear(copied.trial(3).config)
    with copied.journal.open("ab") as stream:
        stream.write(b'{"op_code": 6, "worker')
    board = run("leaderboard", copied.root, cwd=tmp_path)
    assert board.code == 0, board.err
    assert values(copied) == kept
    campaign = tmp_path / "again.yaml"
    shutil.copy(copied.campaign, campaign)
    more = run("search", campaign, "--output-dir", copied.root, "--trials", 6, cwd=tmp_path)
    assert more.code == 0, more.err
    assert len(values(copied)) == 6
    assert {number: values(copied)[number] for number in kept} == kept


def test_a_torn_receipt_is_named(copied: CampaignFolder, tmp_path: Path) -> None:
    tear(copied.trial(0).receipt)
    outcome = run("leaderboard", copied.root, cwd=tmp_path)
    assert outcome.code == 2
    assert str(copied.trial(0).receipt) in outcome.err
    copied.trial(0).receipt.unlink()
    assert run("leaderboard", copied.root, cwd=tmp_path).code == 0


def test_a_torn_campaign_file_is_reported_and_nothing_is_started(copied: CampaignFolder, tmp_path: Path) -> None:
    campaign = tmp_path / "again.yaml"
    shutil.copy(copied.campaign, campaign)
    copied.campaign.write_bytes(copied.campaign.read_bytes()[:-300])
    for command in (("status", copied.root), ("search", campaign, "--output-dir", copied.root)):
        outcome = run(*command, cwd=tmp_path)
        assert outcome.code == 2
        assert str(copied.campaign) in outcome.err
        assert len(outcome.err.strip().splitlines()) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", folder]).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(path: Path) -> None:
    """Take the last byte of the disk."""
    with path.open("ab", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(bytes(4096))


def test_a_full_disk_is_reported_and_loses_no_trial(
    small_disk: Path, endless_campaign: Path, tmp_path: Path, begin: Begin
) -> None:
    endless_campaign.write_text(endless_campaign.read_text() + "max_failed_trials: 99\n")
    folder = CampaignFolder(small_disk / "c")
    command = ("search", endless_campaign, "--output-dir", folder.root)
    process = begin(*command)
    wait_until(lambda: have_ended(folder, 1) or process.poll() is not None)
    fill(small_disk / "ballast")
    full = finish(process)
    assert full.code == 2, full.out + full.err
    assert "No space left on device" in full.err
    assert "Traceback" not in full.err
    (small_disk / "ballast").unlink()
    shutil.rmtree(folder.sessions, ignore_errors=True)
    kept = values(folder)
    assert kept
    limit = len(kept) + 3
    assert run(*command, "--trials", limit, cwd=tmp_path, extra={"WANDB_MODE": "disabled"}).code == 0
    assert {number: values(folder)[number] for number in kept} == kept
    trials = load_trials(folder)
    assert trials["state"].isin(["complete", "failed"]).all()
    assert trials["reason"].dropna().str.contains("No space|stale|Errno 28|did not arrive").all(), set(trials["reason"])
