"""Where a campaign stands, read from its folder: without Ray, also while a driver is at work."""

import os
import socket
from collections import Counter
from dataclasses import dataclass
from typing import Any

from analysis.campaign import read_campaign
from analysis.leaderboard import failures
from analysis.trials import load_trials, lost_files
from core.files.folders import CampaignFolder
from core.files.ownership import read_holder


@dataclass(frozen=True, slots=True)
class Standing:
    """What `crossmodal status` shows."""

    name: str
    objective: str
    limits: dict[str, float | None]
    states: dict[str, int]
    """complete, pruned, failed, interrupted (retried), running, waiting → trials."""
    failures: dict[str, int]
    """Reason → trials."""
    running: list[tuple[int, int]]
    """Number and reported epochs of each running trial."""
    best: tuple[int, float] | None
    baseline: float | None
    driver: str
    lost: list[str]
    """Files of ended trials that are missing or torn."""


def read_standing(folder: CampaignFolder) -> Standing:
    """Raises UserError where there is no campaign."""
    campaign, trials = read_campaign(folder), load_trials(folder)
    rows = trials.to_dict("records")
    states = dict.fromkeys(("complete", "pruned", "failed", "interrupted", "running", "waiting"), 0)
    states |= Counter(_state(row) for row in rows)
    complete = [(int(row["number"]), float(row["value"])) for row in rows if row["state"] == "complete"]
    baseline = [row["value"] for row in rows if row["origin"] == 0 and row["state"] == "complete"]
    return Standing(
        name=campaign.name,
        objective=campaign.objective,
        limits=campaign.limits.model_dump(),
        states=states,
        failures=failures(trials),
        running=[(int(row["number"]), int(row["epochs"])) for row in rows if row["state"] == "running"],
        best=max(complete, key=lambda trial: trial[1], default=None),
        baseline=float(baseline[0]) if baseline else None,
        driver=_driver(folder),
        lost=[str(path.relative_to(folder.root)) for path in lost_files(folder, trials)],
    )


def _state(row: dict[Any, Any]) -> str:
    return "interrupted" if row["reason"] == "stale" else str(row["state"])


def _driver(folder: CampaignFolder) -> str:
    holder = read_holder(folder.root)
    if holder is None:
        return "none"
    told = f"process {holder['pid']} on {holder['host']}"
    if holder["host"] != socket.gethostname():
        return told
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return f"{told}, which is gone; crossmodal search continues the campaign"
    except PermissionError:
        pass
    return told
