"""A table on paper: CSV, JSON, Markdown, and a page of HTML that needs no network."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from core.files.atomic import write_atomically
from core.files.ownership import claim_folder, require_ours

TABLE_SUFFIXES = (".csv", ".json", ".md", ".html")


def write_table(
    folder: Path, name: str, table: pd.DataFrame, *, title: str, notes: Sequence[str], figures: Sequence[go.Figure]
) -> None:
    """Write `name`.csv, .json (full precision), .md and .html (as people read them) into a folder.

    Raises:
        UserError: one of these files is there and somebody else's.
    """
    claim_folder(folder, _names(name))
    write_atomically(folder / f"{name}.csv", table.to_csv(index=False))
    write_atomically(folder / f"{name}.json", table.to_json(orient="records", indent=2) + "\n")
    write_atomically(folder / f"{name}.md", to_markdown(table, title=title, notes=notes))
    write_report(folder / f"{name}.html", table, title=title, notes=notes, figures=figures)


def require_free_table(folder: Path, name: str) -> None:
    """Raises UserError where `write_table` would; to be asked before long work."""
    require_ours(folder, _names(name))


def _names(table: str) -> list[str]:
    return [f"{table}{suffix}" for suffix in TABLE_SUFFIXES]


def to_markdown(table: pd.DataFrame, *, title: str, notes: Sequence[str]) -> str:
    """A heading, the notes, and the table."""
    rows = [list(table.columns), ["---"] * len(table.columns), *printed(table)]
    body = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    told = "".join(f"{note}\n\n" for note in notes)
    return f"# {title}\n\n{told}{body}\n"


def write_report(
    path: Path, table: pd.DataFrame, *, title: str, notes: Sequence[str], figures: Sequence[go.Figure]
) -> None:
    """One page with everything in it, plotly's script included; texts are escaped."""
    environment = Environment(loader=PackageLoader("analysis"), autoescape=True)
    page = environment.get_template("report.html").render(
        title=title,
        notes=notes,
        columns=list(table.columns),
        rows=printed(table),
        figures=[Markup(figure.to_html(full_html=False, include_plotlyjs=False)) for figure in figures],
        plotly_script=Markup(f"<script>{get_plotlyjs()}</script>") if figures else "",
    )
    write_atomically(path, page)


def printed(table: pd.DataFrame) -> list[list[str]]:
    """Cells as people read them: four significant places, – for what is missing."""
    return [[_cell(value) for value in row] for row in table.itertuples(index=False)]


def _cell(value: object) -> str:
    if isinstance(value, str):
        return value
    if pd.isna(value):  # type: ignore[call-overload]
        return "–"
    number = float(value)  # type: ignore[arg-type]
    return f"{number:,.0f}" if number.is_integer() else f"{number:,.4f}"
