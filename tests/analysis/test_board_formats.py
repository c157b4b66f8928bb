import csv
import html.parser
import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from analysis.board_formats import SUFFIXES, to_csv, to_html, to_json, to_latex, to_markdown, write_leaderboard
from analysis.board_tables import tables
from analysis.boards import Board, read_boards
from core.campaign.study import read_trials
from core.errors import UserError
from core.files.folders import CampaignFolder
from core.files.json_files import write_json
from tests.analysis.campaigns import confirm, metrics, searched
from tests.analysis.test_boards import card, evaluation

THIRD = 1 / 3
HOSTILE = "a_b-1.x"


@pytest.fixture
def folder(tmp_path: Path) -> CampaignFolder:
    """Three trials, two of them confirmed, and a final model."""
    folder = searched(tmp_path / "made", [metrics(0.25), metrics(0.5, t2i_r1=THIRD), metrics(0.375)], name=HOSTILE)
    confirm(folder, {0: 0.3, 2: 0.6})
    write_json(folder.final_metrics, card(evaluation("image"), evaluation("building")).to_json())
    return folder


@pytest.fixture
def boards(folder: CampaignFolder) -> list[Board]:
    return read_boards([folder])


def test_csv_and_json_hold_every_digit(folder: CampaignFolder, boards: list[Board]) -> None:
    rows = json.loads(to_json(boards))
    lines = list(csv.DictReader(io.StringIO(to_csv(boards))))
    assert [row["standing"] for row in rows[:3]] == ["confirmed", "confirmed", "complete"]
    assert [row["split"] for row in rows] == ["validation"] * 3 + ["test"] * 2
    best = read_trials(folder)[1].best
    assert best is not None
    (single,) = [row for row in rows if row["number"] == 1]
    assert single["t2i_r1"] == best.t2i_r1 == THIRD
    for row, line in zip(rows, lines, strict=True):
        assert line["t2i_r1"] == repr(row["t2i_r1"])
        assert line["t2i_r1_low"] == ("" if row["t2i_r1_low"] is None else repr(row["t2i_r1_low"]))
        assert line.get("rank") in ("", str(row.get("rank")))
    assert (lines[0]["gallery_groups"], lines[0]["seeds"], lines[0]["number"]) == ("30", "4", "2")


def test_columns_of_regions_are_there_only_if_a_trial_has_any(boards: list[Board], tmp_path: Path) -> None:
    assert not re.search("box_iou|relation", to_csv(boards).splitlines()[0] + to_json(boards))
    with_boxes = read_boards([searched(tmp_path / "boxes", [metrics(0.2, box_iou=0.5), metrics(0.3)])])
    assert [row.get("box_iou") for row in json.loads(to_json([*boards, *with_boxes]))].count(0.5) == 1
    assert "relation_accuracy" not in to_csv(with_boxes)


def test_top_limits_rows_of_csv_and_json(boards: list[Board]) -> None:
    assert [row["number"] for row in json.loads(to_json(boards, 1))] == [2, None, None]
    assert to_csv(boards, 1).count("\n") == 1 + 3


def test_markdown_has_one_table_a_heading_and_bold_figures(boards: list[Board]) -> None:
    text = to_markdown(tables(boards))
    assert text.count("\n## ") + text.startswith("## ") == 2
    assert r"Trials of a\_b-1.x" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == (2 + 3) + (2 + 2)
    assert len({line.count("|") for line in rows[:5]}) == 1
    assert re.search(r"\| confirmed \| \d \| 4 \| \*\*\d+\.\d\*\* \[\d+\.\d, \d+\.\d\] \| \*\*\+", rows[2])
    assert "within the spread of seeds" in text or "outside the spread of seeds" in text


def test_latex_is_balanced_escaped_and_bold(boards: list[Board]) -> None:
    latex = to_latex(tables(boards))
    means = [f"{100 * mean:.1f}" for mean in boards[0].trials["recall_mean"]]
    assert rf"\textbf{{{means[0]}}}" in latex
    assert rf"\textbf{{{means[1]}}}" not in latex
    assert r"recall\_mean" in latex
    require_sound_latex(latex)


def require_sound_latex(latex: str) -> None:
    """Nothing special is left unescaped; braces and environments are closed; every row has the columns announced."""
    body = "\n".join(re.sub(r"(?<!\\)%.*", "", line) for line in latex.splitlines())
    assert body.isascii()
    plain = re.sub(r"\\[&%$#_{}]", "", body)
    assert not re.search(r"[$#_^~<>]", plain.replace(r"$\times$", ""))
    depth = 0
    for character in plain:
        depth += (character == "{") - (character == "}")
        assert depth >= 0
    assert depth == 0
    opened: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", body):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert opened == []
    for columns, content in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", body, re.DOTALL):
        rows = [row for row in content.split(r"\\") if "&" in row]
        assert rows
        assert all(len(re.findall(r"(?<!\\)&", row)) == len(columns) - 1 for row in rows)


def test_latex_names_protocols_where_they_differ(boards: list[Board]) -> None:
    trials, final = (_latex_headings(to_latex([table])) for table in tables(boards))
    assert "protocol" not in trials
    assert "protocol" in final


def _latex_headings(latex: str) -> list[str]:
    (line,) = re.findall(r"\\toprule\n(.*) \\\\", latex)
    return [heading.strip() for heading in line.split("&")]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(boards: list[Board], tmp_path: Path) -> None:
    document = "\\documentclass{article}\n\\usepackage{booktabs,graphicx}\n\\begin{document}\n%s\n\\end{document}\n"
    (tmp_path / "board.tex").write_text(document % to_latex(tables(boards)))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "board.tex"]
    outcome = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout[-2000:]
    assert (tmp_path / "board.pdf").exists()


class Page(html.parser.HTMLParser):
    """Tags that are open, and what a page would load."""

    VOID = frozenset(("meta", "link", "br"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.values: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.loads += [value for name, value in given.items() if name in ("src", "href", "action") and value]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "td":
            self.values.append(given.get("data-value"))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_loads_nothing_and_is_well_formed(boards: list[Board]) -> None:
    text = to_html(tables(boards))
    page = Page(text)
    assert page.open == []
    assert page.loads == ["data:,"]
    assert not re.search(r"https?:|@import|url\(|fetch|XMLHttp", text)
    assert repr(THIRD) in page.values
    assert "–" not in page.values


def test_texts_of_the_page_are_escaped(boards: list[Board]) -> None:
    (table, _) = tables(boards)
    object.__setattr__(table, "title", "<script>alert(1)</script>")
    assert "<script>alert" not in to_html([table])


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_a_click_on_a_heading_sorts_by_its_column(boards: list[Board], tmp_path: Path) -> None:
    """Numbers fall at the first click and rise at the second; texts the other way round; missing figures stay last."""
    headings = [column.heading for column in next(tables(boards)).columns]
    for heading, clicks, expected in (
        ("trial", 1, ["2", "1", "0"]),
        ("trial", 2, ["0", "1", "2"]),
        ("state", 1, ["complete", "confirmed", "confirmed"]),
        ("gain is", 2, ["–"]),
    ):
        place = headings.index(heading)
        click = f"document.querySelectorAll('th button')[{place}].click();" * clicks
        page = tmp_path / "page.html"
        page.write_text(to_html(tables(boards)).replace("</body>", f"<script>{click}</script></body>"))
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
        dumped = subprocess.run(
            [str(CHROMIUM), *options, "--dump-dom", page.as_uri()], capture_output=True, text=True, check=True
        ).stdout
        body = dumped.split("<tbody>")[1].split("</tbody>")[0]
        cells = [re.findall(r"<td[^>]*>(.*?)</td>", row)[place] for row in body.split("</tr>") if "<td" in row]
        assert cells[-len(expected) :] == expected


def test_the_files_of_a_campaign_are_written_in_every_format(folder: CampaignFolder, boards: list[Board]) -> None:
    write_leaderboard(folder, boards)
    written = {path.suffix: path.read_text() for path in folder.root.glob("leaderboard.*")}
    assert set(written) == set(SUFFIXES)
    assert written[".csv"] == to_csv(boards)
    assert all(f"{boards[0].trials['recall_mean'].max() * 100:.1f}" in written[suffix] for suffix in (".md", ".html"))


def test_a_foreign_leaderboard_is_not_overwritten(tmp_path: Path) -> None:
    folder = searched(tmp_path, [metrics(0.2)])
    (tmp_path / "leaderboard.html").write_text("mine")
    with pytest.raises(UserError, match=r"holds leaderboard\.html, which crossmodal did not write"):
        write_leaderboard(folder, read_boards([folder]))
    assert [path.name for path in tmp_path.glob("leaderboard.*")] == ["leaderboard.html"]


def test_figures_agree_between_the_formats(boards: list[Board]) -> None:
    rows: list[dict[str, Any]] = json.loads(to_json(boards))
    printed = [f"{100 * row['recall_mean']:.1f}" for row in rows[:3]]
    for text in (to_markdown(tables(boards)), to_latex(tables(boards)), to_html(tables(boards))):
        places = [text.index(f"{figure}") for figure in printed]
        assert places == sorted(places)
