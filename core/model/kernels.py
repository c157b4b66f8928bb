"""Hand-written pieces of a training step, each beside the plain PyTorch that it replaces.

A piece stays only while it takes at least a tenth off a whole step at one of the batch sizes that
`python -m benchmarks.kernels` measures; tests/core/model/test_kernels.py holds it to its reference.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from core.device import row_blocks

LEAST_NORM = 1e-12
"""Below it a vector is not stretched to unit norm."""
CODES = 2**16
"""Values of sixteen random bits."""
CACHED_BYTES = 2**20
"""Of logits that are worked on at once on a CPU: what its cache nearest to a core holds."""


def unit_norm(rows: Tensor) -> Tensor:
    """[B, D] → [B, D], each row over its Euclidean norm; one of 0 stays 0."""
    normed: Tensor = _UnitNorm.apply(rows)  # type: ignore[no-untyped-call]
    return normed


def plain_unit_norm(rows: Tensor) -> Tensor:
    """Reference of `unit_norm`."""
    return functional.normalize(rows, dim=-1, eps=LEAST_NORM)


class _UnitNorm(torch.autograd.Function):
    """`functional.normalize` with its gradient in closed form: a third of the passes over memory."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        scale = torch.linalg.vector_norm(rows, dim=-1, keepdim=True).clamp_min_(LEAST_NORM).reciprocal_()
        normed = rows.mul(scale)
        ctx.save_for_backward(normed, scale)
        return normed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        normed, scale = ctx.saved_tensors
        along = torch.linalg.vecdot(gradient, normed).unsqueeze(-1)
        return torch.addcmul(gradient, normed, along, value=-1).mul_(scale)


def interaction(image: Tensor, text: Tensor) -> Tensor:
    """Unit vectors [B, D], [B, D] → [B, 4 D]: v, t, v⊙t and |v − t|, of vectors stretched to a norm of √D.

    Unit vectors have entries of 1/√D, and products of those would vanish beside them.
    """
    mixed: Tensor = _Interaction.apply(image, text)  # type: ignore[no-untyped-call]
    return mixed


def plain_interaction(image: Tensor, text: Tensor) -> Tensor:
    """Reference of `interaction`."""
    stretch = math.sqrt(image.shape[1])
    image, text = image * stretch, text * stretch
    return torch.cat([image, text, image * text, (image - text).abs()], dim=1)


class _Interaction(torch.autograd.Function):
    """Each part is written where it belongs, and the backward pass needs nothing but the result."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, text: Tensor) -> Tensor:
        stretch = math.sqrt(image.shape[1])
        mixed = torch.cat([image, text, image, image], dim=1).mul_(stretch)
        _, stretched, product, distance = mixed.chunk(4, dim=1)
        product *= stretched
        distance.sub_(stretched).abs_()
        ctx.save_for_backward(mixed)
        return mixed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        (mixed,) = ctx.saved_tensors
        image, text, _, _ = mixed.chunk(4, dim=1)
        of_image, of_text, of_product, of_distance = gradient.chunk(4, dim=1)
        apart = (image - text).sgn_().mul_(of_distance)
        stretch = math.sqrt(image.shape[1])
        to_image = torch.addcmul(of_image, of_product, text).add_(apart).mul_(stretch)
        to_text = torch.addcmul(of_text, of_product, image).sub_(apart).mul_(stretch)
        return to_image, to_text


def read_interaction(image: Tensor, text: Tensor, weight: Tensor) -> Tensor:
    """`interaction(image, text) @ weight`, part by part, so that it never exists: [B, D], [B, D], [4 D] → [B]."""
    stretch = math.sqrt(image.shape[1])
    of_image, of_text, of_product, of_distance = weight.chunk(4)
    product = stretch * ((image * text) @ of_product)
    return stretch * (image @ of_image + text @ of_text + product + (image - text).abs() @ of_distance)


def plain_read_interaction(image: Tensor, text: Tensor, weight: Tensor) -> Tensor:
    """Reference of `read_interaction`."""
    return plain_interaction(image, text) @ weight


def dropout(hidden: Tensor, probability: float) -> Tensor:
    """Drop entries and scale up the rest; on the CPU sixteen random bits decide, so the probability is rounded.

    There `functional.dropout` draws a float for each entry.
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


def contrastive(logits: Tensor, groups: Tensor) -> Tensor:
    """Cross-entropy of rows and of columns against equal shares of all of the own group: [B, B], [B] → scalar."""
    loss: Tensor = _Contrastive.apply(logits, groups)  # type: ignore[no-untyped-call]
    return loss


def plain_contrastive(logits: Tensor, groups: Tensor) -> Tensor:
    """Reference of `contrastive`."""
    same = (groups[:, None] == groups).to(logits.dtype)
    positives = (logits * same).sum(dim=1) / same.sum(dim=1)
    return ((logits.logsumexp(dim=1) + logits.logsumexp(dim=0)) / 2 - positives).mean()


class _Contrastive(torch.autograd.Function):
    """Softmax of rows plus softmax of columns minus twice the targets is its gradient: a block of rows at a time, so
    that a large batch needs nothing of size [B, B] beside its logits and their gradient.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, groups: Tensor) -> Tensor:
        to_texts, positives, counts = (torch.empty_like(logits[0]) for _ in range(3))
        highest, mass = torch.full_like(logits[0], -math.inf), torch.zeros_like(logits[0])  # of the columns so far
        for block in cached_blocks(logits):
            rows, same = logits[block], same_group(groups, block, logits.dtype)
            counts[block] = same.sum(dim=1)
            positives[block] = torch.linalg.vecdot(rows, same)
            to_texts[block] = log_sum_exp(rows)
            before, highest = highest, torch.maximum(highest, rows.amax(dim=0))
            mass.mul_((before - highest).exp_()).add_((rows - highest).exp_().sum(dim=0))
        to_images = mass.log_().add_(highest)
        ctx.save_for_backward(logits, groups, to_texts, to_images, counts)
        return ((to_texts + to_images) / 2 - positives / counts).mean()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        logits, groups, to_texts, to_images, counts = ctx.saved_tensors
        to_logits = torch.empty_like(logits)
        for block in cached_blocks(logits):
            of_block = torch.sub(logits[block], to_texts[block, None], out=to_logits[block]).exp_()
            of_block += (logits[block] - to_images).exp_()
            of_block -= same_group(groups, block, logits.dtype).mul_(2 / counts[block, None])
            of_block *= gradient / (2 * len(logits))
        return to_logits, None


def log_sum_exp(rows: Tensor) -> Tensor:
    """[b, B] → [b] in half the time of `logsumexp`, by way of the softmax of the largest entry, which is never 0."""
    return rows.amax(dim=1) - rows.softmax(dim=1).amax(dim=1).log_()


def plain_log_sum_exp(rows: Tensor) -> Tensor:
    """Reference of `log_sum_exp`."""
    return rows.logsumexp(dim=1)


def cached_blocks(logits: Tensor) -> list[slice]:
    """Runs of rows to work on at once."""
    size = len(logits)
    on_cpu = logits.device.type == "cpu"
    return list(row_blocks(size, size, max_bytes=CACHED_BYTES)) if on_cpu else plain_blocks(logits)


def plain_blocks(logits: Tensor) -> list[slice]:
    """Reference of `cached_blocks`: all rows at once."""
    return [slice(0, len(logits))]


def same_group(groups: Tensor, block: slice, dtype: torch.dtype) -> Tensor:
    """[b, B]: 1 where row and column are of the same group, else 0. Comparing costs more than arithmetic."""
    rows = groups[block, None]
    same = torch.empty(len(rows), len(groups), device=groups.device, dtype=dtype)
    return torch.eq(rows, groups[None, :], out=same)
