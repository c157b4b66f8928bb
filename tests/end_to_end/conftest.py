"""Campaigns that are still running when a test inspects them, however slow the machine is."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis.trials import load_trials
from core.errors import UserError
from core.files.folders import CampaignFolder
from core.files.json_files import read_json_lines
from tests.commands import kill_everything, start
from tests.conftest import CAMPAIGN, write_campaign

EPOCHS = 10
"""Epochs of each trial of an endless campaign."""
Begin = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def endless_campaign(demo: Path, tmp_path: Path) -> Path:
    """Short trials without end; `--trials` ends it."""
    content = CAMPAIGN.replace("trials: 5", "trials: 1000000") + "checkpoint_every_s: 0\n"
    return write_campaign(tmp_path, demo, content, epochs=EPOCHS)


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Starts the command line; whatever still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: object, **options: Any) -> subprocess.Popen[str]:
        started.append(start(*arguments, cwd=tmp_path, **options))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            kill_everything(process)
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()


def finished(folder: CampaignFolder) -> dict[int, float]:
    """Number → value of the complete trials; empty before the campaign has started."""
    if not folder.journal.exists() or not folder.campaign.exists():
        return {}
    trials = load_trials(folder)
    if trials.empty:
        return {}
    ended = trials[trials["state"] == "complete"]
    return dict(zip(ended["number"], ended["value"], strict=True))


def have_ended(folder: CampaignFolder, count: int) -> bool:
    """Whether this many trials are complete; a study that is being created has none."""
    try:
        return len(finished(folder)) >= count
    except UserError:
        return False


def epochs_of(folder: CampaignFolder, number: int) -> list[int]:
    """The epochs that a trial has reported."""
    return [row["epoch"] for row in read_json_lines(folder.trial(number).metrics)]


def epochs_reported(folder: CampaignFolder) -> int:
    """Epochs reported by all trials together; only grows."""
    return sum(len(read_json_lines(path)) for path in folder.root.glob("trials/*/metrics.jsonl"))


def have_reported(folder: CampaignFolder, epochs: int) -> bool:
    """Whether all trials together have reported this many epochs."""
    return epochs_reported(folder) >= epochs
