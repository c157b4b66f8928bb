import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from core.config import TrainConfig
from core.errors import UserError
from core.features.store import Features
from core.model.checkpoints import Checkpoint
from core.model.model import build_model
from core.training.optimizer import build_optimizer, scheduled_rate, set_learning_rate, update_parameters
from core.training.train import train


def test_the_rate_rises_over_a_tenth_and_falls_to_zero() -> None:
    rates = [scheduled_rate(1.0, step, 20, 0.1) for step in range(20)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[-1] == pytest.approx(1 / 18)
    assert scheduled_rate(1.0, 20, 20, 0.1) == 0.0


def test_one_rate_is_shared_and_only_matrices_decay(planted_features: Features, small_config: TrainConfig) -> None:
    model = build_model(small_config, planted_features)
    optimizer = build_optimizer(model, 0.5, 0.01)
    set_learning_rate(optimizer, 0.25)
    assert [float(group["lr"]) for group in optimizer.param_groups] == [0.25, 0.25]
    decays = {
        parameter.ndim: group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]
    }
    assert decays == {2: 0.01, 1: 0.0, 0: 0.0}


MOMENTS: dict[str, Callable[[dict[Any, Any]], object]] = {
    "of another shape": lambda state: state[0].update(exp_avg=torch.zeros(3)),
    "of a parameter that is not there": lambda state: state.update({77: state[0]}),
    "of another optimizer": lambda state: state.update({0: {"momentum_buffer": state[0]["exp_avg"]}}),
    "numbers": lambda state: state[0].update(exp_avg_sq=1.0),
    "a word": lambda state: state.update({"0": state.pop(0)}),
}


@pytest.mark.parametrize("change", MOMENTS.values(), ids=MOMENTS.keys())
def test_moments_of_another_optimizer_are_refused(
    planted_features: Features, small_config: TrainConfig, change: Callable[[dict[Any, Any]], object]
) -> None:
    kept: list[Checkpoint] = []
    train(small_config, planted_features, lambda metrics, checkpoint: kept.append(checkpoint))
    assert kept[0].optimizer is not None
    change(kept[0].optimizer["state"])
    with pytest.raises(UserError, match="optimizer state does not fit the configured model"):
        train(small_config, planted_features, resume_from=kept[0])


def test_an_update_is_that_of_torch() -> None:
    ours, theirs = (torch.nn.Linear(5, 3), torch.nn.Linear(5, 3))
    theirs.load_state_dict(ours.state_dict())
    optimizer = torch.optim.AdamW(ours.parameters(), lr=0.01, fused=True)
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.01, fused=True)
    for seed in range(3):
        data = torch.randn(7, 5, generator=torch.Generator().manual_seed(seed))
        for model in (ours, theirs):
            model.zero_grad()
            model(data).square().mean().backward()
        update_parameters(optimizer)
        reference.step()
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.bias, theirs.bias)


def test_training_does_not_import_the_compiler_of_torch() -> None:
    code = """
import sys
import torch
from core.training.optimizer import build_optimizer, update_parameters
model = torch.nn.Linear(3, 2)
optimizer = build_optimizer(model, 0.01, 0.1)
model(torch.ones(1, 3)).sum().backward()
update_parameters(optimizer)
optimizer.zero_grad()
optimizer.state_dict()
print("torch._dynamo" in sys.modules)
"""
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert outcome.stdout.strip() == "False"
