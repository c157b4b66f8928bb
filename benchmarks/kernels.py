"""Hand-written pieces swapped into training: time of a whole step in plain PyTorch over that of the step with one.

    python -m benchmarks.kernels [--batches 128 512 1024] [--rounds 60]

A piece (benchmarks/candidates.py) qualifies for core if the ratio is at least 1.11, i.e. it saves a tenth. Steps
without and with it alternate on one thread and are timed in CPU seconds, so that other load matters little. All four
losses, InternVL3-1B's widths, the default model. Counting ranks is part of validation, so it is measured on an epoch's
training and evaluation. Last, microseconds per region of the geometry that is computed when annotations are read.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from benchmarks import candidates
from benchmarks.results import Row, median, options, say, write
from benchmarks.training import TEXT_DIM, VISION_DIM, configuration, shape
from core.data.geometry import clamped, corners_of, relation_of
from core.evaluation import metrics
from core.evaluation.retrieval import validate
from core.features.random import random_features
from core.features.store import Features, Widths
from core.model import model
from core.model.model import CrossModalModel, build_model
from core.training import step as steps
from core.training.batches import Batch, epoch_batches
from core.training.stages import Run, begin_stage, stages_of

EPOCH_PAIRS = 16_384
"""Pairs of the epoch in which counting is measured; validation has a quarter of them."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A candidate, and the plain function that it replaces."""

    name: str
    owner: Any
    """The module or class in which that function is looked up."""
    function: str
    candidate: Callable[..., Any]


PIECES = (
    Piece("unit norm with its own gradient", functional, "normalize", candidates.unit_norm),
    Piece("interaction with its own gradient", model, "interaction", candidates.interaction),
    Piece("matching without fused pairs", CrossModalModel, "match_odds", candidates.match_odds),
    Piece("16-bit dropout", functional, "dropout", candidates.dropout),
    Piece("contrastive loss in blocks with its own gradient", steps, "itc_loss", candidates.itc_loss),
    Piece("the same, log-sum-exp from softmax", steps, "itc_loss", candidates.itc_loss_by_softmax),
    Piece("hard negatives in blocks", steps, "hard_negatives", candidates.hard_negatives),
)
COUNTING = Piece("counting by numpy", metrics, "count_true", candidates.count_true)


@contextmanager
def swapped_in(pieces: tuple[Piece, ...]) -> Iterator[None]:
    """Run with pieces in place of plain PyTorch."""
    plain = [getattr(piece.owner, piece.function) for piece in pieces]
    for piece in pieces:
        setattr(piece.owner, piece.function, piece.candidate)
    try:
        yield
    finally:
        for piece, function in zip(pieces, plain, strict=True):
            setattr(piece.owner, piece.function, function)


def cpu_seconds(act: Callable[[], object]) -> float:
    started = time.process_time()
    act()
    return time.process_time() - started


def compare(pieces: tuple[Piece, ...], act: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median seconds in plain PyTorch, and the median ratio of neighbouring runs without and with the pieces."""
    seconds, ratios = [], []
    for number in range(rounds + 2):
        plain = cpu_seconds(act)
        with swapped_in(pieces):
            swapped = cpu_seconds(act)
        if number >= 2:  # the first ones warm up
            seconds.append(plain)
            ratios.append(plain / swapped)
    return median(seconds), median(ratios)


def begin(features: Features, batch_size: int) -> Run:
    config = configuration(batch_size, 256, 1).with_overrides(
        {"features.normalization": "none", "loss.positives": "image"}
    )
    fresh = build_model(config, features).train()
    run = begin_stage(config, features, fresh, stages_of(config)[0], None)
    run.step.begin_epoch(0)
    return run


def batches(run: Run) -> Iterator[Batch]:
    return epoch_batches(run.features.train, run.config, with_regions=True, generator=torch.Generator().manual_seed(0))


def measure_steps(batch_size: int, rounds: int) -> list[Row]:
    """Every piece alone, and those that gain anything at once, in a whole step of one batch size."""
    features = random_features(shape(batch_size), shape(300), Widths(VISION_DIM, TEXT_DIM))
    run = begin(features, batch_size)
    batch = next(batches(run))
    rows = []
    tried = {piece.name: (piece,) for piece in PIECES} | {"the first five together": PIECES[:5]}
    for name, pieces in tried.items():
        seconds, ratio = compare(pieces, lambda: run.step(batch), rounds)
        rows.append({"piece": name, "batch": batch_size, "plain ms per step": seconds * 1e3, "ratio": ratio})
    return rows


def measure_counting(rounds: int) -> Row:
    """What counting by numpy saves in the training and evaluation of an epoch."""
    train, validation = shape(EPOCH_PAIRS), shape(EPOCH_PAIRS // 4)
    run = begin(random_features(train, validation, Widths(VISION_DIM, TEXT_DIM)), 512)

    def train_one_epoch() -> None:
        for batch in batches(run):
            run.step(batch)

    training = cpu_seconds(train_one_epoch)
    evaluation, ratio = compare((COUNTING,), lambda: validate(run.model, run.features.validation), rounds)
    return {
        "piece": COUNTING.name,
        "training s": training,
        "plain evaluation s": evaluation,
        "ratio of evaluation": ratio,
        "ratio of the epoch": (training + evaluation) / (training + evaluation / ratio),
    }


def microseconds_a_region(regions: int = 100_000) -> float:
    """Time of the geometry that reading an annotation file computes per region."""

    def read() -> None:
        for _ in range(regions):
            relation_of(clamped(corners_of(0.3, 0.4, 0.2, 0.5)), (0.1, 0.2, 0.6, 0.7))

    return cpu_seconds(read) / regions * 1e6


def main() -> None:
    parser = options(__doc__ or "", "kernels")
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 512, 1024])
    parser.add_argument("--rounds", type=int, default=60)
    settings = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for batch in settings.batches for row in measure_steps(batch, settings.rounds)]
    say("a step in plain PyTorch over a step with the piece", rows)
    counting = measure_counting(settings.rounds)
    say("an epoch", [counting])
    region = {"read-time geometry": "one region", "µs": microseconds_a_region()}
    say("reading annotations", [region])
    write(settings.output, {"steps": rows, "counting": counting, "geometry": region})


if __name__ == "__main__":
    main()
