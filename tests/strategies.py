"""Hypothesis strategies shared by tests."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from core.data.geometry import Box


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Scores of queries over a gallery, with ties and many-to-many relevance."""

    scores: Tensor
    query_groups: Tensor
    gallery_groups: Tensor
    permutation: Tensor
    """Another order of the gallery."""


@st.composite
def score_tables(draw: st.DrawFn) -> ScoreTable:
    """Few distinct scores, so that ties are common; every query has something relevant."""
    gallery = draw(st.lists(st.integers(0, 4), min_size=1, max_size=9))
    queries = draw(st.lists(st.sampled_from(gallery), min_size=1, max_size=7))
    cells = len(gallery) * len(queries)
    scores = draw(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=cells, max_size=cells))
    return ScoreTable(
        torch.tensor(scores).view(len(queries), len(gallery)),
        torch.tensor(queries),
        torch.tensor(gallery),
        torch.tensor(draw(st.permutations(range(len(gallery))))),
    )


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    """x1 y1 x2 y2 within the image, with an area of at least 1e-4."""
    share = st.floats(0.0, 0.98, allow_nan=False)
    x1, y1 = draw(share), draw(share)
    width, height = draw(st.floats(0.01, 1 - x1)), draw(st.floats(0.01, 1 - y1))
    return x1, y1, x1 + width, y1 + height
