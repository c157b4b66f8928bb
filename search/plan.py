"""Estimates what a campaign will cost by measurements on this machine, before anything is started.

Training is timed on random features of the data set's shape, with configurations drawn from the campaign's own space;
if the campaign has run before, its own epochs are used. Extraction is timed on a sample of the real inputs.
"""

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

import optuna
import torch

from analysis.trials import load_history, load_trials
from core.campaign.campaign import Campaign, Pruner
from core.campaign.trials import SCORED, STALE
from core.config import TrainConfig
from core.data.splits import Split
from core.device import choose_device, peak_memory_mb
from core.features.extraction import (
    SplitIndex,
    count_flops,
    distinct_inputs,
    encode_items,
    index_splits,
    split_counts,
)
from core.features.inputs import FeatureInputs, read_inputs
from core.features.manifest import missing_readings
from core.features.random import SplitShape, random_features
from core.features.store import FeatureStore, Widths
from core.features.vector_store import require_vectors, without_vectors
from core.files.folders import CampaignFolder
from core.readings import Kind, Reading, Readings
from core.training.train import train
from search.campaign import campaign_readings, extraction_variants
from search.cluster.connection import slots_of

SAMPLE_IMAGES, SAMPLE_TEXTS = 64, 256
SAMPLE_CONFIGS = 4
TIMED_SPLITS: tuple[Split, Split] = ("train", "validation")
USABLE_GPU_MEMORY = 0.9
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class ReadingCost:
    """One reading of all inputs."""

    reading: Reading
    shape: tuple[int, ...]
    """Of one input."""
    gigabytes: float
    """On disk."""
    gigaflops: float
    """Of one image or text, were it the only reading."""


@dataclass(frozen=True, slots=True)
class ExtractionEstimate:
    """Cost of one feature store."""

    fingerprint: str
    images: int
    texts: int
    """Distinct ones."""
    costs: list[ReadingCost]
    seconds: float
    """To extract what is missing, by one process on this machine; 0 if nothing is."""

    @property
    def gigabytes(self) -> float:
        """On disk, all readings together."""
        return sum(cost.gigabytes for cost in self.costs)

    @property
    def shapes(self) -> tuple[tuple[Reading, tuple[int, ...]], ...]:
        """Of one input, by reading."""
        return tuple((cost.reading, cost.shape) for cost in self.costs)


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """Cost of training."""

    seconds_per_epoch: float
    peak_memory_mb: float | None
    """Maximum over the timed configurations; None if taken from the campaign's own history."""
    basis: str
    """What was timed."""
    epochs_per_trial: float
    """With pruning."""


@dataclass(frozen=True, slots=True)
class Tables:
    """The shape of the features that a trial reads."""

    splits: tuple[SplitShape, SplitShape]
    """Training and validation."""
    shapes: tuple[tuple[Reading, tuple[int, ...]], ...]
    """Of one input, by reading."""

    def widths(self, readings: Readings) -> Widths:
        """Of the tables that a model with these readings reads."""
        shapes = dict(self.shapes)
        images, texts = (sum(shapes[each][0] for each in side) for side in (readings.images, readings.texts))
        grid = None if readings.grid is None else shapes[readings.grid]
        return Widths(images, texts, None if grid is None else (grid[0], grid[1]))


@dataclass(frozen=True, slots=True)
class Estimate:
    """What `crossmodal plan` prints."""

    extraction: list[ExtractionEstimate]
    training: TrainingCost
    trials_left: int
    slots: int
    trials_per_gpu: int | None
    """Trials that fit in the memory of a GPU; None without one."""
    wall_hours: float
    """Of training, without extraction and start-up."""
    gpu_hours: float

    def to_json(self) -> dict[str, Any]:
        """All of it by name; a reading by its own."""
        content = asdict(self)
        for store, row in zip(self.extraction, content["extraction"], strict=True):
            row["gigabytes"] = store.gigabytes
            for cost, each in zip(store.costs, row["costs"], strict=True):
                each["reading"], each["kind"] = cost.reading.name, cost.reading.kind
        return content


def estimate(campaign: Campaign, folder: CampaignFolder, *, slots: int | None = None) -> Estimate:
    """Estimate the remaining cost of a campaign; starts and writes nothing.

    Args:
        folder: folder of the campaign; need not exist.
        slots: concurrent trials; by default as many as fit on this machine.
    Raises:
        UserError: the data or the backbone cannot be read.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    extraction, tables = [], []
    readings = campaign_readings(campaign)
    for config in extraction_variants(campaign, campaign.base):
        inputs = read_inputs(config)
        splits = index_splits(inputs.images)
        require_vectors(inputs, readings)
        extraction.append(_estimate_extraction(config, readings, inputs, splits))
        shapes = [SplitShape(**split_counts(splits[split])) for split in TIMED_SPLITS]
        tables.append(Tables((shapes[0], shapes[1]), extraction[-1].shapes))
    done, training = _from_history(campaign, folder)
    if training is None:
        training = _calibrate_each(campaign, list(dict.fromkeys(tables)))
    resources = campaign.resources
    machine = {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
    at_once = slots or max(1, slots_of(machine, resources.cpu, resources.gpu))
    trials_left = max(0, campaign.limits.trials - done)
    trial_hours = training.epochs_per_trial * training.seconds_per_epoch / 3600
    return Estimate(
        extraction=extraction,
        training=training,
        trials_left=trials_left,
        slots=at_once,
        trials_per_gpu=_trials_per_gpu(training.peak_memory_mb),
        wall_hours=math.ceil(trials_left / at_once) * trial_hours,
        gpu_hours=trials_left * trial_hours * resources.gpu,
    )


def expected_epochs(pruner: Pruner, *, epochs: int, trials: int) -> float:
    """Mean epochs per trial if values come in random order: at each rung the first `bootstrap` trials continue, and one
    in `reduction_factor` of the others.
    """
    if pruner.kind == "none" or trials == 0:
        return float(epochs)
    total, alive, before, rung = 0.0, float(trials), 0, pruner.min_epochs
    while rung < epochs:
        total += alive * (rung - before)
        alive = min(alive, pruner.bootstrap) + max(0.0, alive - pruner.bootstrap) / pruner.reduction_factor
        before, rung = rung, rung * pruner.reduction_factor
    return (total + alive * (epochs - before)) / trials


def _estimate_extraction(
    config: TrainConfig, readings: Sequence[Reading], inputs: FeatureInputs, splits: Mapping[Split, SplitIndex]
) -> ExtractionEstimate:
    """Of one store; readings of the backbone are in that of the same data without vectors."""
    images, texts = distinct_inputs(splits)
    root, count = config.features.store, {"images": len(images), "texts": len(texts)}
    fingerprint, of_backbone = inputs.parts.fingerprint, without_vectors(inputs).parts.fingerprint
    missing = missing_readings(root, of_backbone, [reading for reading in readings if not reading.is_vector])
    known, seconds = _time_backbone(config, missing, images, texts) if missing else ({}, 0.0)
    if inputs.vectors is not None:
        known |= {each: ([inputs.vectors.width(each)], 0.0) for each in readings if each.is_vector}
    costs = []
    for reading in readings:
        shape, flops = (
            known[reading] if reading in known else _stored_cost(FeatureStore.open(root, of_backbone), reading)
        )
        size = (2 if reading.side else 4) * math.prod(shape) * count[reading.kind]
        costs.append(ReadingCost(reading, tuple(shape), size / 1e9, flops / 1e9))
    return ExtractionEstimate(fingerprint, len(images), len(texts), costs, seconds)


def _stored_cost(store: FeatureStore, reading: Reading) -> tuple[Sequence[int], float]:
    facts = store.describe(reading)
    return facts["shape"], facts["flops"]


def _time_backbone(
    config: TrainConfig, readings: Sequence[Reading], images: Sequence[Path], texts: Sequence[str]
) -> tuple[dict[Reading, tuple[Sequence[int], float]], float]:
    """Shape and FLOPs of one input by reading, and seconds for all inputs, from a sample spread evenly over them."""
    from core.backbone.internvl import load_backbone  # vectors of other encoders need no transformers

    backbone = load_backbone(config.features, config.device)
    backbone.require(readings)
    costs: dict[Reading, tuple[Sequence[int], float]] = {}
    seconds = 0.0
    samples: list[tuple[Kind, Sequence[Any], Sequence[Any]]] = [
        ("images", images, _spread(images, SAMPLE_IMAGES)),
        ("texts", texts, _spread(texts, SAMPLE_TEXTS)),
    ]
    for kind, items, sample in samples:
        asked = tuple(reading for reading in readings if reading.kind == kind)
        if not asked:
            continue
        flops = count_flops(backbone, kind, sample, asked)  # the first pass, too, which is slow
        started = time.monotonic()
        encoded, _ = encode_items(backbone, kind, sample, asked)
        seconds += (time.monotonic() - started) * len(items) / len(sample)
        costs |= {reading: (encoded[reading].shape[1:], flops[reading]) for reading in asked}
    return costs, seconds


def _spread(items: Sequence[Item], count: int) -> list[Item]:
    step = max(1, len(items) // count)
    return list(items[::step][:count])


def _from_history(campaign: Campaign, folder: CampaignFolder) -> tuple[int, TrainingCost | None]:
    """Number of ended trials, and their cost; None if no trial ended."""
    if not folder.campaign.exists():
        return 0, None
    trials = load_trials(folder)
    ended = trials[trials["state"].isin(SCORED)]
    if ended.empty:
        return 0, None
    epochs = load_history(folder)
    seconds = (epochs["train_seconds"] + epochs["evaluation_seconds"]).mean()
    failed = trials[(trials["state"] == "failed") & (trials["reason"] != STALE)]
    basis = f"{len(epochs)} epochs of this campaign"
    return len(ended) + len(failed), TrainingCost(float(seconds), None, basis, float(ended["epochs"].mean()))


def _calibrate_each(campaign: Campaign, tables: Sequence[Tables]) -> TrainingCost:
    """Cost on the slowest features; variants with features of the same shape cost the same."""
    costs = [_calibrate(campaign, each) for each in tables]
    slowest = max(costs, key=lambda cost: cost.seconds_per_epoch)
    peaks = [cost.peak_memory_mb for cost in costs if cost.peak_memory_mb is not None]
    suffix = "" if len(costs) == 1 else f", on the slowest of {len(costs)} feature shapes"
    return replace(slowest, peak_memory_mb=max(peaks, default=None), basis=f"{slowest.basis}{suffix}")


def _calibrate(campaign: Campaign, tables: Tables) -> TrainingCost:
    """One epoch each of the baseline and of a few draws from the space, after one to warm up."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=campaign.sampler.seed))
    drawn = [campaign.space.suggest(study.ask(), campaign.base) for _ in range(SAMPLE_CONFIGS - 1)]
    threads = torch.get_num_threads()
    torch.set_num_threads(campaign.resources.threads)
    seconds, peaks = [], []
    for overrides in ({}, *drawn):
        joint = {"recipe.epochs": 2, "recipe.stage1_epochs": 0}  # a joint epoch costs more than one of alignment
        config = campaign.base.with_overrides({**overrides, **joint})
        history = train(config, random_features(*tables.splits, tables.widths(config.readings))).history
        seconds.append(history[-1].train_seconds + history[-1].evaluation_seconds)
        peaks.append(peak_memory_mb(choose_device(config.device)))
    torch.set_num_threads(threads)
    epochs = expected_epochs(campaign.pruner, epochs=campaign.base.recipe.epochs, trials=campaign.limits.trials)
    basis = f"an epoch of the baseline and of {len(drawn)} draws from the space"
    return TrainingCost(fmean(seconds), max(peaks), basis, epochs)


def _trials_per_gpu(peak_mb: float | None) -> int | None:
    if peak_mb is None or not torch.cuda.is_available():
        return None
    _, total = torch.cuda.mem_get_info()
    return max(1, int(USABLE_GPU_MEMORY * total / (peak_mb * 2**20)))
