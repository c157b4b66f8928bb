"""Enforces the rules of docs/architecture.md and CONTRIBUTING.md by reading the source."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(
    path.relative_to(ROOT) for package in ("core", "search", "analysis") for path in ROOT.glob(f"{package}/**/*.py")
)
NAMED = [path for path in MODULES if path.name != "__init__.py"]
DRAWERS = {"utils", "util", "common", "helpers", "misc", "manager"}

FORBIDDEN = {
    "core": {"ray", "pandas", "plotly", "jinja2", "search", "analysis"},
    "analysis": {"torch", "ray", "optuna", "wandb", "transformers", "search"},
    "search": set(),
}
ONLY_IN = {
    "transformers": {"core/backbone/internvl.py", "core/backbone/tiny.py"},
    "typer": {
        "core/terminal/cli.py",
        "core/terminal/help_pages.py",
        "search/data_cli.py",
        "analysis/cli.py",
        "search/cli.py",
        "search/external_cli.py",
        "search/features_cli.py",
        "search/model_cli.py",
        "search/serve_cli.py",
        "search/setup_cli.py",
        "search/winner_cli.py",
    },
    "wandb": {"core/tracking.py"},
    "mlflow": {"core/mlflow_tracking.py"},
    "optuna_dashboard": {"search/dashboard.py"},
    "fastapi": {"search/serving/app.py"},
    "uvicorn": {"search/serving/server.py"},
}
ONLY_IN_CORE = {"optuna": {"core/campaign/study.py"}}

SUB_PACKAGES = (
    "files", "data", "formats", "backbone", "features", "model", "evaluation", "training", "inference", "campaign",
    "terminal",
)  # fmt: skip
"""Of core: each imports itself, those before it, and the modules of core itself."""
OWN_MODULES_OF = {"files": {"errors"}}
"""Modules of core itself that a sub-package may import, if not all."""


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Full names of the modules that a file imports."""
    tree = ast.parse((ROOT / path).read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found.add(node.module or "")
    return found


def packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", NAMED, ids=str)
def test_a_module_imports_only_what_its_place_allows(path: Path) -> None:
    used = packages(path)
    assert not used & FORBIDDEN[path.parts[0]]
    for package, places in ONLY_IN.items():
        assert package not in used or str(path) in places
    if path.parts[0] == "core":
        for package, places in ONLY_IN_CORE.items():
            assert package not in used or str(path) in places


@pytest.mark.parametrize("path", [path for path in NAMED if path.parts[0] == "core"], ids=str)
def test_sub_packages_of_core_have_one_direction(path: Path) -> None:
    imported = {tuple(name.split(".")[1:]) for name in imports(path) if name.startswith("core.")}
    used = {parts[0] for parts in imported}
    if len(path.parts) == 2:  # a module in core itself
        assert not used & set(SUB_PACKAGES) - {"files"}
        return
    package = path.parts[1]
    assert not used & set(SUB_PACKAGES[SUB_PACKAGES.index(package) + 1 :])
    assert used - set(SUB_PACKAGES) <= OWN_MODULES_OF.get(package, used)


def test_analysis_reads_of_core_only_what_is_free_of_torch() -> None:
    allowed = {
        "core.campaign.campaign",
        "core.campaign.constraints",
        "core.campaign.dimensions",
        "core.campaign.goals",
        "core.campaign.space",
        "core.campaign.study",
        "core.campaign.trials",
        "core.bootstrap",
        "core.config",
        "core.data.images",
        "core.sections",
        "core.files.atomic",
        "core.files.folders",
        "core.files.json_files",
        "core.errors",
        "core.files.ownership",
        "core.records",
        "core.samples",
        "core.files.yaml_files",
    }
    for path in NAMED:
        if path.parts[0] == "analysis" and path.name != "cli.py":
            assert {name for name in imports(path) if name.startswith("core")} <= allowed, path


def test_commands_import_what_they_run_only_when_called() -> None:
    allowed = {
        "core.terminal.cli",
        "search.data_cli",
        "core.terminal.console",
        "core.terminal.help_pages",
        "analysis.cli",
        "search.external_cli",
        "search.features_cli",
        "search.model_cli",
        "search.serve_cli",
        "search.setup_cli",
        "search.winner_cli",
        "core.errors",
    }
    for path in NAMED:
        if path.name == "cli.py":
            ours = {name for name in imports(path, top_level_only=True) if name.split(".")[0] in FORBIDDEN}
            assert ours <= allowed, path


@pytest.mark.parametrize("path", NAMED, ids=str)
def test_a_module_is_a_concept_of_readable_size_with_a_docstring(path: Path) -> None:
    assert path.stem not in DRAWERS
    source = (ROOT / path).read_text()
    assert len(source.splitlines()) <= 400
    assert ast.get_docstring(ast.parse(source))


RUNS_WHAT_IT_READS = {"cloudpickle", "dill", "joblib", "shelve", "marshal", "eval", "exec"}


@pytest.mark.parametrize("path", NAMED, ids=str)
def test_nothing_that_was_read_is_run(path: Path) -> None:
    """Tensors are loaded with weights_only=True or as safetensors, arrays without objects, YAML as plain data."""
    tree = ast.parse((ROOT / path).read_text())
    assert not packages(path) & RUNS_WHAT_IT_READS
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name, options = ast.unparse(call.func), {option.arg: ast.unparse(option.value) for option in call.keywords}
        assert name not in RUNS_WHAT_IT_READS
        assert not name.startswith("pickle.")  # its exception is what torch raises
        assert not name.endswith("torch.load") or options.get("weights_only") == "True"
        assert options.get("allow_pickle", "False") == "False"
        assert name != "yaml.load"  # core.files.yaml_files makes plain data itself


@pytest.mark.parametrize("path", NAMED, ids=str)
def test_a_module_has_its_tests_and_imports(path: Path) -> None:
    assert (ROOT / "tests" / path.parent / f"test_{path.name}").exists()
    importlib.import_module(".".join(path.with_suffix("").parts))


@pytest.mark.parametrize(
    ("module", "never"),
    [
        ("core.features.inputs", ["torch", "transformers", "huggingface_hub"]),
        ("search.campaign", ["torch", "ray", "wandb", "pandas", "transformers"]),
        ("search.session.course", ["torch", "transformers"]),
        ("search.session.trainable", ["transformers", "wandb", "plotly"]),
        ("core.training.train", ["transformers", "ray", "optuna", "wandb"]),
        ("search.cli", ["torch", "ray", "optuna", "wandb", "transformers", "pandas"]),
        ("analysis.leaderboard", ["torch", "ray", "optuna", "transformers"]),
        ("analysis.board_formats", ["torch", "ray", "plotly", "sqlalchemy", "scipy", "transformers"]),
    ],
)
def test_importing_a_module_stays_light(module: str, never: list[str]) -> None:
    code = f"import sys, {module}; print([name for name in {never} if name in sys.modules])"
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert outcome.stdout.strip() == "[]"


MOST_LINES, MOST_PARAMETERS = 45, 5


@pytest.mark.parametrize("path", NAMED, ids=str)
def test_functions_are_short_and_take_few_arguments(path: Path) -> None:
    """The command line's functions take as many parameters as a command has options."""
    tree = ast.parse((ROOT / path).read_text())
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        body = function.body[1:] if ast.get_docstring(function) else function.body
        assert not body or body[-1].end_lineno - body[0].lineno < MOST_LINES, function.name  # type: ignore[operator]
        names = [
            argument.arg for argument in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
        ]
        if "cli" not in path.stem:
            assert len([name for name in names if name not in ("self", "cls")]) <= MOST_PARAMETERS, function.name
