"""Weights & Biases, written by the process that the user started, never by a worker: one run a trial or stage.

Tracking never fails a trial: a problem is counted and shown once. The JSON lines beside it are the canonical
log, from which runs can be rebuilt.
"""

import logging
import os
from pathlib import Path
from typing import Any, Literal, Protocol

import wandb

from core.records import EpochMetrics

logger = logging.getLogger(__name__)

Mode = Literal["auto", "online", "offline", "disabled"]


class Tracker(Protocol):
    """What is told of runs as they go; a run is named within its group."""

    def start(self, name: str, config: dict[str, Any]) -> None: ...

    def epoch(self, name: str, metrics: EpochMetrics) -> None: ...

    def finish(self, name: str, summary: dict[str, Any], *, failed: bool) -> None: ...

    def close(self) -> None: ...


class NoTracker:
    """Tells nobody."""

    def start(self, name: str, config: dict[str, Any]) -> None: ...

    def epoch(self, name: str, metrics: EpochMetrics) -> None: ...

    def finish(self, name: str, summary: dict[str, Any], *, failed: bool) -> None: ...

    def close(self) -> None: ...


class WandbTracker:
    """Several W&B runs open in one process; offline ones lie in `folder`/wandb."""

    def __init__(self, *, project: str, group: str, mode: Mode, folder: Path) -> None:
        self._project = project
        self._group = group
        self._mode = resolve_mode(mode)
        self._folder = folder
        self._runs: dict[str, Any] = {}
        self.problems = 0
        """Calls to W&B that failed and were passed over."""

    def start(self, name: str, config: dict[str, Any]) -> None:
        """Open a run."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._runs[name] = wandb.init(
                project=self._project,
                group=self._group,
                name=name,
                id=f"{self._group}-{name}",
                config=config,
                mode=self._mode,
                dir=str(self._folder),
                reinit="create_new",
                resume="allow",
                settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True),
            )
        except (wandb.Error, OSError) as error:
            self._pass_over(error)

    def epoch(self, name: str, metrics: EpochMetrics) -> None:
        """Log one epoch."""
        if run := self._runs.get(name):
            try:
                run.log(metrics.to_json(), step=metrics.epoch)
            except (wandb.Error, OSError) as error:
                self._pass_over(error)

    def finish(self, name: str, summary: dict[str, Any], *, failed: bool) -> None:
        """Write the summary and close the run."""
        if run := self._runs.pop(name, None):
            try:
                run.summary.update(summary)
                run.finish(exit_code=int(failed))
            except (wandb.Error, OSError) as error:
                self._pass_over(error)

    def close(self) -> None:
        """Close the runs that are still open, e.g. after an interruption."""
        for name in list(self._runs):
            self.finish(name, {"state": "interrupted"}, failed=True)
        if self.problems:
            logger.warning("%d calls to Weights & Biases failed; the JSON lines on disk hold everything", self.problems)

    def _pass_over(self, error: Exception) -> None:
        self.problems += 1
        if self.problems == 1:
            logger.warning("Weights & Biases: %s", str(error).splitlines()[0])


def resolve_mode(mode: Mode) -> Literal["online", "offline", "disabled"]:
    """`auto` follows WANDB_MODE, else is online where there is a key in the environment, else offline."""
    if mode != "auto":
        return mode
    match os.environ.get("WANDB_MODE"):
        case "online" | "run":
            return "online"
        case "disabled":
            return "disabled"
        case None:
            return "online" if os.environ.get("WANDB_API_KEY") else "offline"
        case _:
            return "offline"


def build_tracker(*, project: str, group: str, mode: Mode, folder: Path) -> Tracker:
    """The tracker that a mode asks for."""
    if resolve_mode(mode) == "disabled":
        return NoTracker()
    return WandbTracker(project=project, group=group, mode=mode, folder=folder)
