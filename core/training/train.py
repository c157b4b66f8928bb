"""The core training function: one plain function without files or network, called by everything.

Every epoch is seeded by (seed, stage, epoch of the stage) and the learning rate is a function of the step, so a run
continued from a checkpoint is bit-equal to one that was never interrupted, and a second stage started by hand from
the first one's weights is bit-equal to the second stage of a two-stage run.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from core.config import TrainConfig
from core.device import choose_device
from core.errors import DivergedError, UserError
from core.evaluation.retrieval import validate
from core.features.store import Features, FeatureSplit
from core.model.checkpoints import Checkpoint, load_weights
from core.model.model import CrossModalModel, build_model
from core.records import ALIGN, JOINT, EpochMetrics, Receipt, best_epoch
from core.training.batches import epoch_batches, steps_per_epoch
from core.training.receipts import make_receipt
from core.training.step import ReplayedStep, TrainStep, own_stream, record_cuda_graph

Report = Callable[[EpochMetrics, Checkpoint], None]
"""Called after each epoch; may raise SystemExit to stop the run."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stretch of epochs under one objective and one optimizer."""

    number: int
    """1 aligns (ITC + ITM), 2 is joint (all four losses)."""
    first_epoch: int
    epochs: int
    learning_rate: float


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A finished run."""

    last: Checkpoint

    @property
    def best(self) -> Checkpoint:
        return self.last.best()

    @property
    def history(self) -> list[EpochMetrics]:
        return self.last.history

    @property
    def receipt(self) -> Receipt:
        return self.last.receipt


def train(
    config: TrainConfig,
    features: Features,
    report: Report = lambda metrics, checkpoint: None,
    *,
    resume_from: Checkpoint | None = None,
    start_from: Checkpoint | None = None,
) -> TrainResult:
    """Train the adapters and heads as the configuration says; validate and report after each epoch.

    Args:
        resume_from: continue this run exactly.
        start_from: begin with these weights and nothing else, e.g. a second stage by hand.
    Raises:
        DivergedError: a loss, a weight or a figure of validation is no longer finite.
        UserError: a checkpoint does not fit the configuration or the features.
    """
    device = choose_device(config.device)
    with own_stream(device):
        return _train(config, features, report, resume_from, start_from, device)


def _train(
    config: TrainConfig,
    features: Features,
    report: Report,
    resume_from: Checkpoint | None,
    start_from: Checkpoint | None,
    device: torch.device,
) -> TrainResult:
    started = time.monotonic()
    model = build_model(config.model, features, normalization=config.features.normalization, seed=config.seed)
    if initial := resume_from or start_from:
        load_weights(model, initial, features)
    model.to(device)
    train_split, validation = features.train.to(device), features.validation.to(device)
    last, earlier = resume_from, _earlier(resume_from, start_from)
    for stage in plan_stages(config):
        optimizer = build_optimizer(model, stage.learning_rate, config.optimizer.weight_decay)
        first = stage.first_epoch if last is None else max(stage.first_epoch, last.epoch + 1)
        if last is not None and last.optimizer is not None and stage.first_epoch <= last.epoch:
            _restore_optimizer(optimizer, last.optimizer)
        step = build_step(model, optimizer, config)
        for epoch in range(first, stage.first_epoch + stage.epochs):
            metrics = _run_epoch(model, optimizer, step, train_split, validation, config, stage, epoch)
            receipt = make_receipt(config, features, model, optimizer, stage=stage.number, previous=last)
            seconds = time.monotonic() - started + (resume_from.receipt.seconds if resume_from else 0.0)
            last = _checkpoint(config, model, optimizer, metrics, last, replace(receipt, seconds=seconds, **earlier))
            report(metrics, last)
    assert last is not None, "a recipe has at least one epoch"
    return TrainResult(last)


def _earlier(resume_from: Checkpoint | None, start_from: Checkpoint | None) -> dict[str, Any]:
    """What the runs took that this one began with, as fields of its receipt."""
    if resume_from is not None:
        receipt = resume_from.receipt
        return {"earlier_epochs": receipt.earlier_epochs, "earlier_seconds": receipt.earlier_seconds}
    if start_from is None:
        return {}
    receipt = start_from.receipt
    return {
        "earlier_epochs": receipt.epochs + receipt.earlier_epochs,
        "earlier_seconds": receipt.seconds + receipt.earlier_seconds,
    }


def plan_stages(config: TrainConfig) -> list[Stage]:
    """The stages of a recipe, in order; a stage without epochs is left out."""
    recipe, rate = config.recipe, config.optimizer.learning_rate
    joint_rate = rate * recipe.stage2_lr_scale if recipe.stage1_epochs else rate
    stages = [
        Stage(ALIGN, 0, recipe.stage1_epochs, rate),
        Stage(JOINT, recipe.stage1_epochs, recipe.epochs - recipe.stage1_epochs, joint_rate),
    ]
    return [stage for stage in stages if stage.epochs]


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


def _restore_optimizer(optimizer: torch.optim.AdamW, state: dict[str, Any]) -> None:
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


def build_step(model: CrossModalModel, optimizer: torch.optim.AdamW, config: TrainConfig) -> TrainStep:
    """On a GPU one that is recorded and replayed, unless the configuration forbids it."""
    if next(model.parameters()).is_cuda and config.optimizer.cuda_graph:
        return ReplayedStep(model, optimizer, config.loss, record_cuda_graph)
    return TrainStep(model, optimizer, config.loss)


def scheduled_rate(peak: float, step: int, steps: int, warmup_ratio: float) -> float:
    """Learning rate of a step (from 0) of a stage: linear from 0 to `peak`, then linear back to 0."""
    warmup = int(warmup_ratio * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (steps - step) / max(1, steps - warmup)


def _run_epoch(
    model: CrossModalModel,
    optimizer: torch.optim.Optimizer,
    step: TrainStep,
    split: FeatureSplit,
    validation: FeatureSplit,
    config: TrainConfig,
    stage: Stage,
    epoch: int,
) -> EpochMetrics:
    started = time.monotonic()
    seed = _epoch_seed(config.seed, stage.number, epoch - stage.first_epoch)
    totals, steps_without_regions, rate = _train_epoch(model, optimizer, step, split, config, stage, epoch, seed)
    trained = time.monotonic()
    _require_finite(totals.isfinite().all(), "the loss", epoch)
    _require_finite(
        torch.stack([value.isfinite().all() for value in model.state_dict().values()]).all(), "a weight", epoch
    )
    itc, itm, box, spatial = totals.tolist()
    weights = config.loss
    joint = stage.number == JOINT
    validated = validate(model, validation)
    metrics = EpochMetrics(
        epoch=epoch,
        stage=stage.number,
        learning_rate=rate,
        temperature=float(model.temperature.detach()),
        loss=weights.itc * itc + weights.itm * itm + weights.box * box + weights.spatial * spatial,
        loss_itc=itc,
        loss_itm=itm,
        loss_box=box if joint else None,
        loss_spatial=spatial if joint else None,
        steps_without_regions=steps_without_regions,
        train_seconds=trained - started,
        evaluation_seconds=time.monotonic() - trained,
        **validated,
    )
    _require_finite(all(map(math.isfinite, filter(None, metrics.to_json().values()))), "a figure", epoch)
    return metrics


def _require_finite(is_finite: Tensor | bool, what: str, epoch: int) -> None:
    if not is_finite:
        how = "lower optimizer.learning_rate or the weights of loss"
        raise DivergedError(f"{what} is not finite in epoch {epoch}", how=how)


def _train_epoch(
    model: CrossModalModel,
    optimizer: torch.optim.Optimizer,
    step: TrainStep,
    split: FeatureSplit,
    config: TrainConfig,
    stage: Stage,
    epoch: int,
    seed: int,
) -> tuple[Tensor, int, float]:
    """Mean unweighted losses [4], steps that should have had regions and had none, and the last learning rate."""
    steps = steps_per_epoch(split, config.optimizer.batch_size)
    with_regions = stage.number == JOINT and (config.loss.box > 0 or config.loss.spatial > 0)
    batches = epoch_batches(
        split,
        batch_size=config.optimizer.batch_size,
        positives=config.loss.positives,
        with_regions=with_regions,
        generator=torch.Generator().manual_seed(seed),
    )
    model.train()
    step.begin_epoch(seed)
    without_regions, rate = 0, 0.0
    with _dropout_seeded(seed, step.totals.device):
        for number, batch in enumerate(batches, start=(epoch - stage.first_epoch) * steps):
            rate = scheduled_rate(stage.learning_rate, number, stage.epochs * steps, config.optimizer.warmup_ratio)
            optimizer.param_groups[0]["lr"].fill_(rate)  # one tensor for all groups
            step(batch)
            without_regions += with_regions and batch.regions == 0
    return (step.totals / steps).cpu(), without_regions, rate


def _epoch_seed(seed: int, stage: int, epoch_of_stage: int) -> int:
    return (seed * 2 + stage - 1) * 100_003 + epoch_of_stage  # within 64 bits: a seed has 32


@contextmanager
def _dropout_seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout draws from the global generator: seed it, and leave it as it was found."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _checkpoint(
    config: TrainConfig,
    model: CrossModalModel,
    optimizer: torch.optim.Optimizer,
    metrics: EpochMetrics,
    previous: Checkpoint | None,
    receipt: Receipt,
) -> Checkpoint:
    weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    history = [*(previous.history if previous else []), metrics]
    is_best = best_epoch(history, config.objective) is metrics
    return Checkpoint(
        config=config,
        fingerprint=receipt.fingerprint,
        epoch=metrics.epoch,
        weights=weights,
        optimizer=copy.deepcopy(optimizer.state_dict()),
        best_weights=weights if is_best or previous is None else previous.best_weights,
        history=history,
        receipt=receipt,
    )
