import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from core.model.layers import Dropout, interaction, read_interaction, unit_norm


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


@pytest.mark.parametrize("probability", [0.001, 0.1, 0.5, 0.97])
def test_dropout_drops_its_share_and_keeps_the_mean(probability: float) -> None:
    torch.manual_seed(0)
    dropout = Dropout(probability)
    dropped = dropout(torch.ones(1000, 1000))
    share = float((dropped == 0).float().mean())
    assert share == pytest.approx(probability, abs=5 * (probability * (1 - probability) / 1e6) ** 0.5)
    assert float(dropped.max()) == pytest.approx(1 / (1 - probability), rel=1e-3)
    assert float(dropped.mean()) == pytest.approx(1, abs=0.03)


def test_dropout_treats_neighbours_independently() -> None:
    torch.manual_seed(0)
    kept = Dropout(0.5)(torch.ones(500, 1001)) > 0
    for shift in (1, 2, 3, 4):  # four entries share one drawn number
        both = float((kept[:, shift:] & kept[:, :-shift]).float().mean())
        assert both == pytest.approx(0.25, abs=0.005)


def test_what_is_dropped_gets_no_gradient() -> None:
    torch.manual_seed(0)
    hidden = torch.ones(50, 50, requires_grad=True)
    dropped = Dropout(0.3)(hidden)
    dropped.sum().backward()
    assert torch.equal(hidden.grad, dropped.detach())


def test_equal_seeds_drop_the_same_and_other_seeds_do_not() -> None:
    def drop(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        dropped: torch.Tensor = Dropout(0.5)(torch.ones(9, 9))
        return dropped

    assert torch.equal(drop(1), drop(1))
    assert not torch.equal(drop(1), drop(2))


@pytest.mark.parametrize("probability", [0.0, 0.5])
def test_nothing_is_dropped_in_evaluation(probability: float) -> None:
    hidden = torch.randn(3, 4)
    assert torch.equal(Dropout(probability).eval()(hidden), hidden)
    assert torch.equal(Dropout(0.0)(hidden), hidden)


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
