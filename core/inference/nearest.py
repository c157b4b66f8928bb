"""The nearest of many vectors by dot product, exactly: in blocks, or with faiss where there are millions of them."""

from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.device import row_blocks
from core.evaluation.metrics import SCORE_BYTES

FAISS_FROM = 1_000_000
"""Number of vectors from which faiss, if it is installed, searches them."""

Nearest = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Scores [Q, k], highest first, and rows [Q, k]."""


class Gallery:
    """Vectors [N, D] to be searched."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self.vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        self._faiss: Any = None

    def nearest(self, queries: NDArray[np.float32], top: int) -> Nearest:
        """The nearest vectors of each query [Q, D]; fewer than `top` if there are not so many."""
        top = min(top, len(self.vectors))
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if len(self.vectors) >= FAISS_FROM and find_spec("faiss"):
            return self._with_faiss(queries, top)
        return self._in_blocks(queries, top)

    def _in_blocks(self, queries: NDArray[np.float32], top: int) -> Nearest:
        asking, gallery = torch.from_numpy(queries), torch.from_numpy(self.vectors)
        blocks = row_blocks(len(asking), len(gallery), max_bytes=SCORE_BYTES)
        parts = [(asking[block] @ gallery.T).topk(top, dim=1) for block in blocks]
        scores, rows = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
        return scores, rows

    def _with_faiss(self, queries: NDArray[np.float32], top: int) -> Nearest:
        if self._faiss is None:
            import faiss  # an extra

            self._faiss = faiss.IndexFlatIP(self.vectors.shape[1])
            self._faiss.add(self.vectors)
        scores, rows = self._faiss.search(queries, top)
        return scores, rows.astype(np.int64)
