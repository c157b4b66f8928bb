import pytest
import torch

from core.model.layers import Dropout


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
