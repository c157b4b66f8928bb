import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from core.model.kernels import interaction, read_interaction, unit_norm


@given(st.integers(1, 5), st.integers(1, 7), st.integers(0, 5))
def test_unit_norm_is_torchs_normalisation_with_the_same_gradient(rows: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    pull = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    ours, theirs = values.clone().requires_grad_(), values.clone().requires_grad_()
    unit_norm(ours).backward(pull)
    functional.normalize(theirs, dim=-1).backward(pull)
    torch.testing.assert_close(unit_norm(values), functional.normalize(values, dim=-1))
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_row_of_zeros_stays_and_its_gradient_is_a_number() -> None:
    rows = torch.zeros(2, 4, requires_grad=True)
    normed = unit_norm(rows)
    assert torch.equal(normed, torch.zeros(2, 4))
    normed.sum().backward()
    assert rows.grad is not None
    assert rows.grad.isfinite().all()


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 20))
def test_interaction_is_the_pair_its_product_and_its_distance_with_their_gradient(
    rows: int, width: int, seed: int
) -> None:
    def slowly(image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        image, text = image * math.sqrt(width), text * math.sqrt(width)
        return torch.cat([image, text, image * text, (image - text).abs()], dim=1)

    generator = torch.Generator().manual_seed(seed)
    image, text = torch.randn(2, rows, width, generator=generator, dtype=torch.float64)
    pull = torch.randn(rows, 4 * width, generator=generator, dtype=torch.float64)
    pairs = [(image.clone().requires_grad_(), text.clone().requires_grad_()) for _ in range(2)]
    found, expected = interaction(*pairs[0]), slowly(*pairs[1])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(read_interaction(image, text, pull[0]), expected @ pull[0])
    found.backward(pull)
    expected.backward(pull)
    for ours, theirs in zip(*pairs, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
