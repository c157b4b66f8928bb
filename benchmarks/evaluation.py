"""Chunked recall on a full-size gallery against the bare matrix products of the same shape.

    python -m benchmarks.evaluation [--images 55000] [--texts 166000] [--width 256] [--rounds 1]

Random unit vectors, relevance by building as in GeoText-1652's test set (951 buildings). A quarter of the gallery goes
first, so that the table shows what memory does as the gallery grows.
"""

import resource
import time

import torch

from benchmarks.results import Row, median, options, say, write
from core.metrics import chunked_ranks, first_relevant_ranks, query_blocks, recall_at


def unit_vectors(rows: int, width: int, seed: int) -> torch.Tensor:
    vectors = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=1)


def seconds_of_products(queries: torch.Tensor, gallery: torch.Tensor) -> float:
    started = time.perf_counter()
    for block in query_blocks(len(queries), len(gallery)):
        queries[block] @ gallery.T
    return time.perf_counter() - started


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def measure(image_count: int, text_count: int, width: int, buildings: int, rounds: int) -> Row:
    before = peak_mb()
    images, texts = unit_vectors(image_count, width, 0), unit_vectors(text_count, width, 1)
    image_groups, text_groups = torch.arange(image_count) % buildings, torch.arange(text_count) % buildings
    ranking, products = [], []
    for _ in range(rounds):
        started = time.perf_counter()
        t2i = chunked_ranks(texts, images, text_groups, image_groups)
        i2t = chunked_ranks(images, texts, image_groups, text_groups)
        ranking.append(time.perf_counter() - started)
        products.append(seconds_of_products(texts, images) + seconds_of_products(images, texts))
    sample = torch.arange(0, text_count, max(1, text_count // 200))
    direct = first_relevant_ranks(texts[sample] @ images.T, text_groups[sample], image_groups)
    embeddings_mb = 4 * width * (image_count + text_count) / 2**20
    return {
        "images": image_count,
        "texts": text_count,
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
    parser.add_argument("--images", type=int, default=55_000)
    parser.add_argument("--texts", type=int, default=166_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--buildings", type=int, default=951)
    parser.add_argument("--rounds", type=int, default=1)
    asked = parser.parse_args()
    sizes = [(asked.images // 4, asked.texts // 4), (asked.images, asked.texts)]
    rows = [measure(images, texts, asked.width, asked.buildings, asked.rounds) for images, texts in sizes]
    say("recall over a gallery, both directions", rows)
    write(asked.output, {"galleries": rows})


if __name__ == "__main__":
    main()
