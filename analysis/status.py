"""The status of a campaign, read from its folder without Ray, also while a driver is running."""

import math
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.lost_files import lost_of_trial
from core.campaign.campaign import Campaign, read_campaign
from core.campaign.study import read_trials
from core.campaign.trials import BASELINE, SCORED, Standing, TrialRecord, failures_of, standing_of
from core.files.folders import CampaignFolder
from core.files.ownership import read_holder

if TYPE_CHECKING:
    from analysis.confirmation import Confirmed


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
    confirmed: "Confirmed | None"
    """The trial that `crossmodal retrain` would take, if any was confirmed."""

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
            "confirmed": self._confirmed_to_json(),
            "running": [{"trial": trial.number, "epochs": trial.epochs} for trial in self.running],
            "failures": self.failures,
            "lost_files": self.lost,
        }

    @property
    def confirmed_in_words(self) -> str:
        """The confirmed trial, its mean and its gain; empty if there is none."""
        best = self.confirmed
        if best is None:
            return ""
        gain, mean = best.gain, f"mean {self.campaign.objective} {best.mean.value:.4f} of {len(best.seeds)} seeds"
        over = f", {gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}] over the baseline"
        is_compared = best.trial != BASELINE and not math.isnan(gain.value)
        return f"trial {best.trial}, {mean}{over if is_compared else ''}"

    def _confirmed_to_json(self) -> dict[str, Any] | None:
        best = self.confirmed
        if best is None:
            return None
        gain = None if math.isnan(best.gain.value) else best.gain.to_json()
        return {"trial": best.trial, "seeds": len(best.seeds), "mean": best.mean.to_json(), "gain": gain}


def read_status(folder: CampaignFolder) -> Status:
    """Read the status of a campaign; raises UserError if there is none."""
    campaign, trials = read_campaign(folder), read_trials(folder)
    lost = [
        path.relative_to(folder.root)
        for trial in trials
        if trial.state in SCORED
        for path in lost_of_trial(folder.trial(trial.number), pruned=trial.state == "pruned", epochs=trial.epochs)
    ]
    return Status(
        campaign=campaign,
        standing=standing_of(trials),
        failures=failures_of(trials),
        running=[trial for trial in trials if trial.state == "running" and not trial.is_stale],
        driver=driver_of(folder),
        lost=list(map(str, lost)),
        confirmed=_read_confirmed(folder),
    )


def _read_confirmed(folder: CampaignFolder) -> "Confirmed | None":
    if not folder.confirmation.campaign.exists():
        return None
    from analysis.confirmation import best_confirmed  # the bootstrap takes a second, which few campaigns need here

    return best_confirmed(folder)


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
