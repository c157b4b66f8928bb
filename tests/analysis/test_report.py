import json
from pathlib import Path

import pandas as pd

from analysis import figures
from analysis.report import write_table


def test_a_table_is_written_four_ways(tmp_path: Path) -> None:
    table = pd.DataFrame({"metric": ["<b>t2i</b>", "epochs"], "value": [0.123456, 8.0], "low": [0.1, None]})
    curves = pd.DataFrame({"label": ["a"], "epoch": [0], "recall_mean": [0.5]})
    write_table(tmp_path, "t", table, title="A & B", notes=["note"], figures=[figures.learning_curves(curves)])
    assert pd.read_csv(tmp_path / "t.csv")["value"][0] == 0.123456
    assert json.loads((tmp_path / "t.json").read_text())[1]["low"] is None
    assert "| epochs | 8 | – |" in (tmp_path / "t.md").read_text()
    page = (tmp_path / "t.html").read_text()
    assert "&lt;b&gt;t2i" in page
    assert "A &amp; B" in page
    assert "Plotly.newPlot" in page
    assert "https://cdn" not in page.split("</script>")[-1]
