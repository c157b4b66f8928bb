from rich.table import Table

from core.terminal.console import as_lines


def test_lines_break_between_cells_and_stay_within_the_width() -> None:
    table = Table("metric", "model", "chance")
    table.add_row("t2i R@1", "12.3%", "1.0%")
    table.add_row("i2t R@1", "", "1.0%")
    assert list(as_lines(table, 28)) == [
        "metric t2i R@1, model 12.3%,",
        " chance 1.0%",
        "metric i2t R@1, chance 1.0%",
    ]


def test_markup_takes_no_room_in_lines() -> None:
    table = Table("a", "b", caption="[bold]c[/bold] \\[d]")
    table.add_row("[bold]1[/bold]", "2")
    assert list(as_lines(table, 8)) == ["a 1, b 2", "c [d]"]
