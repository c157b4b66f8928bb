"""Each hand-written piece of training swapped for plain PyTorch: what a whole step then takes, over what it takes now.

    python -m benchmarks.kernels [--batches 128 512 1024] [--rounds 60]

A piece has earned its place where the ratio is at least 1.11: it takes a tenth off the step. Steps with the piece and
with its reference alternate on one thread and are timed in CPU seconds, so that others on the machine count little.
All four losses, InternVL3-1B's widths, the default model. Last, microseconds of one region's read-time geometry.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

from benchmarks.results import Row, median, options, say, write
from benchmarks.training import TEXT_DIM, VISION_DIM, configuration, shape
from core.data.geometry import clamped, corners_of, relation_of
from core.features.random import stand_in_features
from core.features.store import Features
from core.model import kernels, layers, model
from core.model.model import build_model
from core.training.batches import epoch_batches
from core.training.optimizer import build_optimizer
from core.training.step import TrainStep


@dataclass(frozen=True, slots=True)
class Piece:
    """A hand-written function where it is called, and what would stand there without it."""

    name: str
    module: ModuleType
    function: str
    reference: Callable[..., Any]


PIECES = (
    Piece("matching without fused pairs", model, "read_interaction", kernels.plain_read_interaction),
    Piece("16-bit dropout", layers, "dropout", kernels.plain_dropout),
)


@contextmanager
def replaced(piece: Piece) -> Iterator[None]:
    """Run with the reference of a piece."""
    ours = getattr(piece.module, piece.function)
    setattr(piece.module, piece.function, piece.reference)
    try:
        yield
    finally:
        setattr(piece.module, piece.function, ours)


def cpu_seconds(act: Callable[[], object]) -> float:
    started = time.process_time()
    act()
    return time.process_time() - started


def compare(piece: Piece, act: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median seconds with the piece, and the median ratio of neighbours without and with it."""
    seconds, ratios = [], []
    for number in range(rounds + 2):
        with_piece = cpu_seconds(act)
        with replaced(piece):
            without = cpu_seconds(act)
        if number >= 2:  # the first ones warm up
            seconds.append(with_piece)
            ratios.append(without / with_piece)
    return median(seconds), median(ratios)


def fresh_step(features: Features, batch_size: int) -> TrainStep:
    config = configuration(batch_size, 256, 1)
    fresh = build_model(config.model, features, normalization="none", seed=0).train()
    step = TrainStep(fresh, build_optimizer(fresh, 1e-4, 0.01), config.loss)
    step.begin_epoch(0)
    return step


def measure_steps(batch_size: int, rounds: int) -> list[Row]:
    """Every piece in a whole step of one batch size."""
    features = stand_in_features(shape(batch_size), shape(300), vision_dim=VISION_DIM, text_dim=TEXT_DIM)
    batches = epoch_batches(
        features.train,
        batch_size=batch_size,
        positives="image",
        with_regions=True,
        generator=torch.Generator().manual_seed(0),
    )
    batch, step = next(batches), fresh_step(features, batch_size)
    rows = []
    for piece in PIECES:
        seconds, ratio = compare(piece, lambda: step(batch), rounds)
        rows.append({"piece": piece.name, "batch": batch_size, "ms a step": seconds * 1e3, "ratio": ratio})
    return rows


def microseconds_a_region(regions: int = 100_000) -> float:
    """What reading an annotation file computes for each region."""

    def read() -> None:
        for _ in range(regions):
            relation_of(clamped(corners_of(0.3, 0.4, 0.2, 0.5)), (0.1, 0.2, 0.6, 0.7))

    return cpu_seconds(read) / regions * 1e6


def main() -> None:
    parser = options(__doc__ or "", "kernels")
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 512, 1024])
    parser.add_argument("--rounds", type=int, default=60)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    steps = [row for batch in asked.batches for row in measure_steps(batch, asked.rounds)]
    say("a step with plain PyTorch over a step with the piece", steps)
    region = {"µs a region": microseconds_a_region()}
    say("read-time geometry", [region])
    write(asked.output, {"steps": steps, "geometry": region})


if __name__ == "__main__":
    main()
