from collections.abc import Callable

import pytest
import torch

from core.config import LossConfig, Scalar, TrainConfig
from core.features.store import Features
from core.model.model import CrossModalModel, build_model
from core.training.batches import Batch, epoch_batches
from core.training.optimizer import build_optimizer
from core.training.step import WARM_UP, ReplayedStep, TrainStep, build_step, compute_losses
from core.training.train import train
from tests.core.training.recording import record_operations


def prepare(features: Features, config: TrainConfig) -> tuple[CrossModalModel, torch.optim.AdamW]:
    model = build_model(config.model, features, normalization=config.features.normalization, seed=0)
    return model.train(), build_optimizer(model, 1e-2, 0.01)


def batches(features: Features, config: TrainConfig, *, with_regions: bool = True) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    size = config.optimizer.batch_size
    return [
        batch
        for _ in range(4)
        for batch in epoch_batches(
            features.train, batch_size=size, positives="image", with_regions=with_regions, generator=generator
        )
    ]


def run(step: TrainStep, optimizer: torch.optim.AdamW, given: list[Batch]) -> torch.Tensor:
    """As an epoch does, at a rate that changes with every step."""
    step.begin_epoch(0)
    torch.manual_seed(0)
    for number, batch in enumerate(given):
        optimizer.param_groups[0]["lr"].fill_(1e-2 / (1 + number))
        step(batch)
    return step.totals


class Counting:
    """`record_operations`, and how often something was recorded and replayed."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, act: Callable[[], None], generator: torch.Generator) -> Callable[[], None]:
        self.recorded += 1
        replay = record_operations(act, generator)

        def counted() -> None:
            self.replayed += 1
            replay()

        return counted


@pytest.mark.parametrize("fusion", ["concat", "interaction"])
@pytest.mark.parametrize(("batch_size", "with_regions", "sizes"), [(24, True, 1), (24, False, 1), (17, True, 2)])
def test_a_replayed_step_does_bit_for_bit_what_the_step_does(
    planted_features: Features, small_config: TrainConfig, fusion: str, batch_size: int, with_regions: bool, sizes: int
) -> None:
    changes: dict[str, Scalar] = {"model.fusion": fusion, "model.dropout": 0.2, "loss.giou": 0.5}
    config = small_config.with_overrides({**changes, "optimizer.batch_size": batch_size})
    given = batches(planted_features, config, with_regions=with_regions)
    model, optimizer = prepare(planted_features, config)
    expected = run(TrainStep(model, optimizer, config.loss), optimizer, given)

    replayed, its_optimizer = prepare(planted_features, config)
    record = Counting()
    totals = run(ReplayedStep(replayed, its_optimizer, config.loss, record), its_optimizer, given)

    assert record.recorded == sizes
    assert record.replayed == len(given) - sizes * WARM_UP
    assert torch.equal(totals, expected)
    for name, weights in model.state_dict().items():
        assert torch.equal(replayed.state_dict()[name], weights), name


@pytest.mark.parametrize(
    "weights",
    [
        LossConfig(),
        LossConfig(itc=0, itm=2),
        LossConfig(itm=0, box=3),
        LossConfig(box=0, spatial=3),
        LossConfig(itm=0.1),
    ],
)
def test_a_step_follows_the_gradient_of_the_weighted_losses(
    planted_features: Features, small_config: TrainConfig, weights: LossConfig
) -> None:
    config = small_config.with_overrides({"model.dropout": 0.0})
    batch = batches(planted_features, config)[0]
    model, _ = prepare(planted_features, config)
    itc, itm, box, spatial = compute_losses(model, batch, LossConfig(), torch.Generator().manual_seed(7))
    loss = weights.itc * itc + weights.itm * itm + weights.box * box + weights.spatial * spatial
    parameters = list(model.parameters())
    before, gradients = [value.detach().clone() for value in parameters], torch.autograd.grad(loss, parameters)
    step = TrainStep(model, torch.optim.SGD(parameters, lr=0.1), weights)
    step.begin_epoch(7)
    step(batch)
    for now, then, gradient in zip(parameters, before, gradients, strict=True):
        torch.testing.assert_close(now.detach(), then - 0.1 * gradient)


@pytest.mark.parametrize("weights", [LossConfig(itm=0), LossConfig(itc=0), LossConfig(box=0), LossConfig(spatial=0)])
def test_a_step_never_waits_for_the_device(
    planted_features: Features, small_config: TrainConfig, weights: LossConfig
) -> None:
    model, optimizer = prepare(planted_features, small_config)
    step = ReplayedStep(model, optimizer, weights, record_operations)
    run(step, optimizer, batches(planted_features, small_config))


def test_the_recording_itself_refuses_what_waits_for_the_device() -> None:
    waits: list[float] = []
    with pytest.raises(RuntimeError, match="reads a value back"):
        record_operations(lambda: waits.append(float(torch.ones(1))), torch.Generator())


def test_a_step_on_the_cpu_runs_as_written(planted_features: Features, small_config: TrainConfig) -> None:
    model, optimizer = prepare(planted_features, small_config)
    assert type(build_step(model, optimizer, small_config)) is TrainStep


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_cuda_graph_trains_as_the_step_itself(planted_features: Features, small_config: TrainConfig) -> None:
    config = small_config.with_overrides({"device": "cuda", "recipe.stage1_epochs": 2})
    captured = train(config, planted_features).last
    eager = train(config.with_overrides({"optimizer.cuda_graph": False}), planted_features).last
    for name, weights in eager.weights.items():
        torch.testing.assert_close(captured.weights[name], weights, rtol=1e-3, atol=1e-4)
