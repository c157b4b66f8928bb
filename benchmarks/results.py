"""What the benchmark scripts share: medians, a printed table, a JSON file with the machine beside the figures."""

import argparse
import json
import os
import platform
import statistics
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

FOLDER = Path(__file__).parent / "results"
Row = dict[str, Any]


def options(description: str, name: str) -> argparse.ArgumentParser:
    """A parser that knows `--output`, where the JSON goes: by default benchmarks/results/<name>.json."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=formatter)
    parser.add_argument("--output", type=Path, default=FOLDER / f"{name}.json", help="where the JSON goes")
    return parser


def median(values: list[float]) -> float:
    """Median of alternating runs: machines are noisy."""
    return statistics.median(values)


def machine() -> Row:
    """What the figures were measured on."""
    return {
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def say(title: str, rows: list[Row]) -> None:
    """A table with a line a row; the columns are those of the first one."""
    table = Table(title=title, title_justify="left", box=None)
    for name in rows[0]:
        table.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        table.add_row(*(_figure(row.get(name)) for name in rows[0]))
    Console(width=160).print(table)


def write(path: Path, content: Row) -> None:
    """The figures, with the machine beside them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), **content}, indent=2) + "\n")


def _figure(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
