"""Everything that the documents name exists."""

import re
from pathlib import Path

import pytest

from tests.test_messages import commands

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(path.relative_to(ROOT) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))
PYTHON_FILE = re.compile(r"`((?:[\w.]+/)*[\w]+\.py)(?:::(\w+)(…?))?`")
METHODOLOGY = {
    "internvl3_bbox.py", "train_two_stage.py", "eval_compare_baselines.py", "benchmark_evaluation.py",
    "analyze_training_efficiency.py",
}  # fmt: skip
"""Scripts of the original, with which documents compare ours."""


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_module_and_test_that_a_document_names_exists(document: Path) -> None:
    files = [path.relative_to(ROOT) for path in ROOT.glob("[a-z]*/**/*.py")]
    for name, test, shortened in PYTHON_FILE.findall((ROOT / document).read_text()):
        if name in METHODOLOGY or "<" in name:
            continue
        named = [path for path in files if f"/{path}".endswith(f"/{name}")]
        assert named, f"{document} names {name}"
        if test:
            definition = f"def {test}" if shortened else f"def {test}("
            assert any(definition in (ROOT / path).read_text() for path in named), f"{document} names {test}"


def test_the_page_of_commands_lists_them_all() -> None:
    rows = re.findall(r"^\| `([a-z -]+)` \|", (ROOT / "docs" / "commands.md").read_text(), re.MULTILINE)
    groups = {name.split()[0] for name in commands() if " " in name}
    assert sorted(rows) == sorted(set(commands()) - groups)
