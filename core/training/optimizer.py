"""The optimizer of a stage: AdamW, its learning-rate schedule, and its state read back from a checkpoint."""

from typing import Any

import torch
from torch import Tensor

from core.errors import UserError
from core.model.model import CrossModalModel


def build_optimizer(model: CrossModalModel, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW; biases and the temperature do not decay."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    others = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    rate = torch.tensor(learning_rate, device=matrices[0].device)  # a tensor, so that a recorded step sees it change
    optimizer = torch.optim.AdamW(groups, lr=rate, fused=True)
    for group in optimizer.param_groups:
        group["initial_lr"] = learning_rate  # the schedule overwrites `lr`; the receipt tells this one
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Overwrite the rate in place: it is one tensor for all groups."""
    optimizer.param_groups[0]["lr"].fill_(rate)


def scheduled_rate(peak: float, step: int, steps: int, warmup_ratio: float) -> float:
    """Learning rate of a step (from 0) of a stage: linear from 0 to `peak`, then linear back to 0."""
    warmup = int(warmup_ratio * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (steps - step) / max(1, steps - warmup)


def restore_optimizer(optimizer: torch.optim.AdamW, state: dict[str, Any]) -> None:
    """Take over the moments; rates, decay and the rest are those of this configuration, device and process.

    Raises:
        UserError: they are not the moments of these parameters.
    """
    rate = optimizer.param_groups[0]["lr"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = state.get("state")
    if not isinstance(moments, dict) or not all(
        number in range(len(parameters)) and _are_moments(entry, parameters[number])
        for number, entry in moments.items()
    ):
        raise UserError("the checkpoint's optimizer state does not fit the configured model", how="train anew")
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    for group in optimizer.param_groups:
        group["lr"] = rate  # it was copied, and must stay one tensor


def _are_moments(entry: object, parameter: Tensor) -> bool:
    """Whether AdamW left `entry` for a parameter."""
    match entry:
        case {"step": Tensor() as step, "exp_avg": Tensor() as mean, "exp_avg_sq": Tensor() as square, **others}:
            shapes = {mean.shape, square.shape}
            return not others and shapes == {parameter.shape} and step.numel() == 1 and step.dtype == torch.float32
    return False
