import pytest
import torch
from torch.nn import functional

from core.backbone.cost import flop_counter


@pytest.mark.parametrize("shared", [1, 3])
def test_attention_counts_both_of_its_products(shared: int) -> None:
    """Also where several heads of queries share those of keys and values."""
    query, key = torch.randn(2, 6, 5, 8), torch.randn(2, 6 // shared, 7, 8)
    with flop_counter() as counter:
        functional.scaled_dot_product_attention(query, key, key, enable_gqa=shared > 1)
    assert counter.get_total_flops() == 2 * (2 * 6 * 5 * 7 * 8) * 2


def test_a_matrix_product_counts_a_multiplication_and_an_addition_per_term() -> None:
    with flop_counter() as counter:
        torch.randn(3, 4) @ torch.randn(4, 5)
    assert counter.get_total_flops() == 2 * 3 * 4 * 5
