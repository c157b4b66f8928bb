"""Messages name commands and options that exist."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from search.cli import app, one_flag_a_value

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for package in ("core", "search", "analysis") for path in ROOT.glob(f"{package}/**/*.py"))
COMMAND = re.compile(r"crossmodal ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?")
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
WORDS_AFTER = {"wrote", "did"}
"""In sentences about the program."""
OF_GIT = {"--show-toplevel", "--error-unmatch", "--no-optional-locks", "--porcelain"}
"""Options of the one other program that is run."""


def commands() -> dict[str, TyperCommand | TyperGroup]:
    """`train`, `features`, `features extract` … by name."""
    root = get_command(app)
    assert isinstance(root, TyperGroup)
    found: dict[str, TyperCommand | TyperGroup] = {}
    for name, command in root.commands.items():
        assert isinstance(command, TyperCommand | TyperGroup)
        found[name] = command
        found |= {f"{name} {sub}": below for sub, below in getattr(command, "commands", {}).items()}
    return found


def options() -> set[str]:
    every = [get_command(app), *commands().values()]
    return {option for command in every for parameter in command.params for option in parameter.opts}


def texts(path: Path) -> Iterator[str]:
    """Every string in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_message_names_only_commands_and_options_that_exist(path: Path) -> None:
    known = commands()
    for text in texts(path):
        for first, second in COMMAND.findall(text):
            if first in WORDS_AFTER:
                continue
            assert first in known, text
            if getattr(known[first], "commands", None):
                assert f"{first} {second}" in known, text
        for option in OPTION.findall(text):
            assert option in options() | OF_GIT, text


@pytest.mark.parametrize("name", ["", *commands()])
def test_every_help_ends_with_an_example_that_the_command_understands(name: str) -> None:
    command = commands().get(name, get_command(app))
    example = shlex.split((command.epilog or "").removeprefix("Example: "))
    words = name.split()
    assert example[: 1 + len(words)] == ["crossmodal", *words]
    while sub_commands := getattr(command, "commands", None):
        command = sub_commands[example[1 + len(words)]]
        words.append(str(command.name))
    command.make_context(name, one_flag_a_value(example[1 + len(words) :]))
