"""The live status line of a running campaign: trials by state, the best one so far, time left."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from core.campaign.trials import Standing


class CampaignProgress:
    """Context manager; `update` is called whenever a trial begins or ends."""

    def __init__(self, console: Console, objective: str, limit: Callable[[], int]) -> None:
        """
        Args:
            limit: number of trials after which the campaign ends, as of now.
        """
        self._console = console
        self._objective = objective
        self._limit = limit
        self._started = time.monotonic()
        self._done_at_start: int | None = None
        self._standing: Standing | None = None
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=2, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def update(self, standing: Standing) -> None:
        """Update the live line, and print a permanent one for every trial that ended."""
        before, self._standing = self._standing, standing
        if self._done_at_start is None:
            self._done_at_start = standing.ended
            self._started = time.monotonic()
        if before is not None and standing.ended > before.ended:
            self._console.print(self._line(standing), highlight=False, soft_wrap=True)

    def _render(self) -> Text:
        if self._standing is None:
            return Text("starting")
        return Text(f"{self._line(self._standing)}, {self._time_left(self._standing)}")

    def _line(self, standing: Standing) -> str:
        parts = [f"{standing.ended}/{self._limit()} trials: {standing.complete} complete"]
        parts += [f"{standing.running} running", f"{standing.pruned} pruned", f"{standing.failed} failed"]
        if standing.best is not None:
            number, value = standing.best
            gain = "" if standing.gain is None else f", {standing.gain:+.4f}"
            parts.append(f"best {self._objective} {value:.4f} (trial {number}{gain})")
        return ", ".join(parts)

    def _time_left(self, standing: Standing) -> str:
        done = standing.ended - (self._done_at_start or 0)
        elapsed = time.monotonic() - self._started
        if done == 0:
            return f"{elapsed:.0f} s so far"
        left = elapsed / done * max(0, self._limit() - standing.ended)
        return f"{elapsed:.0f} s so far, about {left:.0f} s left"
