"""Output of commands: lines, tables and progress bars, readable on any terminal and in a pipe.

If the terminal is too narrow for a table, its rows are printed as lines of text, with all cells.
"""

import json
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from core.files.packaged import is_installed

if TYPE_CHECKING:
    from core.records import EpochMetrics

console = Console()
UNLIMITED = 10_000
"""Columns of a terminal that is wide enough for any table."""


def is_too_wide(table: Table, console: Console) -> bool:
    """Whether a table does not fit the console with each cell on one line."""
    return Measurement.get(console, console.options.update_width(UNLIMITED), table).maximum > console.width


def as_lines(table: Table, width: int) -> Iterator[str]:
    """A table as plain lines: the title, and each row as `heading cell, heading cell`, broken only between cells.

    Args:
        width: maximum characters per line, exceeded only by a single cell.
    """
    if table.title:
        yield _plain(table.title)
    headings = [str(column.header).replace("\n", " ") if table.show_header else "" for column in table.columns]
    for row in zip(*(column.cells for column in table.columns), strict=True):
        cells = [f"{heading} {_plain(cell)}".strip() for heading, cell in zip(headings, row, strict=True) if str(cell)]
        yield from _filled(cells, width) if any(headings) else [": ".join(cells)]
    if table.caption:
        yield _plain(table.caption)


def _plain(cell: object) -> str:
    """What is printed of a cell, a title or a caption: their text without markup."""
    return Text.from_markup(str(cell)).plain


def _filled(cells: list[str], width: int) -> Iterator[str]:
    line = ""
    for number, cell in enumerate(cells, start=1):
        part = f"{cell}," if number < len(cells) else cell
        if line and len(line) + 1 + len(part) > width:
            yield line
            line = f" {part}"  # continuation lines of a row are indented
        else:
            line = f"{line} {part}" if line else part
    yield line


def say(text: str, *, style: str | None = None) -> None:
    """Print one line without wrapping it: terminals wrap by themselves, and a pipe keeps it on one line."""
    console.print(text, style=style, highlight=False, soft_wrap=True, markup=False)


def say_lines(texts: Iterable[str]) -> None:
    """Print what the user may not expect, each on a line."""
    for text in texts:
        say(text, style="yellow")


@contextmanager
def notes_on_stderr() -> Iterator[None]:
    """Lines, tables and progress bars go to stderr, so that stdout has nothing but what `print_json` writes."""
    Console.__init__(console, stderr=True)  # it detects again whether it is a terminal, and its colours
    try:
        yield
    finally:
        Console.__init__(console)


def print_json(value: Any) -> None:
    """Print a JSON value, in ASCII so that it is the same on every terminal; numbers that are not finite are null."""
    print(json.dumps(_plain_json(value), indent=2, allow_nan=False))  # noqa: T201 (stdout, wherever notes go)


def _plain_json(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {str(name): _plain_json(below) for name, below in value.items()}
        case list() | tuple():
            return [_plain_json(below) for below in value]
        case Path():
            return str(value)
        case _:
            return value


def say_if_installed(config: Path) -> Path:
    """Callback of options: print a note if a configuration is read from the installed ones; returns its path."""
    if is_installed(config):
        say(f"{config}: not in this folder, so the installed one is read")
    return config


def show(table: Table) -> None:
    """Print a table, or its rows as lines of text if the terminal is too narrow for it."""
    if is_too_wide(table, console):
        for line in as_lines(table, console.width):
            say(line)
    else:
        console.print(table)


def progress_bar() -> Progress:
    """A progress bar with description, count and remaining time; none where output is not a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def print_epoch(metrics: "EpochMetrics") -> None:
    """Print the main metrics of an epoch in one line."""
    say(
        f"epoch {metrics.epoch}  stage {metrics.stage}  loss {metrics.loss:.3f}  "
        f"t2i R@1 {metrics.t2i_r1:.1%}  i2t R@1 {metrics.i2t_r1:.1%}  recall_mean {metrics.recall_mean:.4f}  "
        f"({metrics.gallery_images} images, {metrics.gallery_texts} texts, "
        f"{metrics.train_seconds + metrics.evaluation_seconds:.1f} s)"
    )


class FeatureDisplay:
    """Prints the progress of `core.features.opening`, with a bar for each kind of input."""

    def __init__(self) -> None:
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def note(self, text: str) -> None:
        say(text)

    def warn(self, text: str) -> None:
        say(text, style="yellow")

    def progress(self, kind: str, done: int, total: int) -> None:
        if self._bars is None:
            self._bars = progress_bar()
            self._bars.start()
        if kind not in self._tasks:
            self._tasks[kind] = self._bars.add_task(kind, total=None)
        self._bars.update(self._tasks[kind], completed=done, total=total)
