"""Pages of help on narrow terminals: each option on lines of its own, above what it does.

Typer's page has columns, which cut off the names of options where they do not fit.
"""

import shutil
import textwrap
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

WIDE = 130
"""Columns of a terminal on which the columns of every page fit."""
FORMATTER: Any = typer.Context.formatter_class
"""Of the pages below a context; typer has no public name for the class."""


class LinesFormatter(FORMATTER):  # type: ignore[misc]
    """Definitions below each other instead of in two columns."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__(width=shutil.get_terminal_size().columns)

    def write_text(self, text: str) -> None:
        """Paragraphs, broken between words only: half an option would be none."""
        indent = " " * self.current_indent
        for number, paragraph in enumerate(text.split("\n\n")):
            if number:
                self.write_paragraph()
            lines = textwrap.wrap(
                paragraph,
                self.width,
                initial_indent=indent,
                subsequent_indent=indent,
                break_on_hyphens=False,
                break_long_words=False,
            )
            self.write("".join(f"{line}\n" for line in lines))

    def write_dl(self, rows: Sequence[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        for name, text in rows:
            self.write_text(name)
            with self.indentation():
                self.write_text(text)


class LinesContext(typer.Context):
    """The context of a command whose help is printed in lines."""

    formatter_class = LinesFormatter


def fit_help(command: TyperCommand | TyperGroup) -> None:
    """Let a command and those below it print their help in lines if the terminal is narrow."""
    if shutil.get_terminal_size().columns >= WIDE:
        return
    command.rich_markup_mode = None
    command.context_class = LinesContext
    command.short_help = (command.help or "").partition("\n\n")[0]  # else it is cut off after a few words
    for below in getattr(command, "commands", {}).values():
        fit_help(below)
