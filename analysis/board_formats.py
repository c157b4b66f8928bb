"""A leaderboard as CSV, JSON, Markdown, LaTeX and HTML.

CSV and JSON hold every column in full precision, recall as a fraction; the others are for reading. Columns of boxes and
relations are left out where no trial has any.
"""

import csv
import html
import io
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from analysis.board_tables import MEASURED_ON, STANDING, Cell, Column, Table, tables
from analysis.boards import Board
from core.files.atomic import write_atomically
from core.files.folders import CampaignFolder
from core.files.ownership import claim_folder
from core.records import GROUNDING_METRICS

SUFFIXES = (".csv", ".md", ".tex", ".html")
"""Of the files in a campaign's folder."""
WHOLE = frozenset(
    ("rank", "number", "best_epoch", "epochs", "retry_of", "origin", "session", "gallery_images", "gallery_texts",
     "gallery_groups", "parameters", "seeds", "stages", "confirmed_rank", "reranked",
     "test_reads")
)  # fmt: skip
"""Columns of whole numbers, which pandas makes fractions where some are missing."""


def to_csv(boards: Sequence[Board], top: int | None = None) -> str:
    """Every column; the final models follow the trials."""
    rows = _records(boards, top)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def to_json(boards: Sequence[Board], top: int | None = None) -> str:
    """A list of objects, every column; missing values are null, and the final models follow the trials."""
    return json.dumps(_records(boards, top), indent=2, ensure_ascii=False) + "\n"


def _records(boards: Sequence[Board], top: int | None) -> list[dict[str, Any]]:
    frames = [frame for board in boards for frame in (board.best(top), board.final)]
    rows = [row for frame in frames for row in frame.to_dict("records")]
    records = [{str(name): _plain(str(name), value) for name, value in row.items()} for row in rows]
    of_regions = {name for row in records for name in row if name.startswith(GROUNDING_METRICS)}
    absent = {name for name in of_regions if all(row.get(name) is None for row in records)}
    return [{name: value for name, value in row.items() if name not in absent} for row in records]


def _plain(name: str, value: Any) -> Any:
    if pd.isna(value):
        return None
    return int(value) if name in WHOLE else value


def to_markdown(tables: Iterable[Table]) -> str:
    """A heading, the notes and the table of each."""
    return "\n".join(_markdown(table) for table in tables)


def _markdown(table: Table) -> str:
    headings = [column.heading for column in table.columns]
    aligned = ["---" if column.kind == "text" else "---:" for column in table.columns]
    lines = [headings, aligned, *([_markdown_cell(cell) for cell in row] for row in table.rows)]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = "".join(f"{_markdown_text(note)}\n\n" for note in table.notes)
    return f"## {_markdown_text(table.title)}\n\n{notes}{body}\n"


def _markdown_cell(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.is_best else _markdown_text(cell.text)
    return f"{text} {cell.interval}".rstrip()


def _markdown_text(text: str) -> str:
    return re.sub(r"([\\`*_|<>])", r"\\\1", text)


LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "×": r"$\times$",
    "<": r"\textless{}", ">": r"\textgreater{}", **{special: f"\\{special}" for special in "&%$#_{}"},
}  # fmt: skip
IN_CAPTION = (STANDING, *MEASURED_ON)
"""Columns that LaTeX leaves out where all rows are alike: the caption tells the same, and pages are narrow."""


def to_latex(tables: Iterable[Table]) -> str:
    """A table environment for each, as wide as the text; the preamble loads booktabs and graphicx."""
    return "\n".join(["% in the preamble: \\usepackage{booktabs,graphicx}", *(_latex(table) for table in tables)])


def _latex(table: Table) -> str:
    shown = [
        place
        for place, column in enumerate(table.columns)
        if column not in IN_CAPTION or len({row[place].text for row in table.rows}) > 1
    ]
    alignment = "".join("l" if table.columns[place].kind == "text" else "r" for place in shown)
    headings = [_latex_text(table.columns[place].heading) for place in shown]
    rows = [[_latex_cell(row[place]) for place in shown] for row in table.rows]
    caption = _latex_text(" ".join([f"{table.title}.", *table.notes]))
    lines = [
        r"\begin{table}", r"\centering", rf"\caption{{{caption}}}", r"\resizebox{\linewidth}{!}{%",
        rf"\begin{{tabular}}{{{alignment}}}", r"\toprule", " & ".join(headings) + r" \\", r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows), r"\bottomrule", r"\end{tabular}}", r"\end{table}", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _latex_cell(cell: Cell) -> str:
    text = _latex_text(cell.text)
    interval = rf" {{\tiny {_latex_text(cell.interval)}}}" if cell.interval else ""
    return (rf"\textbf{{{text}}}" if cell.is_best else text) + interval


def _latex_text(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)


def to_html(tables: Iterable[Table]) -> str:
    """One page that needs no network; a click on a heading sorts by that column."""
    environment = Environment(loader=PackageLoader("analysis"), autoescape=True)
    return environment.get_template("leaderboard.html").render(tables=list(tables), rows=_html_rows) + "\n"


def _html_rows(table: Table) -> Markup:
    """The rows of a body; made here, since a template takes half a second for five hundred."""
    rows = (
        "".join(_html_cell(column, cell) for column, cell in zip(table.columns, row, strict=True)) for row in table.rows
    )
    return Markup("".join(f"<tr>{row}</tr>\n" for row in rows))


def _html_cell(column: Column, cell: Cell) -> str:
    kind = ' class="text"' if column.kind == "text" else ""
    value = "" if cell.value is None else f' data-value="{html.escape(str(cell.value))}"'
    text = f"<b>{html.escape(cell.text)}</b>" if cell.is_best else html.escape(cell.text)
    return f"<td{kind}{value}>{text}{f' <small>{cell.interval}</small>' if cell.interval else ''}</td>"


def write_leaderboard(folder: CampaignFolder, boards: Sequence[Board]) -> None:
    """Write leaderboard.csv, .md, .tex and .html into a campaign's folder.

    Args:
        boards: as returned by `read_boards` for that campaign.
    Raises:
        UserError: the folder has a foreign file of that name.
    """
    claim_folder(folder.root, ["leaderboard.*"])
    printed = list(tables(boards))
    contents = (to_csv(boards), to_markdown(printed), to_latex(printed), to_html(printed))
    for suffix, content in zip(SUFFIXES, contents, strict=True):
        write_atomically(folder.leaderboard.with_suffix(suffix), content)
