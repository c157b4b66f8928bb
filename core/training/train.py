"""The training function: a plain function without files or network, shared by all callers.

Every epoch is seeded by (seed, stage, epoch of the stage) and the learning rate is a function of the step, so a run
continued from a checkpoint is bit-identical to an uninterrupted one, and a second stage started separately from the
weights of the first is bit-identical to the second stage of a two-stage run.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from core.config import TrainConfig
from core.device import choose_device
from core.errors import DivergedError
from core.evaluation.retrieval import validate
from core.features.stacked import train_on_all
from core.features.store import Features
from core.model.checkpoints import Checkpoint, load_weights
from core.model.losses import Losses, weighted_sum
from core.model.model import CrossModalModel, build_model
from core.records import JOINT, EpochMetrics, Receipt, Reranking, kept_epoch
from core.training.batches import epoch_batches
from core.training.optimizer import set_learning_rate
from core.training.receipts import earlier_runs, make_receipt
from core.training.stages import Run, begin_stage, stages_of
from core.training.step import own_stream

Report = Callable[[EpochMetrics, Checkpoint], None]
"""Called with metrics and checkpoint after each epoch; may raise SystemExit to stop the run."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """Result of a finished run."""

    last: Checkpoint
    """State after the last epoch."""
    reranking: Reranking | None = None
    """How candidates of the best epoch are re-ranked, if that was chosen."""

    @property
    def best(self) -> Checkpoint:
        """Checkpoint of the best epoch, for inference."""
        return replace(self.last.best(), reranking=self.reranking)

    @property
    def history(self) -> list[EpochMetrics]:
        """Metrics of all epochs, in order."""
        return self.last.history

    @property
    def receipt(self) -> Receipt:
        """What the run actually used."""
        return self.last.receipt


def train(
    config: TrainConfig,
    features: Features,
    report: Report = lambda metrics, checkpoint: None,
    *,
    resume_from: Checkpoint | None = None,
    start_from: Checkpoint | None = None,
) -> TrainResult:
    """Train adapters and heads on pooled features; validate and report after each epoch.

    Args:
        resume_from: continue this run exactly.
        start_from: start a new run from these weights, e.g. a separate second stage; ignored with `resume_from`.
    Raises:
        DivergedError: a loss, a weight, an output or a validation metric is no longer finite.
        UserError: a checkpoint does not fit the configuration or the features, or the device is not available.
    """
    began = time.monotonic() - (resume_from.receipt.seconds if resume_from else 0.0)
    earlier = earlier_runs(resume_from, start_from)
    device = choose_device(config.device)
    features = train_on_all(features) if config.data.train_on == "all" else features
    with own_stream(device):
        model = _initial_model(config, features, resume_from or start_from).to(device)
        on_device = replace(features, train=features.train.to(device), validation=features.validation.to(device))
        last = resume_from
        for stage in stages_of(config):
            run = begin_stage(config, on_device, model, stage, last)
            for epoch in stage.epochs_after(last):
                metrics = _run_epoch(run, epoch)
                receipt = make_receipt(run, last, seconds=time.monotonic() - began, earlier=earlier)
                last = _checkpoint(run, metrics, receipt, last)
                report(metrics, last)
    assert last is not None, "a recipe has at least one epoch"
    return TrainResult(last)


def _initial_model(config: TrainConfig, features: Features, checkpoint: Checkpoint | None) -> CrossModalModel:
    model = build_model(config, features)
    if checkpoint is not None:
        load_weights(model, checkpoint, features)
    return model


def _run_epoch(run: Run, epoch: int) -> EpochMetrics:
    """Train one epoch, then validate."""
    began = time.monotonic()
    trained = _train_epoch(run, epoch)
    ended = time.monotonic()
    losses, joint = trained.losses, run.stage.number == JOINT
    _require_finite(all(map(math.isfinite, losses)), "the loss", epoch)
    weights_finite = [value.isfinite().all() for value in run.model.state_dict().values()]
    _require_finite(torch.stack(weights_finite).all(), "a weight", epoch)
    validation = validate(run.model, run.features.validation)
    metrics = EpochMetrics(
        epoch=epoch,
        stage=run.stage.number,
        learning_rate=trained.learning_rate,
        temperature=float(run.model.temperature.detach()),
        loss=weighted_sum(losses, run.config.loss),
        loss_itc=losses.itc,
        loss_itm=losses.itm,
        loss_box=losses.box if joint and run.has_boxes else None,
        loss_spatial=losses.spatial if joint and run.has_relations else None,
        steps_without_regions=trained.steps_without_regions,
        train_seconds=ended - began,
        evaluation_seconds=time.monotonic() - ended,
        **asdict(validation),
    )
    _require_finite(all(map(math.isfinite, filter(None, metrics.to_json().values()))), "a metric", epoch)
    return metrics


def _require_finite(is_finite: Tensor | bool, name: str, epoch: int) -> None:
    if not is_finite:
        how = "lower optimizer.learning_rate or the weights of loss"
        raise DivergedError(f"{name} is not finite in epoch {epoch}", how=how)


@dataclass(frozen=True, slots=True)
class _TrainedEpoch:
    losses: Losses[float]
    """Unweighted means over the steps."""
    steps_without_regions: int
    """Number of steps without regions, although the stage trains on them."""
    learning_rate: float
    """Learning rate of the last step."""


def _train_epoch(run: Run, epoch: int) -> _TrainedEpoch:
    seed = run.seed_of(epoch)
    batches = epoch_batches(
        run.features.train,
        run.config,
        with_regions=run.with_regions,
        generator=torch.Generator().manual_seed(seed),
    )
    run.model.train()
    run.step.begin_epoch(seed)
    steps_without_regions, rate = 0, 0.0
    with _dropout_seeded(seed, run.step.totals.device):
        for number, batch in enumerate(batches):
            rate = run.learning_rate(epoch, number)
            set_learning_rate(run.optimizer, rate)
            run.step(batch)
            steps_without_regions += run.with_regions and batch.regions == 0
    return _TrainedEpoch(run.step.mean_losses(run.steps_per_epoch), steps_without_regions, rate)


@contextmanager
def _dropout_seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generator, which dropout draws from, and restore its state afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _checkpoint(run: Run, metrics: EpochMetrics, receipt: Receipt, previous: Checkpoint | None) -> Checkpoint:
    weights = {name: value.detach().cpu().clone() for name, value in run.model.state_dict().items()}
    history = [*(previous.history if previous else []), metrics]
    is_best = kept_epoch(history, run.config) is metrics
    return Checkpoint(
        config=run.config,
        fingerprint=receipt.fingerprint,
        epoch=metrics.epoch,
        weights=weights,
        optimizer=copy.deepcopy(run.optimizer.state_dict()),
        best_weights=weights if is_best or previous is None else previous.best_weights,
        history=history,
        receipt=receipt,
    )
