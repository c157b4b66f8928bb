"""Counting the floating-point operations of passes of the backbone."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

_ATTENTION = (
    torch.ops.aten._scaled_dot_product_flash_attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,
    torch.ops.aten._scaled_dot_product_efficient_attention,
    torch.ops.aten._scaled_dot_product_cudnn_attention,
)


def flop_counter() -> FlopCounterMode:
    """A context that counts matrix products, convolutions and attention; read it by `get_total_flops`.

    PyTorch's own formula leaves attention on a CPU out, and before 2.13 refuses query heads that share keys and values.
    """
    return FlopCounterMode(display=False, custom_mapping=dict.fromkeys(_ATTENTION, _attention_flops))


def _attention_flops(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    """Of both products, from shapes [B, heads, L, width]; a causal mask saves nothing here."""
    batch, heads, length, width = query
    return 2 * batch * heads * length * key[2] * (width + value[3])
