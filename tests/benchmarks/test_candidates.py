"""The hand-written candidates compute the same as the plain PyTorch in core."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import candidates
from core.config import ModelConfig
from core.evaluation import metrics
from core.features.store import Widths
from core.model import layers, losses
from core.model.model import CrossModalModel
from core.model.views import ImageView, TextView

GROUPS = torch.tensor([0, 0, 1, 2, 2, 3])
SAME = GROUPS[:, None] == GROUPS
MODEL = CrossModalModel(Widths(4, 4), ModelConfig(adapter_width=4, embed_dim=6, fusion="interaction"))
MODEL.requires_grad_(False)


def match_odds(image: Tensor, text: Tensor) -> Tensor:
    return candidates.match_odds(MODEL.to(image.dtype), ImageView(image), TextView(text))


def plain_match_odds(image: Tensor, text: Tensor) -> Tensor:
    return MODEL.to(image.dtype).match_odds(ImageView(image), TextView(text))


def dropout(hidden: Tensor) -> Tensor:
    torch.manual_seed(0)
    return candidates.dropout(hidden, 0.25)


Function = Callable[..., Tensor]
CANDIDATES: dict[str, tuple[Function, Function, int]] = {
    "unit norm": (candidates.unit_norm, lambda rows: functional.normalize(rows, dim=-1), 1),
    "interaction": (candidates.interaction, layers.interaction, 2),
    "matching": (match_odds, plain_match_odds, 2),
    "contrastive": (
        lambda logits: candidates.itc_loss(logits, SAME),
        lambda logits: losses.itc_loss(logits, SAME),
        1,
    ),
    "contrastive by softmax": (
        lambda logits: candidates.itc_loss_by_softmax(logits, SAME),
        lambda logits: losses.itc_loss(logits, SAME),
        1,
    ),
}


def inputs(count: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(count, 6, 6, generator=generator, dtype=torch.float64)
    return [value.to(dtype).requires_grad_() for value in values]


@pytest.fixture(params=[1, 2**20], ids=["in blocks", "whole"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.candidates.CACHED_BYTES", request.param)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(("candidate", "plain", "count"), CANDIDATES.values(), ids=CANDIDATES.keys())
def test_a_candidate_equals_its_reference_with_its_gradient(candidate: Function, plain: Function, count: int) -> None:
    assert torch.autograd.gradcheck(candidate, inputs(count))
    ours, reference = inputs(count), inputs(count)
    computed, expected = candidate(*ours), plain(*reference)
    torch.testing.assert_close(computed, expected)
    computed.square().sum().backward()
    expected.square().sum().backward()
    for value, other in zip(ours, reference, strict=True):
        torch.testing.assert_close(value.grad, other.grad)


@pytest.mark.parametrize(("candidate", "plain", "count"), CANDIDATES.values(), ids=CANDIDATES.keys())
def test_a_candidate_works_in_bfloat16(candidate: Function, plain: Function, count: int) -> None:
    values = inputs(count, torch.bfloat16)
    computed, exact = candidate(*values), plain(*(value.detach().double() for value in values))
    assert computed.dtype == torch.bfloat16
    torch.testing.assert_close(computed.double(), exact, rtol=0, atol=0.02 * max(1.0, float(exact.abs().max())))
    computed.sum().backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in values)


def test_dropout_has_its_gradient_and_drops_its_share_in_any_precision() -> None:
    assert torch.autograd.gradcheck(dropout, inputs(1))
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        dropped = dropout(torch.ones(1000, 1000, dtype=dtype))
        plain = functional.dropout(torch.ones(1000, 1000, dtype=dtype), 0.25)
        assert dropped.dtype == dtype
        assert torch.equal(dropped.unique(), plain.unique())
        assert float((dropped > 0).double().mean()) == pytest.approx(0.75, abs=0.005)


@pytest.mark.parametrize("probability", [0.001, 0.1, 0.5, 0.97])
def test_dropout_drops_its_share_and_keeps_the_mean(probability: float) -> None:
    torch.manual_seed(0)
    dropped = candidates.dropout(torch.ones(1000, 1000), probability)
    share = float((dropped == 0).float().mean())
    assert share == pytest.approx(probability, abs=5 * (probability * (1 - probability) / 1e6) ** 0.5)
    assert float(dropped.max()) == pytest.approx(1 / (1 - probability), rel=1e-3)
    assert float(dropped.mean()) == pytest.approx(1, abs=0.03)


def test_what_is_dropped_gets_no_gradient() -> None:
    hidden = torch.ones(50, 50, requires_grad=True)
    dropped = dropout(hidden)
    dropped.sum().backward()
    assert torch.equal(hidden.grad, dropped.detach())  # type: ignore[arg-type]


def test_dropout_treats_neighbours_independently() -> None:
    kept = dropout(torch.ones(500, 1001)) > 0
    for shift in (1, 2, 3, 4):  # four entries share one drawn number
        both_kept = float((kept[:, shift:] & kept[:, :-shift]).float().mean())
        assert both_kept == pytest.approx(0.75**2, abs=0.005)


@pytest.mark.usefixtures("blocks")
def test_the_same_hard_negatives_are_drawn() -> None:
    groups, logits = torch.arange(50) // 2, torch.randn(50, 50)
    same = groups[:, None] == groups
    drawn = candidates.hard_negatives(logits, same, torch.Generator().manual_seed(0))
    expected = losses.hard_negatives(logits, same, torch.Generator().manual_seed(0))
    assert torch.equal(torch.stack(drawn), torch.stack(expected))


def test_counts_are_the_same() -> None:
    mask = torch.rand(7, 50) > 0.5
    assert candidates.count_true(mask).tolist() == metrics.count_true(mask).tolist()
