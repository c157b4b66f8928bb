"""Pairs per second of `core.training.train` against the floor set by arithmetic.

    python -m benchmarks.training [--widths 64 256 1024] [--batches 64 512 1024 8192] [--threads 1 2]
                                  [--attention-batches 64 512 1024]

The floor is the floating-point operations of forward and backward pass, over the rate of a plain 2048 × 2048 matrix
product on the same threads in the same run. Random features of InternVL3-1B's widths (1024 and 896), all four losses.
Heads with attention are measured at width 256 on grids of 8 × 8 cells of 1024, with a floor of their own. Then two
trials side by side, one thread each, against one alone.
"""

import multiprocessing
import os
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

import torch

from benchmarks.results import Row, options, say, write
from core.config import Fusion, TrainConfig
from core.features.random import SplitShape, random_features
from core.features.store import Widths
from core.model.attention import POSITION
from core.model.grounding import TEXT_WIDTH, WIDTH
from core.training.train import train

VISION_DIM, TEXT_DIM, EMBED_DIM = 1024, 896, 256
CELLS, GRID_DIM = 64, 1024
REGIONS_PER_CAPTION = 0.9


def products_per_second() -> float:
    """Floating-point operations per second of a large matrix product on the current threads."""
    a = torch.randn(2048, 2048)
    a @ a
    started = time.perf_counter()
    for _ in range(4):
        a @ a
    return 4 * 2 * 2048**3 / (time.perf_counter() - started)


def operations_per_step(batch: int, width: int, fusion: Fusion = "interaction") -> float:
    """Of all matrix products: 2 n m k forward, the same again for each gradient; features need none."""
    rows = batch * (1 + REGIONS_PER_CAPTION)
    adapters = 2 * rows * width * (VISION_DIM + TEXT_DIM) * 2  # forward, and the weights' gradient
    projectors = 2 * rows * width * EMBED_DIM * 2 * 3
    contrastive = 2 * batch * batch * EMBED_DIM * 3  # similarities, which ITC and ITM share, and both gradients
    heads = 2 * (3 * batch + REGIONS_PER_CAPTION * batch * 10) * 2 * EMBED_DIM * 3  # log-odds, boxes and relations
    return adapters + projectors + contrastive + (attention_operations(batch) if fusion == "attention" else heads)


def attention_operations(batch: int) -> float:
    """Of heads with attention: four pairs a caption, and a sentence with its reference a region."""
    regions = REGIONS_PER_CAPTION * batch
    texts, looks, findings = batch + 2 * regions, 4 * batch + 2 * regions, 3 * WIDTH + 4
    text = 2 * texts * (TEXT_DIM * TEXT_WIDTH * 2 + TEXT_WIDTH * WIDTH * 3)  # features need no gradient
    queries = 2 * texts * WIDTH * (GRID_DIM + POSITION) * 3
    attention = 2 * looks * CELLS * GRID_DIM * 2 * 2  # logits and sums; grids need no gradient
    values = 2 * looks * GRID_DIM * WIDTH * 3
    matches = 2 * 4 * batch * WIDTH * (findings + 2) * 3
    boxes_and_relations = 2 * regions * WIDTH * (findings + 4 + findings + 2 * WIDTH + 4 + 6) * 3
    return text + queries + attention + values + matches + boxes_and_relations


def shape(pairs: int) -> SplitShape:
    return SplitShape(pairs // 3 + 1, pairs // 18 + 1, pairs, pairs, int(REGIONS_PER_CAPTION * pairs))


def configuration(batch: int, width: int, epochs: int, fusion: Fusion = "interaction") -> TrainConfig:
    return TrainConfig().with_overrides(
        {
            "optimizer.batch_size": batch,
            "model.adapter_width": width,
            "model.fusion": fusion,
            "recipe.epochs": epochs,
            "device": "cpu",
        }
    )


def measure(pairs: int, batch: int, width: int, threads: int, fusion: Fusion = "interaction") -> Row:
    torch.set_num_threads(threads)
    steps = max(2, min(64, pairs // batch))
    pairs = steps * batch
    grid = (CELLS, GRID_DIM) if fusion == "attention" else None
    features = random_features(shape(pairs), shape(300), Widths(VISION_DIM, TEXT_DIM, grid))
    history = train(configuration(batch, width, 3, fusion), features).history
    seconds = min(epoch.train_seconds for epoch in history[1:])
    floor = steps * operations_per_step(batch, width, fusion) / products_per_second()
    return {
        "heads": fusion,
        "threads": threads,
        "width": width,
        "batch": batch,
        "pairs per second": pairs / seconds,
        "ms per step": seconds / steps * 1e3,
        "floor ms per step": floor / steps * 1e3,
        "of the floor": floor / seconds,
    }


def train_for_a_while(pairs: int, barrier: Barrier, seconds: "Queue[float]") -> None:
    torch.set_num_threads(1)
    features = random_features(shape(pairs), shape(300), Widths(VISION_DIM, TEXT_DIM))
    barrier.wait()
    history = train(configuration(512, 256, 6), features).history
    seconds.put(sum(epoch.train_seconds for epoch in history[1:]))


def measure_side_by_side(pairs: int, count: int) -> float:
    """Mean seconds of the same training in `count` concurrent processes."""
    context = multiprocessing.get_context("spawn")
    barrier, seconds = context.Barrier(count), context.Queue()
    processes = [context.Process(target=train_for_a_while, args=(pairs, barrier, seconds)) for _ in range(count)]
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
    parser.add_argument("--attention-batches", type=int, nargs="*", default=[64, 512, 1024])
    parser.add_argument("--pairs", type=int, default=8192, help="of an epoch")
    settings = parser.parse_args()
    pairs, widths, batches = settings.pairs, settings.widths, settings.batches
    rows = [measure(pairs, batch, width, n) for n in settings.threads for width in widths for batch in batches]
    rows += [
        measure(pairs, batch, 256, n, "attention") for n in settings.threads for batch in settings.attention_batches
    ]
    say("training against the floor of its arithmetic", rows)
    alone, together = measure_side_by_side(pairs // 2, 1), measure_side_by_side(pairs // 2, 2)
    concurrent = {"alone s": alone, "two at once s": together, "ratio": together / alone}
    say("two concurrent trials, one thread each", [concurrent])
    write(settings.output, {"training": rows, "concurrent": concurrent})


if __name__ == "__main__":
    main()
