"""As on cluster nodes: dependencies are installed, this project is not, and its code runs from a copy."""

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from core import __version__
from core.files.folders import CampaignFolder
from tests.commands import environment
from tests.conftest import write_campaign

ROOT = Path(__file__).resolve().parent.parent.parent
OURS = ("crossmodal_search", "__editable__")

CAMPAIGN = """
name: two
train: train.yaml
limits: {trials: 2}
pruner: {kind: none}
space:
  optimizer.learning_rate: {log: [1.0e-4, 1.0e-2]}
"""


def python_without_us(folder: Path) -> Path:
    """A virtual environment that sees every package of this one but ours."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    links = folder / "dependencies"
    links.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(OURS):
            (links / entry.name).symlink_to(entry)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(f"{links}\n")
    return folder / "bin" / "python"


@pytest.mark.slow
def test_a_campaign_runs_where_only_the_dependencies_are_installed(demo: Path, tmp_path: Path) -> None:
    python = python_without_us(tmp_path / "venv")
    code = tmp_path / "code"
    for package in ("core", "search", "analysis"):
        shutil.copytree(ROOT / package, code / package, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["git", "init", "-q", tmp_path], check=True)  # inside a foreign repository
    look = "from importlib.metadata import version; version('crossmodal-search')"
    kept = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    installed = subprocess.run([python, "-c", look], cwd=tmp_path, env=kept, capture_output=True, text=True)
    assert "PackageNotFoundError" in installed.stderr

    campaign = write_campaign(tmp_path / "work", demo, CAMPAIGN)
    outcome = subprocess.run(
        [python, "-m", "search.cli", "search", campaign, "--output-dir", tmp_path / "two"],
        cwd=code,
        env=kept,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert "2 trials complete, 0 pruned, 0 failed" in outcome.stdout
    receipt = json.loads(CampaignFolder(tmp_path / "two").trial(0).receipt.read_text())
    assert receipt["versions"]["crossmodal-search"] == __version__
    assert receipt["git_commit"] is None
