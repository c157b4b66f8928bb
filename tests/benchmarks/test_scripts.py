"""The benchmark scripts run and write their figures; speed is never tested."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import READ
from benchmarks.kernels import PIECES
from benchmarks.training import operations_per_step

ROOT = Path(__file__).parents[2]


def run_script(name: str, output: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--output", str(output), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads(output.read_text())
    assert content["machine"]["cores"] >= 1
    return content


@pytest.mark.slow
def test_training_is_compared_with_its_floor(tmp_path: Path) -> None:
    sizes = ("--widths", "64", "--batches", "64", "128", "--threads", "1", "--attention-batches", "64")
    rows = run_script("training", tmp_path / "training.json", *sizes, "--pairs", "1024")["training"]
    assert [(row["heads"], row["width"], row["batch"]) for row in rows] == [
        ("interaction", 64, 64),
        ("interaction", 64, 128),
        ("attention", 256, 64),
    ]
    assert all(row["of the floor"] > 0 for row in rows)


@pytest.mark.slow
def test_scaling_measures_every_size(tmp_path: Path) -> None:
    rows = run_script("scaling", tmp_path / "scaling.json", "--pairs", "2000", "4000")["scaling"]
    assert [row["pairs"] for row in rows] == [2000, 4000]


@pytest.mark.slow
def test_the_gpu_benchmark_also_runs_without_one(tmp_path: Path) -> None:
    sizes = ("--layers", "1", "--images", "2", "--texts", "4", "--scale", "0.004", "--batches", "64", "--together", "1")
    content = run_script("gpu", tmp_path / "gpu.json", "--device", "cpu", *sizes)
    assert content["device"] == "cpu"
    assert [row["encoding"] for row in content["backbone"]] == list(READ)
    assert [row["batch"] for row in content["training"]] == [64]
    assert [row["grids on the"] for row in content["attention"]] == ["device", "host"]
    assert all(row["pairs per second"] > 0 for row in content["attention"])
    assert [row["trials at once"] for row in content["together"]] == [1]


@pytest.mark.slow
def test_every_hand_written_piece_is_measured_in_a_step(tmp_path: Path) -> None:
    content = run_script("kernels", tmp_path / "kernels.json", "--batches", "64", "--rounds", "1")
    assert {row["piece"] for row in content["steps"]} >= {piece.name for piece in PIECES}
    assert content["counting"]["ratio of the epoch"] > 0
    assert content["geometry"]["µs"] > 0


def test_the_arithmetic_of_a_step_counts_every_product_once() -> None:
    batch, width = 1000, 256
    adapters = 2 * 1900 * 256 * (1024 + 896) * 2
    projectors = 2 * 1900 * 256 * 256 * 6
    contrastive = 2 * 1000 * 1000 * 256 * 3
    heads = 2 * (3000 + 900 * 10) * 512 * 3
    assert operations_per_step(batch, width) == adapters + projectors + contrastive + heads
    text = 2 * 2800 * (896 * 256 * 2 + 256 * 128 * 3 + 128 * (1024 + 18) * 3)
    attention = 2 * 5800 * (64 * 1024 * 4 + 1024 * 128 * 3)
    heads = 2 * (4000 * (389 + 1) + 900 * (388 + 4 + 648 + 6)) * 128 * 3
    assert (
        operations_per_step(batch, width, "attention") == adapters + projectors + contrastive + text + attention + heads
    )
