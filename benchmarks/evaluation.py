"""Chunked recall on a full-size gallery against the bare matrix products of the same shape.

    python benchmarks/evaluation.py [--images 55000] [--texts 166000] [--width 256] [--rounds 1]

Random unit vectors, relevance by building as in GeoText-1652's test set (951 buildings). Prints seconds, their ratio,
and the peak memory of the process; writes benchmarks/results/evaluation.json.
"""

import argparse
import resource
import time

import torch

from benchmarks.results import median, say, write
from core.metrics import chunked_ranks, first_relevant_ranks, query_blocks, recall_at


def unit_vectors(rows: int, width: int, seed: int) -> torch.Tensor:
    vectors = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=1)


def seconds_of_products(queries: torch.Tensor, gallery: torch.Tensor) -> float:
    started = time.perf_counter()
    for block in query_blocks(len(queries), len(gallery)):
        queries[block] @ gallery.T
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=55_000)
    parser.add_argument("--texts", type=int, default=166_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--buildings", type=int, default=951)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()

    images, texts = unit_vectors(options.images, options.width, 0), unit_vectors(options.texts, options.width, 1)
    image_groups = torch.arange(options.images) % options.buildings
    text_groups = torch.arange(options.texts) % options.buildings
    ranking, products, recalls = [], [], {}
    for _ in range(options.rounds):
        started = time.perf_counter()
        t2i = chunked_ranks(texts, images, text_groups, image_groups)
        i2t = chunked_ranks(images, texts, image_groups, text_groups)
        ranking.append(time.perf_counter() - started)
        products.append(seconds_of_products(texts, images) + seconds_of_products(images, texts))
        recalls = {"t2i_r10": recall_at(t2i, 10), "i2t_r10": recall_at(i2t, 10)}
    sample = torch.arange(0, options.texts, max(1, options.texts // 200))
    direct = first_relevant_ranks(texts[sample] @ images.T, text_groups[sample], image_groups)
    equal = bool((direct == t2i[sample]).all())
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    result = {
        "images": options.images,
        "texts": options.texts,
        "ranking_seconds": median(ranking),
        "products_seconds": median(products),
        "ratio": median(ranking) / median(products),
        "peak_memory_mb": peak_mb,
        "sample_equals_direct": equal,
        **recalls,
    }
    say("evaluation", result)
    write("evaluation", result)


if __name__ == "__main__":
    main()
