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

import numpy as np
import pytest
import typer
from typer._click.exceptions import MissingParameter
from typer.core import TyperGroup
from typer.main import get_command

from core.files.folders import CampaignFolder
from core.files.json_files import read_json, write_json
from search.cli import app, one_flag_a_value
from tests.commands import CommandLine, run

ROOT = Path(__file__).parents[2]
DOCUMENTS = [Path("README.md"), *sorted(path.relative_to(ROOT) for path in ROOT.glob("docs/*.md"))]
BLOCK = r"^```[^\n]*\n(?P<block>.*?)^```$"
SPAN = r"(?<!`)`(?P<span>crossmodal [^`]+)`"
PLACES = {
    "CAMPAIGN.yaml": "campaign.yaml", "DIR": "output/small", "N": "1", "C": "train.yaml", "O": "output/out",
    "A": "ray://127.0.0.1:1", "SOURCE": "dataset_rsicd.json", "OUT": "output/imported", "COMMAND": "search",
}  # fmt: skip
"""What stands in the workspace for the names of the documents."""
SHORTENED = {
    "search": ["--trials", "2"],
    "confirm": ["--top", "1", "--seeds", "2"],
    "data synth": ["--buildings", "12", "--images-per-building", "2"],
}
ELSEWHERE = {
    "dashboard": "serves until Ctrl-C",
    "serve": "serves until Ctrl-C",
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
                yield Command(tuple(shlex.split(re.split(r" [#>|] ", line)[0])), is_span=False)


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


@pytest.fixture(scope="module")
def retrained(finished_campaign: CampaignFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign with a final model."""
    folder = tmp_path_factory.mktemp("retrained") / "small"
    shutil.copytree(finished_campaign.root, folder)
    assert run("retrain", folder, "--output-dir", folder / "final", cwd=folder.parent).code == 0
    return folder


@pytest.fixture
def workspace(
    finished_campaign: CampaignFolder, retrained: Path, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder in which the names of the documents exist."""
    shutil.copytree(finished_campaign.root, tmp_path / "output" / "small")
    shutil.copytree(retrained, tmp_path / "output" / "demo")
    shutil.copytree(demo, tmp_path / "output" / "demo-data", ignore=shutil.ignore_patterns("features"))
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for name in ("train.yaml", "campaign.yaml"):
        shutil.copy(finished_campaign.root.parent / name, tmp_path)
    drawn = tmp_path / "output" / "demo-data"
    (tmp_path / "data").mkdir()
    links: dict[str, Path | str] = {
        "data/GeoText1652": drawn,
        "RSICD_images": drawn / "images",
    }
    links |= {name: drawn / name for name in ("train.json", "test.json", "images")}
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    shutil.copy(drawn / "test.json", drawn / "test_951_version.json")
    write_karpathy(tmp_path / "dataset_rsicd.json", drawn)
    write_vectors(tmp_path, drawn)
    keep_in_cache(tmp_path / "hub", demo / "tiny-internvl")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HOME", str(tmp_path))  # where completion is installed
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("bash", "/bin/bash"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_karpathy(file: Path, drawn: Path) -> None:
    """The drawn data set as a file of another format."""
    texts: dict[tuple[str, str], list[str]] = {}
    for split in ("train", "test"):
        for entry in read_json(drawn / f"{split}.json"):
            captions = entry["caption"] if isinstance(entry["caption"], list) else [entry["caption"]]
            texts.setdefault((entry["image"], split), []).extend(captions)
    images = [
        {"filename": name, "split": split, "sentences": [{"raw": text} for text in own]}
        for (name, split), own in texts.items()
    ]
    write_json(file, {"images": images})


def write_vectors(folder: Path, drawn: Path) -> None:
    """Vectors of every drawn image and text, as another encoder would leave them."""
    entries = [entry for split in ("train", "test") for entry in read_json(drawn / f"{split}.json")]
    images = sorted({entry["image"] for entry in entries})
    listed = (entry["caption"] if isinstance(entry["caption"], list) else [entry["caption"]] for entry in entries)
    sentences = (entry.get("sentences", []) for entry in entries)
    texts = sorted({text for own in (*listed, *sentences) for text in own if text})
    generator = np.random.default_rng(0)
    np.savez(folder / "images.npz", image=images, clip=generator.standard_normal((len(images), 8)).astype(np.float32))
    np.savez(folder / "texts.npz", text=texts, minilm=generator.standard_normal((len(texts), 8)).astype(np.float32))


def keep_in_cache(cache: Path, backbone: Path) -> None:
    """Put a backbone into a cache of the hub under the name of the real one."""
    snapshot = cache / "models--OpenGVLab--InternVL3-1B-hf" / "snapshots" / ("0" * 40)
    shutil.copytree(backbone, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)


def is_run_elsewhere(document: Path, arguments: list[str]) -> bool:
    """Imports of docs/data.md run on the examples of that page in tests/search/test_data_cli.py."""
    is_example = document.name == "data.md" and arguments[:2] == ["data", "import"]
    return is_example or any(word in arguments for word in ELSEWHERE)


@pytest.mark.slow
@pytest.mark.parametrize("document", [d for d in DOCUMENTS if any(map(arguments_of, documented(d)))], ids=str)
def test_the_commands_of_a_document_run_one_after_the_other(
    crossmodal: CommandLine, workspace: Path, document: Path
) -> None:
    for command in documented(document):
        arguments = arguments_of(command)
        if arguments is None or is_run_elsewhere(document, arguments):
            continue
        uses_ray = arguments[0] in ("search", "confirm")  # and wants a process of its own
        outcome = run(*arguments, cwd=workspace) if uses_ray else crossmodal(*arguments)
        assert outcome.code == 0, (" ".join(command.words), outcome.err)
