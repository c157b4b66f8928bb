import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from analysis import figures
from analysis.report import Report, require_free_report, write_report
from core.errors import UserError


def test_a_table_is_written_four_ways(tmp_path: Path) -> None:
    table = pd.DataFrame({"metric": ["<b>t2i</b>", "epochs"], "value": [0.123456, 8.0], "low": [0.1, None]})
    curves = pd.DataFrame({"label": ["a"], "epoch": [0], "recall_mean": [0.5]})
    write_report(tmp_path, "t", Report("A & B", table, ["note"], [figures.learning_curves(curves)]))
    assert pd.read_csv(tmp_path / "t.csv")["value"][0] == 0.123456
    assert json.loads((tmp_path / "t.json").read_text())[1]["low"] is None
    assert "| epochs | 8 | – |" in (tmp_path / "t.md").read_text()
    page = (tmp_path / "t.html").read_text()
    assert "&lt;b&gt;t2i" in page
    assert "A &amp; B" in page
    assert "Plotly.newPlot" in page
    assert "https://cdn" not in page.split("</script>")[-1]


@pytest.mark.parametrize("suffix", [".csv", ".json", ".md", ".html"])
def test_a_foreign_table_is_left_alone(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"t{suffix}").write_text("mine")
    writes: list[Callable[[], object]] = [
        lambda: require_free_report(tmp_path, "t"),
        lambda: write_report(tmp_path, "t", Report("T", pd.DataFrame({"a": [1]}))),
    ]
    for write in writes:
        with pytest.raises(UserError, match=f"holds t{suffix}, which crossmodal did not write"):
            write()
    assert [path.name for path in tmp_path.iterdir()] == [f"t{suffix}"]


def test_our_own_table_is_written_again_and_other_files_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("mine")
    for value in (1, 2):
        write_report(tmp_path, "t", Report("T", pd.DataFrame({"a": [value]})))
    assert "| 2 |" in (tmp_path / "t.md").read_text()
    assert (tmp_path / "notes.md").read_text() == "mine"
