"""Pairs per second of `core.train` against the floor that arithmetic sets.

    python -m benchmarks.training [--widths 64 256 1024] [--batches 64 512 1024 8192] [--threads 1 2]

The floor is the floating-point operations of forward and backward pass, over the rate of a plain 2048 × 2048 matrix
product on the same threads in the same run. Random features of InternVL3-1B's widths (1024 and 896), all four losses.
Then two trials side by side, one thread each, against one alone.
"""

import multiprocessing
import os
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

import torch

from benchmarks.results import Row, options, say, write
from core.config import TrainConfig
from core.features.random import SplitShape, stand_in_features
from core.training.train import train

VISION_DIM, TEXT_DIM, EMBED_DIM = 1024, 896, 256
REGIONS_PER_CAPTION = 0.9


def products_per_second() -> float:
    """Floating-point operations a second of a large matrix product on the current threads."""
    a = torch.randn(2048, 2048)
    a @ a
    started = time.perf_counter()
    for _ in range(4):
        a @ a
    return 4 * 2 * 2048**3 / (time.perf_counter() - started)


def operations_per_step(batch: int, width: int) -> float:
    """Of all matrix products: 2 n m k forward, the same again for each gradient; features need none."""
    rows = batch * (1 + REGIONS_PER_CAPTION)
    adapters = 2 * rows * width * (VISION_DIM + TEXT_DIM) * 2  # forward, and the weights' gradient
    projectors = 2 * rows * width * EMBED_DIM * 2 * 3
    contrastive = 2 * batch * batch * EMBED_DIM * 3  # similarities, which ITC and ITM share, and both gradients
    heads = 2 * (3 * batch + REGIONS_PER_CAPTION * batch * 10) * 2 * EMBED_DIM * 3  # log-odds, boxes and relations
    return adapters + projectors + contrastive + heads


def shape(pairs: int) -> SplitShape:
    return SplitShape(pairs // 3 + 1, pairs // 18 + 1, pairs, pairs, int(REGIONS_PER_CAPTION * pairs))


def configuration(batch: int, width: int, epochs: int) -> TrainConfig:
    return TrainConfig().with_overrides(
        {
            "optimizer.batch_size": batch,
            "model.adapter_width": width,
            "recipe.epochs": epochs,
            "device": "cpu",
        }
    )


def measure(batch: int, width: int, threads: int) -> Row:
    torch.set_num_threads(threads)
    steps = max(2, min(64, 8192 // batch))
    pairs = steps * batch
    features = stand_in_features(shape(pairs), shape(300), vision_dim=VISION_DIM, text_dim=TEXT_DIM)
    history = train(configuration(batch, width, 3), features).history
    seconds = min(epoch.train_seconds for epoch in history[1:])
    floor = steps * operations_per_step(batch, width) / products_per_second()
    return {
        "threads": threads,
        "width": width,
        "batch": batch,
        "pairs a second": pairs / seconds,
        "ms a step": seconds / steps * 1e3,
        "floor ms a step": floor / steps * 1e3,
        "of the floor": floor / seconds,
    }


def train_for_a_while(barrier: Barrier, seconds: "Queue[float]") -> None:
    torch.set_num_threads(1)
    features = stand_in_features(shape(4096), shape(300), vision_dim=VISION_DIM, text_dim=TEXT_DIM)
    barrier.wait()
    history = train(configuration(512, 256, 6), features).history
    seconds.put(sum(epoch.train_seconds for epoch in history[1:]))


def measure_side_by_side(count: int) -> float:
    """Mean seconds of the same training in so many processes at once."""
    context = multiprocessing.get_context("spawn")
    barrier, seconds = context.Barrier(count), context.Queue()
    processes = [context.Process(target=train_for_a_while, args=(barrier, seconds)) for _ in range(count)]
    for process in processes:
        process.start()
    taken = [seconds.get() for _ in processes]
    for process in processes:
        process.join()
    return float(sum(taken) / count)


def main() -> None:
    parser = options(__doc__ or "", "training")
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 512, 1024, 8192])
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, min(2, os.cpu_count() or 1)}))
    settings = parser.parse_args()
    rows = [
        measure(batch, width, n) for n in settings.threads for width in settings.widths for batch in settings.batches
    ]
    say("training against the floor of its arithmetic", rows)
    alone, together = measure_side_by_side(1), measure_side_by_side(2)
    beside = {"alone s": alone, "two at once s": together, "ratio": together / alone}
    say("two trials side by side, one thread each", [beside])
    write(settings.output, {"training": rows, "side by side": beside})


if __name__ == "__main__":
    main()
