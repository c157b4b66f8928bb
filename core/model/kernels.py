"""Hand-written pieces of a training step, each beside the plain PyTorch that it replaces.

A piece stays only while it takes at least a tenth off a whole step at one of the batch sizes that
`python -m benchmarks.kernels` measures; tests/core/model/test_kernels.py holds it to its reference.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

CODES = 2**16
"""Values of sixteen random bits."""


def interaction(image: Tensor, text: Tensor) -> Tensor:
    """Unit vectors [B, D], [B, D] → [B, 4 D]: v, t, v⊙t and |v − t|, of vectors stretched to a norm of √D.

    Unit vectors have entries of 1/√D, and products of those would vanish beside them.
    """
    stretch = math.sqrt(image.shape[1])
    image, text = image * stretch, text * stretch
    return torch.cat([image, text, image * text, (image - text).abs()], dim=1)


def read_interaction(image: Tensor, text: Tensor, weight: Tensor) -> Tensor:
    """`interaction(image, text) @ weight` part by part, so that [B, 4 D] never exists: [B, D], [B, D], [4 D] → [B]."""
    stretch = math.sqrt(image.shape[1])
    of_image, of_text, of_product, of_distance = weight.chunk(4)
    product = stretch * ((image * text) @ of_product)
    return stretch * (image @ of_image + text @ of_text + product + (image - text).abs() @ of_distance)


def plain_read_interaction(image: Tensor, text: Tensor, weight: Tensor) -> Tensor:
    """Reference of `read_interaction`."""
    return interaction(image, text) @ weight


def dropout(hidden: Tensor, probability: float) -> Tensor:
    """Zero entries and scale up the rest; on the CPU sixteen random bits decide each, so the probability is rounded.

    `functional.dropout` draws a float for each entry there.
    """
    if hidden.device.type != "cpu":
        return functional.dropout(hidden, probability)
    dropped = min(round(probability * CODES), CODES - 1)
    kept = torch.empty_like(hidden)
    torch.ge(_random_codes(hidden), dropped - CODES // 2, out=kept)
    return hidden * kept.mul_(CODES / (CODES - dropped))


def plain_dropout(hidden: Tensor, probability: float) -> Tensor:
    """Reference of `dropout`, with other draws."""
    return functional.dropout(hidden, probability)


def _random_codes(like: Tensor) -> Tensor:
    """int16 uniform over its whole range, four from each 64-bit number of the global generator."""
    numbers = torch.empty(-(-like.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    return numbers.view(torch.int16)[: like.numel()].view(like.shape)
