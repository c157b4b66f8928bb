from collections.abc import Sequence
from pathlib import Path

import pytest

from analysis.board_tables import Table, narrow, printed, tables
from analysis.boards import read_boards
from core.files.json_files import write_json
from tests.analysis.campaigns import confirm, metrics, searched
from tests.analysis.test_boards import card, evaluation


def column(table: Table, name: str) -> list[str]:
    place = [each.name for each in table.columns].index(name)
    return [row[place].shown for row in table.rows]


def bold(table: Table) -> dict[str, list[str]]:
    """Column → its bold figures."""
    found: dict[str, list[str]] = {}
    for row in table.rows:
        for each, cell in zip(table.columns, row, strict=True):
            if cell.is_best:
                found.setdefault(each.name, []).append(cell.text)
    return found


def test_the_best_figure_of_each_column_is_bold(tmp_path: Path) -> None:
    best = [metrics(0.2, t2i_r1=0.5), metrics(0.4, i2t_r1=0.3, box_iou=0.5), metrics(0.4, box_iou=0.25)]
    (table,) = tables(read_boards([searched(tmp_path, best)]))
    assert bold(table) == {
        "recall_mean": ["40.0", "40.0"],
        "gain_over_baseline": ["+20.0", "+20.0"],
        "t2i_r1": ["50.0"],
        **{name: ["40.0", "40.0"] for name in ("t2i_r5", "t2i_r10", "i2t_r5", "i2t_r10")},
        "i2t_r1": ["40.0"],
        "box_iou": ["0.500"],
    }


def test_of_confirmed_trials_the_best_is_bold_whatever_single_seeds_say(tmp_path: Path) -> None:
    folder = searched(tmp_path, [metrics(0.3), metrics(0.95), metrics(0.6)])
    confirm(folder, {0: 0.3, 2: 0.6})
    (table,) = tables(read_boards([folder]))
    assert bold(table)["recall_mean"] == [column(table, "recall_mean")[0].split()[0]] != ["95.0"]


def test_pruned_figures_are_never_bold(tmp_path: Path) -> None:
    best = [metrics(0.2, box_iou=0.5), metrics(0.9, box_iou=0.1), metrics(0.4, box_iou=0.6)]
    folder = searched(tmp_path, best, constraints={"box_iou": {"at_least": 0.3}})
    (table,) = tables(read_boards([folder]))
    assert bold(table)["recall_mean"] == ["40.0"]
    assert column(table, "rank") == ["1", "2", "–"]
    assert column(table, "standing")[2] == "breaks box_iou"


def test_intervals_stand_beside_the_figures_that_have_them(tmp_path: Path) -> None:
    folder = searched(tmp_path, [metrics(0.3), metrics(0.4)])
    confirm(folder, {0: 0.3})
    (table,) = tables(read_boards([folder]))
    confirmed, single = column(table, "i2t_r10")
    low, high = (float(end) for end in confirmed.split("[")[1].rstrip("]").split(", "))
    assert low < float(confirmed.split()[0]) < high
    assert single == "40.0"
    assert column(table, "gain_noise") == ["–", column(table, "gain_noise")[1]]


def test_columns_without_a_figure_are_left_out(tmp_path: Path) -> None:
    (table,) = tables(read_boards([searched(tmp_path, [metrics(0.3), metrics(0.4)])]))
    names = {each.name for each in table.columns}
    assert not names & {"box_iou", "relation_accuracy", "gain_noise", "parameters", "campaign"}
    assert {"seconds", "stages", "split", "protocol", "gallery_images", "gallery_texts", "gallery_groups"} <= names


def test_top_limits_the_trials_and_not_the_final_model(tmp_path: Path) -> None:
    folder = searched(tmp_path, [metrics(0.3), metrics(0.4), metrics(0.5)])
    write_json(folder.final_metrics, card(evaluation("image"), evaluation("building")).to_json())
    trials, final = tables(read_boards([folder]), top=1)
    assert column(trials, "number") == ["2"]
    assert column(final, "protocol") == ["image", "building"]
    assert column(final, "t2i_r1") == ["25.0 [12.5, 50.0]"] * 2
    assert bold(final) == {}
    assert final.notes == [
        "Test split, 3 images, 9 texts, 2 buildings; recall in percent, intervals of 95 % over buildings."
    ]


def width(table: Table) -> int:
    """Characters in a line, with one between columns and at both ends."""
    texts: Sequence[Sequence[str]] = [
        [*column.heading.split("\n"), *(row[place].shown for row in table.rows)]
        for place, column in enumerate(table.columns)
    ]
    return 1 + sum(1 + max(map(len, each)) for each in texts)


@pytest.mark.parametrize("metric", ["recall_mean", "i2t_r5", "box_iou"])
@pytest.mark.parametrize("campaigns", [1, 2])
def test_a_terminal_of_80_columns_shows_what_matters_most(tmp_path: Path, metric: str, campaigns: int) -> None:
    best = [metrics(0.3, box_iou=0.5), metrics(0.999, box_iou=0.4), metrics(0.32, box_iou=0.6)]
    names = [f"{number}-{'long' * 20}-{number}" for number in range(campaigns)]
    folders = [searched(tmp_path / name, best, name=name) for name in names]
    for folder in folders:
        confirm(folder, {0: 0.3, 2: 0.3})
    boards = read_boards(folders, None if metric == "box_iou" else metric)
    shown = narrow(next(tables(boards)), metric)
    assert width(shown) <= 80
    kept = [each.name for each in shown.columns]
    assert {"rank", "number", metric, "recall_mean", "gain_over_baseline", "seeds"} <= set(kept)
    assert ("campaign" in kept) == (campaigns == 2)
    gains = column(shown, "gain_over_baseline")
    assert any(gain.startswith("(") for gain in gains)  # two trials of the same chance
    assert "Gains in brackets are within the spread of seeds." in shown.notes


def test_figures_are_printed_in_their_units() -> None:
    kinds = ("text", "count", "size", "percent", "points", "fraction", "difference", "seconds")
    values = ("a", 1234, 1234, 0.1234, -0.0123, 0.1234, 0.1234, 12.34)
    texts = [printed(value, kind) for value, kind in zip(values, kinds, strict=True)]  # type: ignore[arg-type]
    assert texts == ["a", "1234", "1,234", "12.3", "-1.2", "0.123", "+0.123", "12.3"]
