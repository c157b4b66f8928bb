"""As for a user: the wheel is installed, and used in an empty folder."""

import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from core import __version__
from tests.commands import LAST_RESORT_S, environment
from tests.end_to_end.test_dependencies_only import python_without_us

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = ("core", "search", "analysis", "configs", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")
INSTALLED = "not in this folder, so the installed one is read"
FIVE_LINES = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "models.md").read_text(), flags=re.DOTALL)[0]
"""The first example of the documentation, as it stands there."""


def succeed(command: list[object], *, cwd: Path) -> str:
    kept = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=kept, capture_output=True, text=True, timeout=LAST_RESORT_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build_wheel(folder: Path) -> Path:
    """Built from a copy of the sources, so that these stay clean."""
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    succeed([*pip, "--wheel-dir", folder, source], cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment with the wheel and all dependencies, without this checkout."""
    python = python_without_us(tmp_path_factory.mktemp("installed") / "venv")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet"]
    succeed([*pip, wheel], cwd=wheel.parent)
    return python.parent


@pytest.fixture
def crossmodal(installed: Path, tmp_path: Path) -> Callable[..., str]:
    """The installed command, in a folder that is empty at first."""

    def run(*arguments: object) -> str:
        return succeed([installed / "crossmodal", *arguments], cwd=tmp_path)

    return run


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    tracked = (path for name in SOURCES for path in (ROOT / name).rglob("*") if path.is_file())
    ours = {str(path.relative_to(ROOT)) for path in tracked if "__pycache__" not in path.parts}
    with zipfile.ZipFile(wheel) as content:
        held = {name for name in content.namelist() if ".dist-info/" not in name}
    assert held == ours


@pytest.mark.slow
def test_the_installed_command_works_in_an_empty_folder(
    installed: Path, crossmodal: Callable[..., str], tmp_path: Path
) -> None:
    """From data to a model that answers; the commands of the README run in test_documented_commands.py."""
    where = succeed([installed / "python", "-c", "import core; print(core.__file__)"], cwd=tmp_path)
    assert Path(where).is_relative_to(installed.parent)
    assert crossmodal("--version") == f"crossmodal-search {__version__}\n"
    crossmodal("data", "synth", "output/demo-data", "--buildings", "12", "--images-per-building", "3")
    campaign, single = "configs/campaigns/demo.yaml", "configs/demo/internvl3_bbox.yaml"
    assert f"{campaign}: {INSTALLED}" in crossmodal("plan", campaign)
    assert f"{single}: {INSTALLED}" in crossmodal("train", "--config", single, "--output_dir", "output/demo/final")
    found = succeed([installed / "python", "-c", FIVE_LINES], cwd=tmp_path).splitlines()
    assert len(found) == 5
    assert all(re.fullmatch(r"output/demo-data/images/test/\S+ -?\d\.\S+ (\(.+\)|None) .+", line) for line in found)
    assert {path.name for path in tmp_path.iterdir()} == {"output"}


@pytest.mark.slow
def test_the_default_of_train_two_stage_is_the_installed_configuration(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [installed / "crossmodal", "train-two-stage", "--output_dir", "two"],
        cwd=tmp_path, env=environment({"PYTHONPATH": ""}), capture_output=True, text=True, timeout=LAST_RESORT_S,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"configs/two_stage.yaml: {INSTALLED}" in done.stdout
    assert str(tmp_path / "data" / "GeoText1652") in done.stderr
