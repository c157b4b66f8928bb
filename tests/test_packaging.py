"""The installed package: licence, types, and a declared dependency for every import."""

import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from core import __version__
from tests.commands import CommandLine
from tests.test_architecture import MODULES, packages

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {
    "faiss": "faiss-cpu",
    "fastapi": "fastapi",
    "mlflow": "mlflow-skinny",
    "onnxruntime": "onnxruntime",
    "optuna_dashboard": "optuna-dashboard",
    "starlette": "starlette",
    "uvicorn": "uvicorn",
}
"""Modules of extras, which need not be installed → the distribution that provides them."""
OURS = {"core", "search", "analysis", "tests", "benchmarks"}


def declared(requirements: list[str]) -> set[str]:
    return {normal(re.split(r"[\[<>=!~ ]", line)[0]) for line in requirements}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(paths: list[Path]) -> dict[str, set[str]]:
    """Each imported third-party module → the distributions that provide it."""
    distributions = packages_distributions()
    modules = {name for path in paths for name in packages(path)} - OURS - EXTRAS.keys() - sys.stdlib_module_names
    return {name: {normal(each) for each in distributions[name]} for name in modules}


def test_every_package_that_the_code_imports_is_declared() -> None:
    known = declared(PROJECT["dependencies"])
    assert {name for name, held_by in imported(MODULES).items() if not held_by & known} == set()


def test_every_extra_has_its_name_and_is_used() -> None:
    extras = {name: requirements for name, requirements in PROJECT["optional-dependencies"].items() if name != "dev"}
    by_name = {"cmaes", "scipy", "greenlet", "onnx", "onnxscript"}  # imported by name, by Optuna or by torch
    assert {each for requirements in extras.values() for each in declared(requirements)} == {*EXTRAS.values(), *by_name}
    assert EXTRAS.keys() <= {name for path in MODULES for name in packages(path)}


def test_every_package_that_tests_and_benchmarks_import_is_declared() -> None:
    known = declared(PROJECT["dependencies"]) | declared(PROJECT["optional-dependencies"]["dev"])
    paths = [path.relative_to(ROOT) for folder in ("tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    assert {name for name, held_by in imported(paths).items() if not held_by & known} == set()


@pytest.mark.parametrize("package", ["core", "search", "analysis"])
def test_a_package_declares_its_types(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()


def test_the_version_is_the_same_everywhere(crossmodal: CommandLine) -> None:
    assert PROJECT["version"] == __version__
    outcome = crossmodal("--version")
    assert (outcome.code, outcome.out) == (0, f"crossmodal-search {__version__}\n")


def test_the_licence_is_the_one_that_is_declared() -> None:
    assert PROJECT["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text()
    assert re.match(r"\s*Apache License\s+Version 2\.0, January 2004", text)
    assert "END OF TERMS AND CONDITIONS" in text
