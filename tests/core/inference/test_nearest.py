import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from core.inference import nearest
from core.inference.nearest import Gallery


def vectors(count: int, seed: int) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).standard_normal((count, 16))
    rows: NDArray[np.float32] = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    return rows


def test_the_nearest_are_those_of_the_whole_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "SCORE_BYTES", 4000)  # blocks of two queries
    queries, gallery = vectors(7, 0), vectors(500, 1)
    scores, rows = Gallery(gallery).nearest(queries, 5)
    expected = np.argsort(-(queries @ gallery.T), axis=1)[:, :5]
    assert rows.tolist() == expected.tolist()
    assert scores == pytest.approx(np.take_along_axis(queries @ gallery.T, expected, axis=1), abs=1e-6)
    assert Gallery(gallery[:3]).nearest(queries, 5)[1].shape == (7, 3)


def test_faiss_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    queries, gallery = vectors(7, 0), vectors(500, 1)
    scores, rows = Gallery(gallery).nearest(queries, 20)
    monkeypatch.setattr(nearest, "FAISS_FROM", 500)
    with_faiss = Gallery(gallery)
    faiss_scores, faiss_rows = with_faiss.nearest(queries, 20)
    assert "faiss" in sys.modules
    assert faiss_rows.tolist() == rows.tolist()
    assert faiss_scores == pytest.approx(scores, abs=1e-6)
    assert faiss_rows.dtype == rows.dtype
