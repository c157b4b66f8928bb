"""What a campaign will cost, measured on this machine before anything is started.

Training is timed on random features of the data set's shape, with configurations drawn from the campaign's own space;
a campaign that has run before is judged by its own epochs. Extraction is timed on a sample of the real inputs.
"""

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TypeVar, get_args

import optuna
import torch

from analysis.trials import load_history, load_trials
from core.backbone.internvl import load_backbone
from core.campaign.campaign import Campaign, Pruner
from core.campaign.trials import SCORED, STALE
from core.config import ImagePooling, TextPooling, TrainConfig
from core.data.splits import Split
from core.device import choose_device, peak_memory_mb
from core.features.extraction import SplitIndex, distinct_inputs, encode_image_files, index_splits, split_counts
from core.features.inputs import read_inputs
from core.features.random import SplitShape, random_features
from core.features.store import FeatureStore, Widths
from core.files.folders import CampaignFolder
from core.training.train import train
from search.campaign import extraction_variants
from search.cluster.connection import slots_of

SAMPLE_IMAGES, SAMPLE_TEXTS = 64, 256
SAMPLE_CONFIGS = 4
TIMED_SPLITS: tuple[Split, Split] = ("train", "validation")
USABLE_GPU_MEMORY = 0.9
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class ExtractionEstimate:
    """One feature store."""

    fingerprint: str
    images: int
    texts: int
    """Distinct ones."""
    gigabytes: float
    seconds: float
    """Of one process on this machine; 0 if the store is there."""


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """What one epoch takes."""

    seconds_per_epoch: float
    peak_memory_mb: float | None
    """Largest among the timed configurations; None from a campaign's own history."""
    basis: str
    """What was timed."""
    epochs_per_trial: float
    """With pruning."""


@dataclass(frozen=True, slots=True)
class Tables:
    """The shape of the features that a trial reads."""

    splits: tuple[SplitShape, SplitShape]
    """Training and validation."""
    dimensions: tuple[int, int]
    """Widths of images and texts."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What `crossmodal plan` prints."""

    extraction: list[ExtractionEstimate]
    training: TrainingCost
    trials_left: int
    slots: int
    trials_per_gpu: int | None
    """That fit its memory; None without a GPU."""
    wall_hours: float
    """Of training, without extraction and start-up."""
    gpu_hours: float


def estimate(campaign: Campaign, folder: CampaignFolder, *, slots: int | None = None) -> Estimate:
    """Measure, and reckon the rest of a campaign; starts and writes nothing.

    Args:
        folder: of the campaign, which need not exist.
        slots: trials at once; by default what fits this machine.
    Raises:
        UserError: the data or the backbone cannot be read.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    extraction, tables = [], []
    for config in extraction_variants(campaign, campaign.base):
        inputs = read_inputs(config)
        splits = index_splits(inputs.images)
        store, dimensions = _estimate_extraction(config, inputs.parts.fingerprint, splits)
        extraction.append(store)
        shapes = [SplitShape(**split_counts(splits[split])) for split in TIMED_SPLITS]
        tables.append(Tables((shapes[0], shapes[1]), dimensions))
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
    """Mean epochs of a trial, were its values in random order: at each rung the first `bootstrap` trials go on, and one
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
    config: TrainConfig, fingerprint: str, splits: Mapping[Split, SplitIndex]
) -> tuple[ExtractionEstimate, tuple[int, int]]:
    """Of one store, and the widths of its features."""
    images, texts = distinct_inputs(splits)
    root = config.features.store
    if FeatureStore.exists(root, fingerprint):
        widths = FeatureStore.open(root, fingerprint).manifest["dimensions"]
        dimensions, seconds = (widths["images"], widths["texts"]), 0.0
    else:
        dimensions, seconds = _time_backbone(config, images, texts)
    image_floats = len(get_args(ImagePooling)) * len(images) * dimensions[0]
    floats = image_floats + len(get_args(TextPooling)) * len(texts) * dimensions[1]
    return ExtractionEstimate(fingerprint, len(images), len(texts), 4 * floats / 1e9, seconds), dimensions


def _time_backbone(config: TrainConfig, images: Sequence[Path], texts: Sequence[str]) -> tuple[tuple[int, int], float]:
    """Widths of the features, and seconds for all inputs, from a sample spread evenly over them."""
    backbone = load_backbone(config.features, config.device)
    some_images, some_texts = _spread(images, SAMPLE_IMAGES), _spread(texts, SAMPLE_TEXTS)
    encode_image_files(backbone, some_images[:2])  # the first pass is slow
    started = time.monotonic()
    encode_image_files(backbone, some_images)
    between = time.monotonic()
    backbone.encode_texts(some_texts)
    ended = time.monotonic()
    seconds = (between - started) * len(images) / len(some_images) + (ended - between) * len(texts) / len(some_texts)
    return (backbone.vision_dim, backbone.text_dim), seconds


def _spread(items: Sequence[Item], count: int) -> list[Item]:
    step = max(1, len(items) // count)
    return list(items[::step][:count])


def _from_history(campaign: Campaign, folder: CampaignFolder) -> tuple[int, TrainingCost | None]:
    """Trials that ended, and what they took; None where no trial ended."""
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
    """Of the features that take longest; variants whose features are of one shape cost the same."""
    costs = [_calibrate(campaign, each) for each in tables]
    dearest = max(costs, key=lambda cost: cost.seconds_per_epoch)
    peaks = [cost.peak_memory_mb for cost in costs if cost.peak_memory_mb is not None]
    told = "" if len(costs) == 1 else f", on the slowest of {len(costs)} shapes of features"
    return replace(dearest, peak_memory_mb=max(peaks, default=None), basis=f"{dearest.basis}{told}")


def _calibrate(campaign: Campaign, tables: Tables) -> TrainingCost:
    """One epoch each of the baseline and of a few draws from the space, after one to warm up."""
    vision_dim, text_dim = tables.dimensions
    features = random_features(*tables.splits, Widths(vision_dim, text_dim))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=campaign.sampler.seed))
    drawn = [campaign.space.suggest(study.ask(), campaign.base) for _ in range(SAMPLE_CONFIGS - 1)]
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, int(campaign.resources.cpu)))
    seconds, peaks = [], []
    for overrides in ({}, *drawn):
        joint = {"recipe.epochs": 2, "recipe.stage1_epochs": 0}  # both stages cost about the same; joint costs more
        config = campaign.base.with_overrides({**overrides, **joint})
        history = train(config, features).history
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
