"""The optimizer of a stage: AdamW, its learning-rate schedule, and restoring its state from a checkpoint."""

import inspect
from typing import Any

import torch
from torch import Tensor

from core.errors import UserError
from core.model.model import CrossModalModel


def build_optimizer(model: CrossModalModel, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW on all parameters, without weight decay on biases and the temperature.

    Source: Loshchilov and Hutter (1711.05101).
    """
    _spare_the_compiler()
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    others = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    rate = torch.tensor(learning_rate, device=matrices[0].device)  # a tensor, so that a CUDA graph sees changes
    optimizer = torch.optim.AdamW(groups, lr=rate, fused=True)
    for group in optimizer.param_groups:
        group["initial_lr"] = learning_rate  # for the receipt, since the schedule overwrites `lr`
    return optimizer


def update_parameters(optimizer: torch.optim.Optimizer) -> None:
    """`optimizer.step()`, without what surrounds it in torch: profiling, and the import of torch's compiler."""
    with torch.no_grad():
        inspect.unwrap(type(optimizer).step)(optimizer)


def _spare_the_compiler() -> None:
    """Keep torch from importing its compiler (800 modules, more than a second in each worker).

    Optimizers do so when they are first used, to exclude themselves from compilation; nothing is compiled here. In a
    version of torch without these marks, this does nothing.
    """
    for method in vars(torch.optim.Optimizer).values():
        original = getattr(method, "__wrapped__", None)
        if original is not None and not hasattr(original, "__dynamo_disable"):
            setattr(original, "__dynamo_disable", original)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate in place; all groups share one tensor."""
    optimizer.param_groups[0]["lr"].fill_(rate)


def scheduled_rate(peak: float, step: int, steps: int, warmup_ratio: float) -> float:
    """Learning rate of a step: linear warmup to `peak`, then linear decay to 0.

    Args:
        step: from 0, counted within the stage.
        steps: number of steps of the stage.
        warmup_ratio: fraction of the steps, 0 <= ratio < 1.
    """
    warmup = int(warmup_ratio * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (steps - step) / max(1, steps - warmup)


def restore_optimizer(optimizer: torch.optim.AdamW, state: dict[str, Any]) -> None:
    """Load the moments of a checkpoint; learning rate, weight decay and other settings are not changed.

    Args:
        state: `state_dict()` of the optimizer that wrote the checkpoint.
    Raises:
        UserError: the moments do not fit the parameters.
    """
    rate = optimizer.param_groups[0]["lr"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = state.get("state")
    if not isinstance(moments, dict) or not all(
        number in range(len(parameters)) and _are_moments(entry, parameters[number])
        for number, entry in moments.items()
    ):
        raise UserError("the checkpoint's optimizer state does not fit the configured model", how="train from scratch")
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    for group in optimizer.param_groups:
        group["lr"] = rate  # loading made copies; all groups share one tensor


def _are_moments(entry: object, parameter: Tensor) -> bool:
    """Whether `entry` is AdamW's state of a parameter."""
    match entry:
        case {"step": Tensor() as step, "exp_avg": Tensor() as mean, "exp_avg_sq": Tensor() as square, **others}:
            shapes = {mean.shape, square.shape}
            return not others and shapes == {parameter.shape} and step.numel() == 1 and step.dtype == torch.float32
    return False
