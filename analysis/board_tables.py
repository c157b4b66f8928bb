"""What of a leaderboard is printed: its columns, its cells as text, and which of them are the best of their column."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd

from analysis.boards import Board
from analysis.leaderboard import WITHIN
from core.records import GROUNDING_METRICS, RETRIEVAL_KEYS, TEXT_ONLY

Kind = Literal["text", "count", "size", "percent", "points", "fraction", "difference", "seconds"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column that is printed."""

    name: str
    """Of the board's data frame."""
    heading: str
    kind: Kind
    best: Literal["highest", "lowest"] | None = None
    """Which figure is bold."""
    interval: str | None = None
    """Begin of the names of the columns that hold its interval, which end in _low and _high."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure as it is printed."""

    text: str
    interval: str
    """Of 95 %; empty where it is not known."""
    is_best: bool
    value: float | str | None
    """In full precision; None if it is missing."""

    @property
    def shown(self) -> str:
        return f"{self.text} {self.interval}".rstrip()


@dataclass(frozen=True, slots=True)
class Table:
    """A table as it is printed; columns without any figure are left out."""

    title: str
    notes: Sequence[str]
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]


def _figure(name: str, heading: str, kind: Kind = "percent") -> Column:
    return Column(name, heading, kind, "highest", interval=name)


RANK, NUMBER = Column("rank", "#", "count"), Column("number", "trial", "count")
CAMPAIGN, STANDING = Column("campaign", "campaign", "text"), Column("standing", "state", "text")
STAGES, SEEDS = Column("stages", "stages", "count"), Column("seeds", "seeds", "count")
MEAN = _figure("recall_mean", "mean")
GAIN = Column("gain_over_baseline", "gain", "points", "highest", interval="gain")
NOISE = Column("gain_noise", "gain is", "text")
RECALLS = tuple(_figure(name, f"{name[:3]} R@{name[5:]}") for name in RETRIEVAL_KEYS)
BOXES, RELATIONS = _figure("box_iou", "box IoU", "fraction"), _figure("relation_accuracy", "relations", "fraction")
PARAMETERS = Column("parameters", "parameters", "size", "lowest")
SECONDS = Column("seconds", "seconds", "seconds", "lowest")
MEASURED_ON = (
    Column("split", "split", "text"), Column("protocol", "protocol", "text"),
    Column("gallery_images", "images", "size"), Column("gallery_texts", "texts", "size"),
    Column("gallery_groups", "buildings", "size"),
)  # fmt: skip
TRIALS = (
    RANK, CAMPAIGN, NUMBER, STANDING, STAGES, SEEDS, MEAN, GAIN, NOISE, *RECALLS, BOXES, RELATIONS, PARAMETERS,
    SECONDS, *MEASURED_ON,
)  # fmt: skip
FINAL = (
    CAMPAIGN, NUMBER, STAGES, *MEASURED_ON[:2], Column("order", "order", "text"), MEAN, *RECALLS, BOXES,
    Column(f"box_iou_{TEXT_ONLY}", "by text only", "fraction"), RELATIONS,
    Column(f"relation_accuracy_{TEXT_ONLY}", "by text only", "fraction"), PARAMETERS, SECONDS, *MEASURED_ON[2:],
)  # fmt: skip


def tables(boards: Sequence[Board], top: int | None = None) -> Iterator[Table]:
    """The tables of each board: its trials, and its final models if there are any.

    Args:
        top: number of trials; None for all.
    """
    for board in boards:
        names, several = ", ".join(board.campaigns), len(board.campaigns) > 1
        dropped = () if several else (CAMPAIGN,)
        yield _table(f"Trials of {names}", board.notes, _columns(TRIALS, board, dropped), board.best(top))
        if len(board.final):
            title = f"Final {'models' if several else 'model'} of {names}"
            # Its figures are for reading beside one another, not for choosing the best: nothing is bold.
            plain = [replace(column, best=None) for column in _columns(FINAL, board, dropped)]
            yield _table(title, [_final_note(board.final)], plain, board.final)


def _final_note(frame: pd.DataFrame) -> str:
    first = frame.iloc[0]
    return (
        f"{str(first['split']).capitalize()} split, {first['gallery_images']} images, {first['gallery_texts']} texts, "
        f"{first['gallery_groups']} buildings; recall in percent, intervals of 95 % over buildings."
    )


def _columns(columns: Sequence[Column], board: Board, dropped: Sequence[Column]) -> list[Column]:
    """Gains in the unit of the metric that trials are ranked by."""
    unit: Kind = "difference" if board.metric in GROUNDING_METRICS else "points"
    return [replace(column, kind=unit) if column == GAIN else column for column in columns if column not in dropped]


def _table(title: str, notes: Sequence[str], columns: Sequence[Column], frame: pd.DataFrame) -> Table:
    shown = [column for column in columns if column.name in frame and frame[column.name].notna().any()]
    rows = frame.to_dict("records")
    best = {column.name: _best(column, rows) for column in shown}
    cells = [[_cell(column, row, best[column.name]) for column in shown] for row in rows]
    return Table(title, notes, shown, cells)


def _best(column: Column, rows: Sequence[dict[Any, Any]]) -> Any:
    """The best figure of a column, of the confirmed trials if there are any: the search flatters the others.

    None if all are alike.
    """
    ranked = [row for row in rows if not pd.isna(row.get("rank"))]
    eligible = [row for row in ranked if not pd.isna(row["confirmed_rank"])] or ranked
    values = [row[column.name] for row in eligible if not pd.isna(row[column.name])]
    if column.best is None or len(set(values)) < 2:
        return None
    return max(values) if column.best == "highest" else min(values)


def _cell(column: Column, row: dict[Any, Any], best: Any) -> Cell:
    value = row[column.name]
    if pd.isna(value):
        return Cell("–", "", is_best=False, value=None)
    low, high = (row.get(f"{column.interval}_{end}") for end in ("low", "high"))
    interval = "" if pd.isna(low) else f"[{printed(low, column.kind)}, {printed(high, column.kind)}]"
    is_best = best is not None and value == best and not pd.isna(row.get("rank"))
    return Cell(printed(value, column.kind), interval, is_best, value if isinstance(value, str) else float(value))


def printed(value: Any, kind: Kind) -> str:
    """A figure as text: recall in percent, gains in percentage points with their sign."""
    match kind:
        case "text":
            return str(value)
        case "count":
            return f"{int(value)}"
        case "size":
            return f"{int(value):,}"
        case "percent":
            return f"{100 * value:.1f}"
        case "points":
            return f"{100 * value:+.1f}"
        case "fraction":
            return f"{value:.3f}"
        case "difference":
            return f"{value:+.3f}"
        case "seconds":
            return f"{value:.1f}"


NARROW_WIDTH, NARROW_NAME = 80, 20
"""Characters of a line, and of a campaign's name in it."""
SHORT_HEADINGS = {
    **{name: f"{name[:3]}\n@{name[5:]}" for name in RETRIEVAL_KEYS}, "box_iou": "box\nIoU", "relation_accuracy": "rel.",
    "seconds": "s",
}  # fmt: skip
FIRST = (
    "rank", "campaign", "number", "protocol", "order", "recall_mean", "gain_over_baseline", "stages", "seeds", "t2i_r1",
    "i2t_r1", "t2i_r10", "i2t_r10", "box_iou", "relation_accuracy", "seconds", "t2i_r5", "i2t_r5", "parameters",
)  # fmt: skip
"""Columns in the order in which they are kept where there is no room for all."""
SAID_IN_NOTES = ("protocol", "seeds")
"""Columns that are left out where all rows are alike."""


def narrow(table: Table, metric: str) -> Table:
    """The same in 80 columns: the metric among the first, and the interval of the gain alone.

    A gain within the spread of seeds stands in brackets.
    """
    columns = [replace(column, heading=SHORT_HEADINGS.get(column.name, column.heading)) for column in table.columns]
    rows = [[_narrow_cell(column, cell, row) for column, cell in zip(columns, row, strict=True)] for row in table.rows]
    names, room = [column.name for column in columns], NARROW_WIDTH - 1
    kept: list[int] = []
    for name in dict.fromkeys((*FIRST[:3], metric, *FIRST[3:])):
        place = names.index(name) if name in names else None
        if place is None or (name in SAID_IN_NOTES and len({row[place].text for row in rows}) == 1):
            continue
        texts = (*columns[place].heading.split("\n"), *(row[place].shown for row in rows))
        width = 1 + max(map(len, texts))
        if width <= room:
            kept, room = [*kept, place], room - width
    kept.sort()
    noisy = any(cell.value == WITHIN for row in table.rows for cell in row)
    return Table(
        table.title,
        [*table.notes, *(["Gains in brackets are within the spread of seeds."] if noisy else [])],
        [columns[place] for place in kept],
        [[row[place] for place in kept] for row in rows],
    )


def _narrow_cell(column: Column, cell: Cell, row: Sequence[Cell]) -> Cell:
    if column.name == CAMPAIGN.name and len(cell.text) > NARROW_NAME:
        return replace(cell, text=f"{cell.text[: NARROW_NAME // 2]}…{cell.text[1 - NARROW_NAME // 2 :]}")
    if column.name != GAIN.name:
        return replace(cell, interval="")
    noisy = any(other.value == WITHIN for other in row)
    return replace(cell, text=f"({cell.text})") if noisy else cell
