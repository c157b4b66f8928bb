import json
import math
from pathlib import Path

import pytest
from rich.table import Table

from core.terminal.console import as_lines, notes_on_stderr, print_json, progress_bar, say


def test_lines_break_between_cells_and_stay_within_the_width() -> None:
    table = Table("metric", "model", "chance")
    table.add_row("t2i R@1", "12.3%", "1.0%")
    table.add_row("i2t R@1", "", "1.0%")
    assert list(as_lines(table, 28)) == [
        "metric t2i R@1, model 12.3%,",
        " chance 1.0%",
        "metric i2t R@1, chance 1.0%",
    ]


def test_markup_takes_no_room_in_lines() -> None:
    table = Table("a", "b", caption="[bold]c[/bold] \\[d]")
    table.add_row("[bold]1[/bold]", "2")
    assert list(as_lines(table, 8)) == ["a 1, b 2", "c [d]"]


def test_json_stands_alone_on_stdout_and_notes_come_back(capsys: pytest.CaptureFixture[str]) -> None:
    with notes_on_stderr():
        say("a note")
        print_json({"path": Path("a"), "missing": math.nan, "pair": (1, "é")})
    say("a result")
    out, err = capsys.readouterr()
    assert err == "a note\n"
    assert out.endswith("a result\n")
    assert json.loads(out.removesuffix("a result\n")) == {"path": "a", "missing": None, "pair": [1, "é"]}
    assert out.isascii()


def test_a_pipe_gets_no_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar() as bar:
        bar.add_task("work", total=1, completed=1)
    assert capsys.readouterr().out == ""
