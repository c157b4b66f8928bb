"""What the benchmark scripts share: medians, a printed table, a JSON file with the machine beside the figures."""

import json
import os
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(__file__).parent / "results"


def median(values: list[float]) -> float:
    """Median of alternating runs: machines are noisy."""
    return statistics.median(values)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def say(title: str, rows: dict[str, Any]) -> None:
    """One line a figure."""
    lines = [title, *(f"  {name:<28} {_figure(value)}" for name, value in rows.items())]
    sys.stdout.write("\n".join(lines) + "\n")


def write(name: str, content: dict[str, Any]) -> None:
    """Write benchmarks/results/<name>.json."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps({"machine": machine(), **content}, indent=2) + "\n")


def _figure(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
