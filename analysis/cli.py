"""Commands that compare what was run. Each imports what it runs only when it is called."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich import box
from rich.table import Table

from core.cli import console, say

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer()
TERMINAL_COLUMNS = {
    "rank": "#", "number": "trial", "state": "state", "recall_mean": "mean", "gain_over_baseline": "gain",
    "t2i_r1": "t2i@1", "t2i_r10": "t2i@10", "i2t_r1": "i2t@1", "i2t_r10": "i2t@10", "seconds": "s",
}  # fmt: skip
"""What fits into 80 columns; the files hold the rest."""


@app.command()
def leaderboard(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a campaign.")],
    by: Annotated[str, typer.Option(help="Metric to rank by.")] = "recall_mean",
    top: Annotated[int, typer.Option(min=1, help="Rows to show in the terminal.")] = 15,
    format: Annotated[
        Literal["csv", "md", "latex", "json"] | None, typer.Option(help="Print this format alone, all rows.")
    ] = None,
) -> None:
    """Rank the trials; prints a table and writes leaderboard.csv and leaderboard.md into the campaign's folder."""
    from analysis.leaderboard import caption, rank, to_csv, to_json, to_latex, to_markdown
    from analysis.trials import load_trials
    from core.files import CampaignFolder, write_atomically

    campaign = CampaignFolder(folder)
    table = rank(load_trials(campaign), by)
    match format:
        case "csv":
            typer.echo(to_csv(table), nl=False)
        case "md":
            typer.echo(to_markdown(table), nl=False)
        case "latex":
            typer.echo(to_latex(table), nl=False)
        case "json":
            typer.echo(to_json(table), nl=False)
        case None:
            write_atomically(campaign.leaderboard.with_suffix(".csv"), to_csv(table))
            write_atomically(campaign.leaderboard.with_suffix(".md"), to_markdown(table))
            console.print(_terminal_table(table.head(top), caption(table)))
            say(f"{len(table)} trials in {campaign.leaderboard}.csv and .md")


def _terminal_table(table: "pd.DataFrame", caption: str) -> Table:
    from analysis.leaderboard import printed_rows

    shown = Table(caption=caption, box=box.SIMPLE_HEAD)
    for heading in TERMINAL_COLUMNS.values():
        shown.add_column(heading, justify="right")
    for row in printed_rows(table, TERMINAL_COLUMNS):
        shown.add_row(*row)
    return shown
