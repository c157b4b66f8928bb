"""Every command in the documents runs, in the order in which a document gives them.

In a workspace where their names exist: `data/GeoText1652` is a small synthetic data set, and the hub's cache holds a
tiny InternVL under the name of the real one. What would take hours is shortened by options at the end of a command,
which replace earlier ones; what waits for a browser, a cluster or a network is only parsed, and run by other tests.
"""

import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from typer._click.exceptions import MissingParameter
from typer.core import TyperGroup
from typer.main import get_command

from core.files.folders import CampaignFolder
from search.cli import app, one_flag_a_value
from tests.commands import CommandLine, run

ROOT = Path(__file__).parents[2]
DOCUMENTS = [Path("README.md"), *sorted(path.relative_to(ROOT) for path in ROOT.glob("docs/*.md"))]
BLOCK = r"^```[^\n]*\n(?P<block>.*?)^```$"
SPAN = r"(?<!`)`(?P<span>crossmodal [^`]+)`"
PLACES = {
    "CAMPAIGN.yaml": "campaign.yaml", "DIR": "output/small", "N": "1", "C": "train.yaml", "O": "output/out",
    "A": "ray://127.0.0.1:1",
}  # fmt: skip
"""What stands in the workspace for the names of the documents."""
SHORTENED = {
    "search": ["--trials", "2"],
    "confirm": ["--top", "1", "--seeds", "2"],
    "data synth": ["--buildings", "12", "--images-per-building", "2"],
}
ELSEWHERE = {
    "dashboard": "serves until Ctrl-C",
    "--address": "joins a cluster",
    "geotext": "takes the official test splits alone",
    "configs/campaigns/geotext1652.yaml": "reads layers that the tiny backbone lacks",
    "mlflow": "needs a package that is not in the development setup",
}
"""Word of a command → why it is only parsed here."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command as a document gives it."""

    words: tuple[str, ...]
    is_span: bool
    """Whether it stands within a sentence, and so may be a fragment."""


def documented(document: Path) -> Iterator[Command]:
    text = (ROOT / document).read_text()
    for found in re.finditer(f"{BLOCK}|{SPAN}", text, re.MULTILINE | re.DOTALL):
        if found["span"]:
            yield Command(tuple(shlex.split(found["span"])), is_span=True)
            continue
        for line in re.sub(r"\\\n\s*", " ", found["block"]).splitlines():
            if line.startswith("crossmodal "):
                yield Command(tuple(shlex.split(line.split("  #")[0].split(" > ")[0])), is_span=False)


def in_workspace(word: str) -> str:
    """`DIR/trials/0001` → `output/small/trials/0001`."""
    first, slash, rest = word.partition("/")
    return PLACES.get(first.removesuffix("…"), first) + slash + rest


def arguments_of(command: Command) -> list[str] | None:
    """What a command is called with; None for the mention of a command.

    Raises:
        typer._click.exceptions.UsageError: the command line does not understand it.
    """
    words = [in_workspace(word) for word in command.words[1:]]
    called = get_command(app)
    names: list[str] = []
    while isinstance(called, TyperGroup) and len(words) > len(names) and not words[0].startswith("-"):
        names.append(words[len(names)])
        called = called.commands[names[-1]]
    if isinstance(called, TyperGroup):
        return words if words[0].startswith("-") else None
    try:
        called.make_context(" ".join(names), one_flag_a_value(words[len(names) :]))
    except MissingParameter:
        if command.is_span:
            return None
        raise
    except typer.Exit:  # --help
        pass
    return [*words, *SHORTENED.get(" ".join(names), [])]


COMMANDS = [command for document in DOCUMENTS for command in documented(document)]


@pytest.mark.parametrize("command", dict.fromkeys(COMMANDS), ids=lambda command: " ".join(command.words))
def test_a_documented_command_is_understood(
    command: Command, finished_campaign: CampaignFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments_of(command)


@pytest.fixture
def workspace(finished_campaign: CampaignFolder, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the names of the documents exist."""
    shutil.copytree(finished_campaign.root, tmp_path / "output" / "small")
    shutil.copytree(demo, tmp_path / "output" / "demo-data", ignore=shutil.ignore_patterns("features"))
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    data = tmp_path / "data" / "GeoText1652"
    data.parent.mkdir()
    data.symlink_to(tmp_path / "output" / "demo-data")
    shutil.copy(data / "test.json", data / "test_951_version.json")
    for name in ("train.yaml", "campaign.yaml"):
        shutil.copy(finished_campaign.root.parent / name, tmp_path)
    snapshot = tmp_path / "hub" / "models--OpenGVLab--InternVL3-1B-hf" / "snapshots" / ("0" * 40)
    shutil.copytree(demo / "tiny-internvl", snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("document", [d for d in DOCUMENTS if any(map(arguments_of, documented(d)))], ids=str)
def test_the_commands_of_a_document_run_one_after_the_other(
    crossmodal: CommandLine, workspace: Path, document: Path
) -> None:
    for command in documented(document):
        arguments = arguments_of(command)
        if arguments is None or any(word in arguments for word in ELSEWHERE):
            continue
        uses_ray = arguments[0] in ("search", "confirm")  # and wants a process of its own
        outcome = run(*arguments, cwd=workspace) if uses_ray else crossmodal(*arguments)
        assert outcome.code == 0, (" ".join(command.words), outcome.err)
