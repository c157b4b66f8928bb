"""Query bank normalisation (QB-Norm): images that answer many training captions count less as answers to text queries.

Galleries have hubs, images that are near to many texts. How strongly the captions of the training split activate an
image tells how much of a hub it is.

Source: Bogolin et al., Cross Modal Retrieval with Querybank Normalisation (2112.12777) §3.3, dynamic inverted softmax.
"""

import math

import torch
from torch import Tensor

from core.device import row_blocks
from core.evaluation.metrics import SCORE_BYTES

BETA = 10.0
"""Inverse temperature of the softmax over the bank; the authors' 20 costs recall at 1 on the demo data."""


@torch.no_grad()
def normalise(
    queries: Tensor, gallery: Tensor, bank: Tensor, *, score_bytes: int = SCORE_BYTES
) -> tuple[Tensor, Tensor]:
    """Queries and gallery whose dot products order the gallery as normalised similarities do.

    A normalised similarity is exp(β s) over the sum of exp(β s) of the same image with all of the bank, in logarithms
    over β: s less a number of the image. So it is a dot product with one more dimension. Only queries whose nearest
    image is also the nearest of some text of the bank are normalised; the others have 0 there.

    Args:
        queries, gallery, bank: [Q, D], [G, D] and [B, D] float32, unit norm; the bank holds texts, as the queries do.
        score_bytes: maximum memory of one block of scores.
    Returns:
        [Q, D + 1] and [G, D + 1].
    """
    activation = _activation(gallery, bank, score_bytes)
    activated = torch.zeros(len(gallery), dtype=torch.bool, device=gallery.device)
    activated[_nearest(bank, gallery, score_bytes)] = True
    applies = activated[_nearest(queries, gallery, score_bytes)]
    return (
        torch.cat([queries, -applies[:, None].to(queries.dtype)], dim=1),
        torch.cat([gallery, activation[:, None]], dim=1),
    )


def _activation(gallery: Tensor, bank: Tensor, score_bytes: int) -> Tensor:
    """Logarithm of the sum of exp(β s) of each image with the bank, over β: [G], of mean 0."""
    total = gallery.new_full((len(gallery),), -math.inf)
    for block in row_blocks(len(bank), len(gallery), max_bytes=score_bytes):
        total = torch.logaddexp(total, (BETA * bank[block] @ gallery.T).logsumexp(dim=0))
    return (total - total.mean()) / BETA  # the same number off all images changes no order, and small ones are exact


def _nearest(queries: Tensor, gallery: Tensor, score_bytes: int) -> Tensor:
    """Row [Q] of the most similar item of the gallery."""
    blocks = row_blocks(len(queries), len(gallery), max_bytes=score_bytes)
    return torch.cat([(queries[block] @ gallery.T).argmax(dim=1) for block in blocks])
