"""Pooling the hidden states of an image's or a text's tokens."""

import math

import torch
from torch import Tensor
from torch.nn import functional


def pool_image(hidden: Tensor, pooling: str) -> Tensor:
    """One vector per image.

    Args:
        hidden: [B, 1 + P, vision_dim], the CLS token first.
        pooling: `cls`, or the `mean` of the patches.
    Returns:
        [B, vision_dim] float32.
    """
    return hidden[:, 0].float() if pooling == "cls" else hidden[:, 1:].float().mean(dim=1)


def pool_grid(hidden: Tensor, side: int) -> Tensor:
    """Average-pooled patches, row by row from the top left.

    Args:
        hidden: [B, 1 + P, vision_dim], the CLS token first; P is a square.
    Returns:
        [B, side², vision_dim] float16.
    """
    patches = hidden[:, 1:].float().mT  # [B, vision_dim, P]
    rows = math.isqrt(patches.shape[2])
    pooled = functional.adaptive_avg_pool2d(patches.reshape(*patches.shape[:2], rows, rows), side)
    return pooled.flatten(2).mT.contiguous().half()


def pool_text(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """One vector per text; padding never contributes.

    Args:
        hidden: [B, L, text_dim].
        mask: [B, L], 1 for tokens and 0 for the padding on the right.
        pooling: the `first` or `last` token, or the `mean` of all.
    Returns:
        [B, text_dim] float32.
    """
    if pooling == "first":
        return hidden[:, 0].float()
    lengths = mask.sum(dim=1)  # [B]
    if pooling == "mean":
        return (hidden.float() * mask.unsqueeze(-1)).sum(dim=1) / lengths.unsqueeze(-1)
    return hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1].float()
