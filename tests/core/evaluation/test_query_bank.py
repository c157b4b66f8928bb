import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from core.evaluation.query_bank import BETA, normalise


def vectors(rows: int, seed: int, width: int = 6) -> Tensor:
    return functional.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def naive(queries: Tensor, gallery: Tensor, bank: Tensor) -> NDArray[np.float64]:
    """Dynamic inverted softmax over whole matrices, as the paper writes it (equations 4 and 5)."""
    asked, banked = ((rows.double() @ gallery.double().T).numpy() for rows in (queries, bank))
    active = set(banked.argmax(axis=1).tolist())
    scores = np.exp(BETA * asked)
    for row, best in enumerate(asked.argmax(axis=1).tolist()):
        if best in active:
            scores[row] /= np.exp(BETA * banked).sum(axis=0)
    return scores


@given(st.integers(0, 1000), st.integers(1, 40), st.integers(1, 30), st.integers(1, 4000))
def test_blocks_order_the_gallery_as_the_whole_matrices_do(
    seed: int, bank: int, gallery: int, score_bytes: int
) -> None:
    asked, items, banked = vectors(20, seed), vectors(gallery, seed + 1), vectors(bank, seed + 2)
    queries, normalised = normalise(asked, items, banked, score_bytes=score_bytes)
    ours, theirs = (queries @ normalised.T).double().numpy(), np.log(naive(asked, items, banked)) / BETA
    np.testing.assert_allclose(ours - ours[:, :1], theirs - theirs[:, :1], atol=2e-6)  # up to a number of each query


def test_a_hub_loses_its_hubness() -> None:
    """Every query and every text of the bank is near to image 0; each query is nearest but for it to its own image."""
    own = torch.eye(8)[1:]
    hub = torch.eye(8)[:1]
    gallery = torch.cat([hub, own])
    queries = functional.normalize(0.8 * hub + 0.55 * own, dim=1)
    bank = functional.normalize(0.8 * hub + 0.55 * own.roll(1, 0), dim=1)
    assert (queries @ gallery.T).argmax(dim=1).tolist() == [0] * 7
    asked, normalised = normalise(queries, gallery, bank)
    assert (asked @ normalised.T).argmax(dim=1).tolist() == list(range(1, 8))


def test_queries_whose_nearest_image_no_text_of_the_bank_is_nearest_to_stay_as_they_are() -> None:
    gallery = torch.eye(3)
    queries = functional.normalize(torch.tensor([[1.0, 0.2, 0.1], [0.1, 1.0, 0.3]]), dim=1)
    asked, normalised = normalise(queries, gallery, gallery[1:2])  # the bank is near to image 1 alone
    scores = asked @ normalised.T
    torch.testing.assert_close(scores[0], queries[0] @ gallery.T)
    assert float(scores[1, 1]) < float(queries[1, 1])


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_a_bank_that_activates_all_images_alike_changes_no_similarity(scale: float) -> None:
    gallery = torch.eye(4)
    queries = vectors(9, 1, width=4)
    asked, normalised = normalise(queries, gallery, scale * torch.cat([gallery, gallery]))
    torch.testing.assert_close(asked @ normalised.T, queries @ gallery.T)
