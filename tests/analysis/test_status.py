import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from analysis.status import read_status
from core.errors import UserError
from core.files.folders import CampaignFolder
from core.files.ownership import HOLDER
from tests.commands import CommandLine


@pytest.fixture
def campaign(finished_campaign: CampaignFolder, tmp_path: Path) -> CampaignFolder:
    shutil.copytree(finished_campaign.root, tmp_path / "c", ignore=shutil.ignore_patterns("wandb", "sessions"))
    return CampaignFolder(tmp_path / "c")


def test_a_finished_campaign_has_its_counts_and_no_driver(campaign: CampaignFolder) -> None:
    status = read_status(campaign)
    standing = status.standing
    assert standing.states["complete"] == 5
    assert sum(standing.states.values()) == 5
    assert status.campaign.limits.trials == 5
    assert status.driver == "none"
    assert standing.best is not None
    assert standing.baseline is not None
    assert standing.best[1] >= standing.baseline


def test_the_driver_is_named_and_a_dead_one_is_reported(campaign: CampaignFolder) -> None:
    holder = {"pid": os.getpid(), "host": socket.gethostname()}
    (campaign.root / HOLDER).write_text(json.dumps(holder))
    assert read_status(campaign).driver == f"process {os.getpid()} on {socket.gethostname()}"
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    (campaign.root / HOLDER).write_text(json.dumps(holder | {"pid": dead.pid}))
    assert "which is not running" in read_status(campaign).driver


def test_the_command_prints_everything(crossmodal: CommandLine, campaign: CampaignFolder) -> None:
    outcome = crossmodal("status", campaign.root)
    assert outcome.code == 0
    assert "limits 5 trials" in outcome.out
    assert "5 complete, 0 pruned, 0 failed" in outcome.out
    assert "over the baseline" in outcome.out


def test_a_folder_without_a_campaign_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no campaign"):
        read_status(CampaignFolder(tmp_path))
