"""Weights & Biases, written by the process that the user started, never by a worker: one run a trial or stage.

Tracking never fails a trial: a problem is counted and shown once. The JSON lines beside it are the canonical
log, from which runs can be rebuilt.
"""

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Protocol

import wandb

from core.records import EpochMetrics

logger = logging.getLogger(__name__)

Mode = Literal["auto", "online", "offline", "disabled"]

LEAN = wandb.Settings(
    silent=True,
    console="off",
    disable_git=True,  # the receipt tells the commit and the versions; W&B would look for them again in each run
    x_save_requirements=False,  # parsing every installed package's metadata takes six times as long as all the rest
    x_disable_stats=True,
    x_disable_meta=True,
)


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
    """Several W&B runs open in one process; offline ones lie in `folder`/wandb.

    A thread of its own talks to W&B, in the order of the calls: a worker would wait for a slow disk or network.
    """

    def __init__(self, *, project: str, group: str, mode: Mode, folder: Path) -> None:
        self._project = project
        self._group = group
        self._mode = resolve_mode(mode)
        self._folder = folder
        self._runs: dict[str, Any] = {}
        self._thread = ThreadPoolExecutor(max_workers=1)
        self.problems = 0
        """Calls to W&B that failed and were passed over."""

    def start(self, name: str, config: dict[str, Any]) -> None:
        """Open a run."""
        self._thread.submit(self._try, self._open, name, config)

    def epoch(self, name: str, metrics: EpochMetrics) -> None:
        """Log one epoch."""
        self._thread.submit(self._try, self._log, name, metrics)

    def finish(self, name: str, summary: dict[str, Any], *, failed: bool) -> None:
        """Write the summary and close the run."""
        self._thread.submit(self._try, self._finish, name, summary, failed)

    def close(self) -> None:
        """Wait until all is told, and close the runs that are still open, e.g. after an interruption."""
        self._thread.shutdown()
        for name in list(self._runs):
            self._try(self._finish, name, {"state": "interrupted"}, True)
        if self.problems:
            logger.warning("%d calls to Weights & Biases failed; the JSON lines on disk hold everything", self.problems)

    def _try(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            call(*arguments)
        except Exception as error:
            self.problems += 1
            if self.problems == 1:
                logger.warning("Weights & Biases: %s", (str(error).splitlines() or [type(error).__name__])[0])

    def _open(self, name: str, config: dict[str, Any]) -> None:
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
            settings=LEAN,
        )

    def _log(self, name: str, metrics: EpochMetrics) -> None:
        if run := self._runs.get(name):
            run.log(metrics.to_json(), step=metrics.epoch)

    def _finish(self, name: str, summary: dict[str, Any], failed: bool) -> None:
        if run := self._runs.pop(name, None):
            run.summary.update(summary)
            run.finish(exit_code=int(failed))


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
