import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core.model.kernels import dropout, interaction, plain_dropout, plain_read_interaction, read_interaction


def pairs(rows: int, width: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Images, texts and the weights of a head."""
    generator = torch.Generator().manual_seed(0)
    image, text = torch.randn(2, rows, width, generator=generator, dtype=torch.float64)
    weight = torch.randn(4 * width, generator=generator, dtype=torch.float64)
    return image.to(dtype), text.to(dtype), weight.to(dtype)


def seeded_dropout(hidden: Tensor) -> Tensor:
    torch.manual_seed(0)
    return dropout(hidden, 0.3)


def test_the_gradients_are_those_of_finite_differences() -> None:
    inputs = [values.requires_grad_() for values in pairs(3, 5)]
    assert torch.autograd.gradcheck(read_interaction, inputs)
    assert torch.autograd.gradcheck(seeded_dropout, inputs[:1])


def test_reading_parts_equals_its_reference_with_its_gradient() -> None:
    ours, plain = ([values.requires_grad_() for values in pairs(4, 6)] for _ in range(2))
    read, expected = read_interaction(*ours), plain_read_interaction(*plain)
    torch.testing.assert_close(read, expected)
    read.square().sum().backward()
    expected.square().sum().backward()
    for values, reference in zip(ours, plain, strict=True):
        torch.testing.assert_close(values.grad, reference.grad)


def test_reading_parts_works_in_bfloat16() -> None:
    inputs = [values.requires_grad_() for values in pairs(4, 64, torch.bfloat16)]
    read = read_interaction(*inputs)
    exact = plain_read_interaction(*(values.detach().double() for values in inputs))
    assert read.dtype == torch.bfloat16
    torch.testing.assert_close(read.double(), exact, rtol=0, atol=0.02 * float(exact.abs().max()))
    read.sum().backward()
    assert all(values.grad is not None and values.grad.isfinite().all() for values in inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dropout_keeps_as_many_entries_as_its_reference_at_the_same_scale(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    hidden = torch.ones(1000, 1000, dtype=dtype, requires_grad=True)
    ours, plain = dropout(hidden, 0.25), plain_dropout(hidden, 0.25)
    assert ours.dtype == dtype
    assert torch.equal(ours.unique(), plain.unique())
    kept, as_expected = (float((values > 0).double().mean()) for values in (ours, plain))
    assert kept == pytest.approx(as_expected, abs=0.005)
    ours.sum().backward()
    assert torch.equal(hidden.grad, ours.detach())  # type: ignore[arg-type]


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
