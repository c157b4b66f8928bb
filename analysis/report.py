"""A report: a table and its figures as CSV, JSON, Markdown, and an HTML page that needs no network."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from core.files.atomic import write_atomically
from core.files.json_files import write_json
from core.files.ownership import claim_folder, require_ours

TABLE_SUFFIXES = (".csv", ".json", ".md", ".html")


@dataclass(frozen=True, slots=True)
class Report:
    """A table with its title, notes and figures."""

    title: str
    table: pd.DataFrame
    notes: Sequence[str] = ()
    figures: Sequence[go.Figure] = ()


def write_report(folder: Path, name: str, report: Report) -> None:
    """Write `name`.csv, .json (full precision), .md and .html (rounded) into a folder.

    Raises:
        UserError: one of these files exists and was not written by crossmodal.
    """
    claim_folder(folder, _names(name))
    write_atomically(folder / f"{name}.csv", report.table.to_csv(index=False))
    write_json(folder / f"{name}.json", json_rows(report.table))
    write_atomically(folder / f"{name}.md", to_markdown(report))
    write_page(folder / f"{name}.html", report)


def json_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table by the names of its columns; what is missing is null."""
    rows: list[dict[str, Any]] = json.loads(table.to_json(orient="records", double_precision=15))
    return rows


def require_free_report(folder: Path, name: str) -> None:
    """Raise UserError if `write_report` would; call it before long work."""
    require_ours(folder, _names(name))


def _names(table: str) -> list[str]:
    return [f"{table}{suffix}" for suffix in TABLE_SUFFIXES]


def to_markdown(report: Report) -> str:
    """A heading, the notes, and the table."""
    columns = list(report.table.columns)
    rows = [columns, ["---"] * len(columns), *printed(report.table)]
    body = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    notes = "".join(f"{note}\n\n" for note in report.notes)
    return f"# {report.title}\n\n{notes}{body}\n"


def write_page(path: Path, report: Report) -> None:
    """Write one self-contained page, including plotly's script; texts are escaped."""
    content = {
        "title": report.title,
        "notes": report.notes,
        "columns": list(report.table.columns),
        "rows": printed(report.table),
        "figures": [embedded(figure, f"plot-{number}") for number, figure in enumerate(report.figures)],
        "plotly_script": plotly_script() if report.figures else "",
    }
    write_atomically(path, render("report.html", content))


def render(template: str, content: Mapping[str, object]) -> str:
    """A page from one of our templates; texts are escaped."""
    environment = Environment(loader=PackageLoader("analysis"), autoescape=True)
    return environment.get_template(template).render(content)


def plotly_script() -> Markup:
    """The script that all plots of a page need, once."""
    return Markup(f"<script>{get_plotlyjs()}</script>")


def embedded(figure: go.Figure, identifier: str) -> Markup:
    """A plot for a page that holds plotly's script; it is as wide as what it stands in.

    Args:
        identifier: unique in the page.
    """
    settings = {"responsive": True, "displayModeBar": False}
    return Markup(figure.to_html(full_html=False, include_plotlyjs=False, div_id=identifier, config=settings))


def printed(table: pd.DataFrame) -> list[list[str]]:
    """Cells formatted for reading: four decimals, – for missing values."""
    return [[_cell(value) for value in row] for row in table.itertuples(index=False)]


def _cell(value: object) -> str:
    if isinstance(value, str):
        return value
    if pd.isna(value):  # type: ignore[call-overload]
        return "–"
    number = float(value)  # type: ignore[arg-type]
    return f"{number:,.0f}" if number.is_integer() else f"{number:,.4f}"
