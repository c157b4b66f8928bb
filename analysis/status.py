"""Where a campaign stands, read from its folder: without Ray, also while a driver is at work."""

import os
import socket
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.leaderboard import failures
from analysis.trials import load_trials
from core.config import load_yaml
from core.files import CampaignFolder, read_json


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


def read_standing(folder: CampaignFolder) -> Standing:
    """Raises UserError where there is no campaign."""
    trials = load_trials(folder)
    rows = trials.to_dict("records")
    campaign = load_yaml(folder.campaign)
    states = dict.fromkeys(("complete", "pruned", "failed", "interrupted", "running", "waiting"), 0)
    states |= Counter(_state(row) for row in rows)
    complete = [(int(row["number"]), float(row["value"])) for row in rows if row["state"] == "complete"]
    baseline = [row["value"] for row in rows if 0 in (row["number"], row["retry_of"]) and pd.notna(row["value"])]
    return Standing(
        name=campaign["name"],
        objective=campaign["objective"],
        limits=campaign["limits"],
        states=states,
        failures=failures(trials),
        running=[(int(row["number"]), int(row["epochs"])) for row in rows if row["state"] == "running"],
        best=max(complete, key=lambda trial: trial[1], default=None),
        baseline=float(baseline[0]) if baseline else None,
        driver=_driver(folder),
    )


def _state(row: dict[Any, Any]) -> str:
    return "interrupted" if row["reason"] == "stale" else str(row["state"])


def _driver(folder: CampaignFolder) -> str:
    if not folder.driver.exists():
        return "none"
    holder = read_json(folder.driver)
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
