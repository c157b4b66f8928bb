"""Shared by the benchmark scripts: medians, a printed table, and a JSON file of the figures and the machine."""

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
    """A parser with `--output`, the path of the JSON: by default benchmarks/results/<name>.json."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=formatter)
    parser.add_argument("--output", type=Path, default=FOLDER / f"{name}.json", help="path of the JSON file")
    return parser


def median(values: list[float]) -> float:
    """Median of alternating runs, since machines are noisy."""
    return statistics.median(values)


def machine() -> Row:
    """The machine on which the figures were measured."""
    return {
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def say(title: str, rows: list[Row]) -> None:
    """Print a table; its columns are the keys of the first row."""
    table = Table(title=title, title_justify="left", box=None)
    for name in rows[0]:
        table.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        table.add_row(*(_figure(row.get(name)) for name in rows[0]))
    Console(width=160).print(table)


def write(path: Path, content: Row) -> None:
    """Write the figures and the machine as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), **content}, indent=2) + "\n")


def _figure(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
