"""All measurements of one checkpoint: retrieval by every protocol, boxes, relations and cost; and its embeddings."""

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from core.config import Section, TrainConfig
from core.data.annotations import AnnotatedImage
from core.device import choose_device, device_name, peak_memory_mb
from core.errors import UserError
from core.evaluation.regions import RegionMeasurement, blind_baselines, measure_regions
from core.evaluation.retrieval import Embeddings, Protocol, RankingRule, embed_split, measure_retrieval
from core.features.store import Features, FeatureSplit
from core.files.atomic import write_atomically
from core.model.checkpoints import Checkpoint, restore_model
from core.model.model import CrossModalModel, parameter_counts
from core.records import Efficiency, Evaluation, Samples, Scorecard

MAIN_PROTOCOL: Protocol = "building"
"""Protocol of the samples used in paired comparisons."""
PROBED_ROWS = 8192
"""Maximum number of rows embedded to measure throughput."""
MODEL_SETTINGS = ("image_pooling", "text_pooling", "normalization")
"""Settings in `features` that belong to the model: a checkpoint works only with those it was trained with."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A scorecard, with its values per query and region, and the embeddings."""

    scorecard: Scorecard
    samples: dict[str, Samples]
    """Recalls by building without re-ranking, boxes and relations."""
    embeddings: Embeddings
    """Embeddings of the split on which retrieval was measured."""


def require_same_model(checkpoint: Checkpoint, config: TrainConfig, path: Path) -> None:
    """Check that a configuration describes the model of a checkpoint.

    Args:
        path: file of the checkpoint, for the message.
    Raises:
        UserError: names the first setting that differs.
    """
    pairs: list[tuple[str, str, Section, Section]] = []
    pairs += [("model", name, config.model, checkpoint.config.model) for name in type(config.model).model_fields]
    pairs += [("features", name, config.features, checkpoint.config.features) for name in MODEL_SETTINGS]
    for section, name, configured, trained in pairs:
        if getattr(configured, name) != getattr(trained, name):
            raise UserError(
                f"was trained with {section}.{name} {getattr(trained, name)}, but the configuration says "
                f"{getattr(configured, name)}",
                where=path,
                how="use the configuration that it was trained with",
            )


def measure(checkpoint: Checkpoint, features: Features, *, name: str, rerank: int) -> Measured:
    """Measure a checkpoint on the test split, or on the validation split if `features` has no test split.

    Boxes and relations are measured on the validation split if the test split has no regions, as in GeoText-1652.

    Args:
        name: name of the checkpoint in the scorecard.
        rerank: number of top candidates re-ranked in the second evaluation of each protocol; 0 omits it.
    Raises:
        UserError: the checkpoint belongs to other features, or its device is not available.
        DivergedError: an output of the model is not finite.
    """
    device = choose_device(checkpoint.config.device)
    model = restore_model(checkpoint, features).to(device)
    train, validation = features.train.to(device), features.validation.to(device)
    split, split_name = (features.test.to(device), "test") if features.test else (validation, "validation")
    started = time.monotonic()
    embedded = embed_split(model, split)
    evaluations, samples = _retrieval(model, embedded, split, split_name, rerank)
    with_regions, regions_split = (split, split_name) if len(split.boxes) else (validation, "validation")
    regions, baselines = _regions(model, train, with_regions)
    seconds = time.monotonic() - started
    card = Scorecard(
        checkpoint=name,
        fingerprint=features.fingerprint,
        config_hash=checkpoint.receipt.config_hash,
        epoch=checkpoint.epoch,
        evaluations=evaluations,
        regions_split=regions_split if regions.metrics else None,
        regions={**regions.metrics, **baselines},
        confusion=regions.confusion,
        efficiency=_efficiency(checkpoint, model, features, split, seconds),
    )
    return Measured(card, {**samples, **regions.samples}, embedded)


def save_embeddings(path: Path, embeddings: Embeddings, images: Sequence[AnnotatedImage], image_root: Path) -> None:
    """Write the embeddings of a split as .npz, in the order of its annotations.

    Arrays: image [N, D] and text [M, D] float32, unit norm; image_path and image_building [N]; text_string [M], and
    text_image [M] int64, the row of the text's own image. Paths are relative to `image_root`.

    Args:
        images: annotated images of the split that was embedded.
    """
    captions = [(text, row) for row, image in enumerate(images) for text in image.captions]
    stream = io.BytesIO()
    np.savez(
        stream,
        image=embeddings.images.cpu().numpy(),
        text=embeddings.captions.cpu().numpy(),
        image_path=np.array([str(image.path.relative_to(image_root)) for image in images]),
        image_building=np.array([image.group for image in images]),
        text_string=np.array([text for text, _ in captions]),
        text_image=np.array([row for _, row in captions], dtype=np.int64),
    )
    write_atomically(path, stream.getvalue())


def _retrieval(
    model: CrossModalModel, embedded: Embeddings, split: FeatureSplit, split_name: str, rerank: int
) -> tuple[list[Evaluation], dict[str, Samples]]:
    evaluations: list[Evaluation] = []
    samples: dict[str, Samples] = {}
    for protocol in get_args(Protocol):
        for k in dict.fromkeys((0, rerank)):
            measurement = measure_retrieval(model, embedded, split, RankingRule(protocol, k), split_name=split_name)
            evaluations.append(measurement.evaluation)
            if protocol == MAIN_PROTOCOL and k == 0:
                samples = measurement.samples
    return evaluations, samples


def _regions(
    model: CrossModalModel, train: FeatureSplit, split: FeatureSplit
) -> tuple[RegionMeasurement, dict[str, float]]:
    embedded = embed_split(model, split)
    regions = measure_regions(model, split, embedded.images, embedded.sentences)
    if not regions.metrics:
        return regions, {}
    return regions, blind_baselines(train, split, embed_split(model, train).sentences, embedded.sentences)


def _efficiency(
    checkpoint: Checkpoint, model: CrossModalModel, features: Features, split: FeatureSplit, seconds: float
) -> Efficiency:
    device, receipt = next(model.parameters()).device, checkpoint.receipt
    return Efficiency(
        trainable_parameters=sum(parameter_counts(model).values()),
        frozen_parameters=features.backbone_parameters,
        training_epochs=receipt.epochs + receipt.earlier_epochs,
        training_seconds=receipt.seconds + receipt.earlier_seconds,
        training_peak_memory_mb=receipt.peak_memory_mb,
        images_per_second=_rows_per_second(model.embed_images, split.images[:PROBED_ROWS]),
        texts_per_second=_rows_per_second(model.embed_texts, split.texts[:PROBED_ROWS]),
        evaluation_seconds=seconds,
        evaluation_peak_memory_mb=peak_memory_mb(device),
        device=device_name(device),
        earlier_epochs=receipt.earlier_epochs,
        earlier_seconds=receipt.earlier_seconds,
    )


@torch.no_grad()
def _rows_per_second(embed: Callable[[Tensor], Tensor], rows: Tensor) -> float:
    embed(rows)
    started = time.perf_counter()
    float(embed(rows).sum())  # reading the number waits for a GPU
    return len(rows) / (time.perf_counter() - started)
