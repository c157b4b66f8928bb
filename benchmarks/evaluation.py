"""Chunked recall on a full-size gallery against the bare matrix products of the same shape.

    python -m benchmarks.evaluation [--images 55000] [--texts 166000] [--width 256] [--rounds 1] [--queries 2000]

Random unit vectors, relevance by building as in GeoText-1652's test set (951 buildings). A quarter of the gallery runs
first, so that the table shows how memory grows with the gallery. `--queries` limits the queries of each direction to an
evenly spaced sample; the gallery stays whole.
"""

import argparse
import time
from pathlib import Path

import torch

from benchmarks.results import Row, median, options, say, write
from core.device import row_blocks
from core.evaluation.metrics import SCORE_BYTES, chunked_ranks, first_relevant_ranks, recall_at

IMAGES, TEXTS = 55_000, 166_000
"""Sizes of GeoText-1652's test set."""


def unit_vectors(rows: int, width: int, seed: int) -> torch.Tensor:
    vectors = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=1)


def seconds_of_products(queries: torch.Tensor, gallery: torch.Tensor) -> float:
    started = time.perf_counter()
    for block in row_blocks(len(queries), len(gallery), max_bytes=SCORE_BYTES):
        queries[block] @ gallery.T
    return time.perf_counter() - started


def peak_mb() -> float:
    """Peak resident memory of this process; `ru_maxrss` may include that of its parent."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**10


def spread(rows: int, count: int | None) -> torch.Tensor:
    return torch.arange(0, rows, max(1, rows // (count or rows)))[: count or rows]


def measure(image_count: int, text_count: int, settings: argparse.Namespace) -> Row:
    before = peak_mb()
    images, texts = unit_vectors(image_count, settings.width, 0), unit_vectors(text_count, settings.width, 1)
    image_groups, text_groups = (
        torch.arange(image_count) % settings.buildings,
        torch.arange(text_count) % settings.buildings,
    )
    some_images, some_texts = spread(image_count, settings.queries), spread(text_count, settings.queries)
    asking_images, asking_texts = images[some_images], texts[some_texts]
    ranking, products = [], []
    for _ in range(settings.rounds):
        started = time.perf_counter()
        t2i = chunked_ranks(asking_texts, images, text_groups[some_texts], image_groups)
        i2t = chunked_ranks(asking_images, texts, image_groups[some_images], text_groups)
        ranking.append(time.perf_counter() - started)
        products.append(seconds_of_products(asking_texts, images) + seconds_of_products(asking_images, texts))
    sample = spread(len(some_texts), 200)
    rows = some_texts[sample]
    direct = first_relevant_ranks(texts[rows] @ images.T, text_groups[rows], image_groups)
    embeddings_mb = 4 * settings.width * (image_count + text_count) / 2**20
    return {
        "images": image_count,
        "texts": text_count,
        "queries": settings.queries,
        "ranking_seconds": median(ranking),
        "products_seconds": median(products),
        "ratio": median(ranking) / median(products),
        "peak_memory_mb": peak_mb(),
        "beyond_embeddings_mb": peak_mb() - before - embeddings_mb,
        "sample_equals_direct": bool((direct == t2i[sample]).all()),
        "t2i_r10": recall_at(t2i, 10),
        "i2t_r10": recall_at(i2t, 10),
    }


def main() -> None:
    parser = options(__doc__ or "", "evaluation")
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--texts", type=int, default=TEXTS)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--buildings", type=int, default=951)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--queries", type=int, help="queries per direction; default: all")
    settings = parser.parse_args()
    sizes = [(settings.images // 4, settings.texts // 4), (settings.images, settings.texts)]
    rows = [measure(images, texts, settings) for images, texts in sizes]
    say("recall over a gallery, both directions", rows)
    write(settings.output, {"galleries": rows})


if __name__ == "__main__":
    main()
