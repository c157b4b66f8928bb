import pytest
from typer.core import TyperGroup
from typer.main import get_command

from core.terminal.help_pages import WIDE
from search.cli import app
from tests.commands import CommandLine
from tests.test_messages import commands

NARROW, COMMON = 40, 80


@pytest.mark.parametrize("columns", [NARROW, COMMON, WIDE])
def test_every_page_names_all_its_options_in_full(
    crossmodal: CommandLine, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for name, command in {"": get_command(app), **commands()}.items():
        page = crossmodal(*name.split(), "--help")
        assert page.code == 0
        assert "…" not in page.out.replace("ray://…", "")
        for parameter in command.params:
            for option in parameter.opts if parameter.param_type_name == "option" else []:
                assert option in page.out
        if isinstance(command, TyperGroup):
            assert all(below in page.out for below in command.commands)


def test_lines_of_a_narrow_page_fit_the_terminal(crossmodal: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(NARROW))
    for name in ("", *commands()):
        for line in crossmodal(*name.split(), "--help").out.splitlines():
            assert len(line) <= NARROW or " " not in line.strip() or line.startswith("Usage: "), line
