"""The live line of a running campaign: trials done, running, pruned and failed, the best so far, time left."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from search.campaign import CampaignStatus


class CampaignProgress:
    """Context manager; `update` is called whenever a trial begins or ends."""

    def __init__(self, console: Console, objective: str) -> None:
        self._console = console
        self._objective = objective
        self._started = time.monotonic()
        self._done_at_start: int | None = None
        self._status: CampaignStatus | None = None
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=2, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def update(self, status: CampaignStatus) -> None:
        """Show where the campaign stands; a line is left behind for every trial that ended."""
        before, self._status = self._status, status
        if self._done_at_start is None:
            self._done_at_start = _done(status)
            self._started = time.monotonic()
        if before is not None and _done(status) > _done(before):
            self._console.print(self._line(status), highlight=False, soft_wrap=True)

    def _render(self) -> Text:
        if self._status is None:
            return Text("starting")
        return Text(f"{self._line(self._status)}, {self._time_left(self._status)}")

    def _line(self, status: CampaignStatus) -> str:
        parts = [f"{_done(status)}/{status.limit} trials: {status.finished} complete", f"{status.running} running"]
        parts += [f"{status.pruned} pruned", f"{status.failed} failed"]
        if status.best_value is not None:
            gain = "" if status.baseline_value is None else f", {status.best_value - status.baseline_value:+.4f}"
            parts.append(f"best {self._objective} {status.best_value:.4f} (trial {status.best_number}{gain})")
        return ", ".join(parts)

    def _time_left(self, status: CampaignStatus) -> str:
        done = _done(status) - (self._done_at_start or 0)
        elapsed = time.monotonic() - self._started
        if done == 0:
            return f"{elapsed:.0f} s so far"
        left = elapsed / done * max(0, status.limit - _done(status))
        return f"{elapsed:.0f} s so far, about {left:.0f} s left"


def _done(status: CampaignStatus) -> int:
    return status.finished + status.pruned + status.failed
