"""What every command does with broken input: one line that says what is wrong, exit code 2, and nothing written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from core.config import TrainConfig
from core.sections import dump_yaml
from tests.commands import CommandLine

Change = Callable[[Any], object]
"""Changes parsed content in place."""


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for locks, which hold nothing, and remembered digests."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    files = (path for path in files if path.parent.name != ".digests")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def assert_refused(crossmodal: CommandLine, folder: Path, expected: str, *arguments: object) -> None:
    """Run a command that must refuse its input.

    Args:
        folder: everything that the command could write to; must stay as it is.
        expected: what the line must contain.
    """
    before = contents(folder)
    outcome = crossmodal(*arguments)
    assert outcome.code == 2, (outcome.out, outcome.err)
    line = outcome.err.strip()
    assert line.startswith("error: "), line
    assert len(line.splitlines()) == 1, line
    assert expected in line
    assert "Traceback" not in outcome.out
    after = contents(folder)
    assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} == set()


def write_config(folder: Path, config: TrainConfig, change: Change = lambda content: None) -> Path:
    """Write a training configuration, changed after it was validated."""
    content = yaml.safe_load(dump_yaml(config))
    change(content)
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(content))
    return path
