"""Pooling the hidden states of an image's or a text's tokens into one vector."""

import torch
from torch import Tensor

from core.config import ImagePooling, TextPooling


def pool_images(hidden: Tensor) -> dict[ImagePooling, Tensor]:
    """One vector per image, for each pooling.

    Args:
        hidden: [B, 1 + P, vision_dim], the CLS token first.
    Returns:
        [B, vision_dim] float32 each.
    """
    hidden = hidden.float()
    return {"cls": hidden[:, 0], "mean": hidden[:, 1:].mean(dim=1)}


def pool_texts(hidden: Tensor, mask: Tensor) -> dict[TextPooling, Tensor]:
    """One vector per text, for each pooling; padding never contributes.

    Args:
        hidden: [B, L, text_dim].
        mask: [B, L], 1 for tokens and 0 for the padding on the right.
    Returns:
        [B, text_dim] float32 each.
    """
    hidden = hidden.float()
    lengths = mask.sum(dim=1)  # [B]
    mean = (hidden * mask.unsqueeze(-1)).sum(dim=1) / lengths.unsqueeze(-1)
    last = hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]
    return {"first": hidden[:, 0], "mean": mean, "last": last}
