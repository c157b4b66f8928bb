"""Seconds of an epoch as the number of pairs grows, on random features (no images).

    python -m benchmarks.scaling [--pairs 10000 100000 1000000] [--batch 1024]

Features of InternVL3-1B's widths, three captions per image as in GeoText-1652, and a validation split of fixed size.
Each size runs in its own process, so that its peak memory is separate. Peak memory includes the features, which are in
memory here; a real store is memory-mapped.
"""

import multiprocessing
import resource
from typing import Any

import torch

from benchmarks.results import Row, options, say, write
from core.config import TrainConfig
from core.features.random import SplitShape, random_features
from core.features.store import Widths
from core.training.train import train

VISION_DIM, TEXT_DIM = 1024, 896


def shape(pairs: int) -> SplitShape:
    return SplitShape(images=pairs // 3, groups=max(2, pairs // 150), captions=pairs, texts=pairs, regions=pairs)


def measure(pairs: int, batch: int, threads: int, answers: Any) -> None:
    torch.set_num_threads(threads)
    features = random_features(shape(pairs), shape(3000), Widths(VISION_DIM, TEXT_DIM))
    config = TrainConfig().with_overrides({"optimizer.batch_size": batch, "recipe.epochs": 2, "device": "cpu"})
    last = train(config, features).history[-1]
    features_mb = 4 * (len(features.train.images) * VISION_DIM + len(features.train.texts) * TEXT_DIM) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    answers.put(
        {
            "pairs": pairs,
            "epoch s": last.train_seconds,
            "µs per pair": last.train_seconds / pairs * 1e6,
            "validation s": last.evaluation_seconds,
            "features MB": features_mb,
            "peak MB beyond features": peak - features_mb,
        }
    )


def main() -> None:
    parser = options(__doc__ or "", "scaling")
    parser.add_argument("--pairs", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    settings = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    rows: list[Row] = []
    for pairs in settings.pairs:
        answers = context.Queue()
        process = context.Process(target=measure, args=(pairs, settings.batch, settings.threads, answers))
        process.start()
        rows.append(answers.get())
        process.join()
        rows[-1]["times the first"] = rows[-1]["µs per pair"] / rows[0]["µs per pair"]
    say(f"an epoch at batch {settings.batch}", rows)
    write(settings.output, {"scaling": rows})


if __name__ == "__main__":
    main()
