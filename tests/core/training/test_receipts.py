import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from core import __version__
from core.training.receipts import CHECKOUT, git_commit, module_version, versions


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def code_in(folder: Path) -> Path:
    """A copy of our packages; only their names matter here."""
    for package in ("core/training", "search", "analysis"):
        (folder / package).mkdir(parents=True)
        (folder / package / "receipts.py").write_text("version = 1\n")
    return folder.resolve()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with one commit; used once per test, since a process queries git once."""
    folder = code_in(tmp_path / "checkout")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def test_the_version_is_the_one_that_is_published() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert versions()["crossmodal-search"] == __version__ == project["version"]


def test_a_version_is_that_of_the_imported_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "never_installed.py").write_text("__version__ = '7.1'\n")
    (tmp_path / "without_version.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert [module_version(name) for name in ("never_installed", "without_version")] == ["7.1", "unknown"]
    assert module_version("torch") == import_module("torch").__version__


def test_a_clean_checkout_has_its_commit(checkout: Path) -> None:
    (checkout / "results").mkdir()
    (checkout / "results" / "log.txt").write_text("not code")
    assert git_commit(checkout) == git(checkout, "rev-parse", "HEAD")


@pytest.mark.parametrize("change", ["edited", "deleted", "staged", "new module", "renamed"])
def test_a_changed_checkout_is_dirty(checkout: Path, change: str) -> None:
    module = checkout / "search" / "receipts.py"
    match change:
        case "edited":
            module.write_text("version = 2\n")
        case "deleted":
            module.unlink()
        case "staged":
            module.write_text("version = 2\n")
            git(checkout, "add", ".")
        case "new module":
            (checkout / "core" / "née v2.py").write_text("")
        case "renamed":
            git(checkout, "mv", "search/receipts.py", "search/other.py")
    assert git_commit(checkout) == git(checkout, "rev-parse", "HEAD") + "-dirty"


@pytest.mark.parametrize("place", ["above", "above, ours ignored", "same folder, not tracked", "without a commit"])
def test_a_foreign_repository_gives_no_commit(tmp_path: Path, place: str) -> None:
    top = tmp_path / "theirs"
    code = code_in(top if place.startswith(("same", "without")) else top / "venv" / "site-packages")
    git(top, "init", "-q")
    (top / "thesis.tex").write_text("theirs")
    if place == "above, ours ignored":
        (top / ".gitignore").write_text("venv/\n")
    if place != "without a commit":
        git(top, "add", "thesis.tex" if place.startswith("same") else ".")
        git(top, "commit", "-q", "-m", "theirs")
    if place == "above":
        (code / ".git").mkdir()  # an empty one, which git looks through
    assert git_commit(code) is None


def test_no_repository_and_no_git_tell_nothing(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert git_commit(code_in(tmp_path / "bare")) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit(checkout) is None


@pytest.mark.parametrize("answer", ["exit 128", "exec sleep 100", "echo gibberish", "printf '\\377\\n'"])
def test_a_git_that_fails_hangs_or_prints_garbage_gives_no_commit(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\n{answer}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:/usr/bin:/bin")
    monkeypatch.setattr("core.training.receipts.GIT_WITHIN_S", 0.5)
    assert git_commit(checkout) is None


def test_variables_of_git_do_not_mislead(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    git(other, "commit", "-q", "--allow-empty", "-m", "theirs")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / "index"))
    assert git_commit(checkout) == commit


def test_a_worktree_is_a_checkout_and_a_repository_is_not_written_to(checkout: Path, tmp_path: Path) -> None:
    git(checkout, "worktree", "add", "-q", str(tmp_path / "tree"))
    index = (checkout / ".git" / "index").read_bytes()
    assert git_commit((tmp_path / "tree").resolve()) == git(checkout, "rev-parse", "HEAD") == git_commit(checkout)
    assert (checkout / ".git" / "index").read_bytes() == index


@pytest.mark.slow
def test_receipts_need_no_distribution_of_ours(tmp_path: Path) -> None:
    """`importlib.metadata` finds nothing, as if only the dependencies were installed."""
    for package in ("core", "search", "analysis"):
        shutil.copytree(CHECKOUT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import importlib.metadata as m\n"
        "def gone(name): raise m.PackageNotFoundError(name)\n"
        "m.version = m.distribution = gone\n"
        "from core.training.receipts import CHECKOUT, git_commit, versions\n"
        "from search.cluster.preflight import versions as compared\n"
        "print(versions()['crossmodal-search'], git_commit(CHECKOUT), sorted(compared()))"
    )
    outcome = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert outcome.stdout.strip() == (
        f"{__version__} None ['numpy', 'pyarrow', 'pydantic', 'python', 'ray', 'torch']"
    ), outcome.stderr
