"""The status of a campaign, read from its folder without Ray, also while a driver is running."""

import os
import socket
from dataclasses import dataclass
from typing import Any

from analysis.leaderboard import failures
from analysis.trials import lost_files, tabulate
from core.campaign.campaign import Campaign, read_campaign
from core.campaign.study import read_trials
from core.campaign.trials import Standing, TrialRecord, standing_of
from core.files.folders import CampaignFolder
from core.files.ownership import read_holder


@dataclass(frozen=True, slots=True)
class Status:
    """What `crossmodal status` shows."""

    campaign: Campaign
    standing: Standing
    failures: dict[str, int]
    """Reason → number of trials."""
    running: list[TrialRecord]
    driver: str
    lost: list[str]
    """Files of ended trials that are missing or torn."""

    def to_json(self) -> dict[str, Any]:
        """What is shown, by name."""
        standing = self.standing
        best = None if standing.best is None else dict(zip(("trial", "value"), standing.best, strict=True))
        return {
            "campaign": self.campaign.name,
            "objective": self.campaign.objective,
            "limits": self.campaign.limits.model_dump(),
            "driver": self.driver,
            "trials": dict(standing.states),
            "best": best and {**best, "gain": standing.gain},
            "running": [{"trial": trial.number, "epochs": trial.epochs} for trial in self.running],
            "failures": self.failures,
            "lost_files": self.lost,
        }


def read_status(folder: CampaignFolder) -> Status:
    """Read the status of a campaign; raises UserError if there is none."""
    campaign, trials = read_campaign(folder), read_trials(folder)
    table = tabulate(folder, trials)
    return Status(
        campaign=campaign,
        standing=standing_of(trials),
        failures=failures(table),
        running=[trial for trial in trials if trial.state == "running" and not trial.is_stale],
        driver=driver_of(folder),
        lost=[str(path.relative_to(folder.root)) for path in lost_files(folder, table)],
    )


def driver_of(folder: CampaignFolder) -> str:
    """The process that runs a campaign, in words."""
    holder = read_holder(folder.root)
    if holder is None:
        return "none"
    process = f"process {holder['pid']} on {holder['host']}"
    if holder["host"] != socket.gethostname():
        return process
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return f"{process}, which is not running; crossmodal search continues the campaign"
    except PermissionError:
        pass
    return process
