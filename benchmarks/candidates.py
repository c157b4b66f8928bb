"""Hand-written pieces of a training step that were tried; core has the plain PyTorch that each would replace.

None is used: `python -m benchmarks.kernels` swaps each into a step, and one moves to core only if it saves a tenth of
the step. Each computes the same as its reference (tests/benchmarks/test_candidates.py).
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.device import row_blocks
from core.model.losses import BELOW_ONE, OUT_OF_REACH, draw_columns
from core.model.model import CrossModalModel
from core.model.views import ImageView, TextView

LEAST_NORM = 1e-12
"""Shorter vectors are not scaled to unit norm."""
CODES = 2**16
"""Number of values of 16 random bits."""
CACHED_BYTES = 2**20
"""Logits processed at once: what a core's nearest cache holds."""


class UnitNorm(torch.autograd.Function):
    """`functional.normalize` of rows with a closed-form gradient: a third of the passes over memory."""

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


def unit_norm(rows: Tensor, dim: int = -1) -> Tensor:
    """`functional.normalize` over the last dimension."""
    assert dim == -1
    normed: Tensor = UnitNorm.apply(rows)  # type: ignore[no-untyped-call]
    return normed


class Interaction(torch.autograd.Function):
    """`layers.interaction`: each part is written in place, and backward needs only the result."""

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


def interaction(image: Tensor, text: Tensor) -> Tensor:
    """`layers.interaction`."""
    mixed: Tensor = Interaction.apply(image, text)  # type: ignore[no-untyped-call]
    return mixed


def match_odds(model: CrossModalModel, images: ImageView, texts: TextView) -> Tensor:
    """`CrossModalModel.match_odds` part by part, so that fused pairs [B, 4 D] never exist; interaction only."""
    assert model.fusion == "interaction"
    weight, bias = model.match_head.weight.diff(dim=0)[0], model.match_head.bias.diff()
    of_image, of_text, of_product, of_distance = weight.chunk(4)
    image, text = images.embedded, texts.embedded
    stretch = math.sqrt(image.shape[1])
    product = stretch * ((image * text) @ of_product)
    return stretch * (image @ of_image + text @ of_text + product + (image - text).abs() @ of_distance) + bias


def dropout(hidden: Tensor, p: float, training: bool = True, inplace: bool = False) -> Tensor:
    """`functional.dropout` on the CPU: 16 random bits per entry instead of a float; p is rounded to 1/65,536."""
    if not training:
        return hidden
    dropped = min(round(p * CODES), CODES - 1)
    numbers = torch.empty(-(-hidden.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    codes = numbers.view(torch.int16)[: hidden.numel()].view(hidden.shape)  # four per number
    kept = torch.empty_like(hidden)
    torch.ge(codes, dropped - CODES // 2, out=kept)
    return hidden * kept.mul_(CODES / (CODES - dropped))


class Contrastive(torch.autograd.Function):
    """`losses.itc_loss`: its gradient is softmax of rows plus softmax of columns minus twice the targets, a block of
    rows at a time, so that no numbers [B, B] exist beside the logits and their gradient.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, same: Tensor, log_sum_exp: Callable[[Tensor], Tensor]) -> Tensor:
        to_texts, positives, counts = (torch.empty_like(logits[0]) for _ in range(3))
        highest, mass = torch.full_like(logits[0], -math.inf), torch.zeros_like(logits[0])  # of the columns so far
        for block in cached_blocks(logits):
            rows, matching = logits[block], same[block].to(logits.dtype)
            counts[block] = matching.sum(dim=1)
            positives[block] = torch.linalg.vecdot(rows, matching)
            to_texts[block] = log_sum_exp(rows)
            before, highest = highest, torch.maximum(highest, rows.amax(dim=0))
            mass.mul_((before - highest).exp_()).add_((rows - highest).exp_().sum(dim=0))
        to_images = mass.log_().add_(highest)
        ctx.save_for_backward(logits, same, to_texts, to_images, counts)
        return ((to_texts + to_images) / 2 - positives / counts).mean()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        logits, same, to_texts, to_images, counts = ctx.saved_tensors
        to_logits = torch.empty_like(logits)
        for block in cached_blocks(logits):
            of_block = torch.sub(logits[block], to_texts[block, None], out=to_logits[block]).exp_()
            of_block += (logits[block] - to_images).exp_()
            of_block -= same[block].to(logits.dtype).mul_(2 / counts[block, None])
            of_block *= gradient / (2 * len(logits))
        return to_logits, None, None


def itc_loss(logits: Tensor, same: Tensor) -> Tensor:
    """`losses.itc_loss`."""
    loss: Tensor = Contrastive.apply(logits, same, lambda rows: rows.logsumexp(dim=1))  # type: ignore[no-untyped-call]
    return loss


def itc_loss_by_softmax(logits: Tensor, same: Tensor) -> Tensor:
    """`itc_loss` with the log-sum-exp of rows by way of the softmax of their largest entry, which is never 0."""

    def log_sum_exp(rows: Tensor) -> Tensor:
        return rows.amax(dim=1) - rows.softmax(dim=1).amax(dim=1).log_()

    loss: Tensor = Contrastive.apply(logits, same, log_sum_exp)  # type: ignore[no-untyped-call]
    return loss


def hard_negatives(logits: Tensor, same: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`losses.hard_negatives`, a block of rows at a time."""
    points = torch.rand(2, len(same), 1, generator=generator).mul_(BELOW_ONE)
    texts, images = torch.empty(2, len(same), dtype=torch.int64)
    columns = logits.T.contiguous()
    for block in cached_blocks(logits):
        barred, alone = same[block].to(logits.dtype), same[block].all(dim=1)
        for drawn, scores, starts in ((texts, logits, points[0]), (images, columns, points[1])):
            allowed = torch.add(scores[block], barred, alpha=OUT_OF_REACH)
            drawn[block] = draw_columns(allowed, starts[block]).masked_fill_(alone, -1)
    return texts, images


def cached_blocks(logits: Tensor) -> list[slice]:
    """Blocks of rows to process at once."""
    return list(row_blocks(len(logits), len(logits), max_bytes=CACHED_BYTES))


def count_true(mask: Tensor) -> Tensor:
    """`metrics.count_true` by numpy, a row at a time."""
    return torch.tensor([np.count_nonzero(row) for row in mask.numpy()], dtype=torch.int64)
