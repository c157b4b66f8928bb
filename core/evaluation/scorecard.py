"""All measurements of one checkpoint: retrieval by every protocol, boxes, relations and cost; and its embeddings."""

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.config import EvaluationConfig, TrainConfig
from core.data.annotations import AnnotatedImage
from core.device import choose_device, device_name, peak_memory_mb
from core.errors import UserError
from core.evaluation.embedding import EmbeddedSplit, embed_split, embed_texts, image_blocks, image_features
from core.evaluation.ranking import Order, RankingRule
from core.evaluation.regions import (
    baseline_metrics,
    judge_grounding,
    measure_baselines,
    measure_regions,
    measure_shuffled,
)
from core.evaluation.reranking import chosen_reranking, order_of, settled_order
from core.evaluation.retrieval import PROTOCOLS, Protocol, measure_retrieval, sample_validation
from core.features.store import Features, FeatureSplit
from core.files.atomic import write_atomically
from core.model.checkpoints import Checkpoint, require_same_features, restore_model
from core.model.model import CrossModalModel, parameter_counts
from core.records import Efficiency, Evaluation, Samples, Scorecard
from core.sections import Section

MAIN_PROTOCOL: Protocol = "building"
"""Protocol of the samples used in paired comparisons."""
PROBED_ROWS = 8192
"""Rows embedded to measure throughput."""
MODEL_SETTINGS = ("image", "text", "image_prompt", "text_prompt", "grid", "normalization")
"""Settings of `features` that belong to the model: a checkpoint cannot be used under others."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Embeddings of a split on the CPU: float32, unit norm."""

    images: Tensor
    """[N, D]"""
    captions: Tensor
    """[M, D]"""


@dataclass(frozen=True, slots=True)
class Measured:
    """A scorecard, with its values per query and region, and the embeddings."""

    scorecard: Scorecard
    samples: dict[str, Samples]
    """Recalls by building without re-ranking, boxes and relations."""
    embeddings: Embeddings
    """Embeddings of the split on which retrieval was measured."""


@dataclass(frozen=True, slots=True)
class MeasuredSet:
    """Features of a test set, without any training split."""

    split: FeatureSplit
    name: str
    fingerprint: str
    backbone_parameters: int


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


def measure(checkpoint: Checkpoint, features: Features, *, name: str, settings: EvaluationConfig) -> Measured:
    """Measure a checkpoint: retrieval on the test split, or on validation where `features` has no test split.

    Boxes and relations are measured on the validation split if the test split has no regions, as in GeoText-1652. A
    model that was trained on the validation split is measured on the test split alone.

    Args:
        name: of the checkpoint, for the record.
        settings: whether and how candidates are re-ranked in a second round, and text queries normalised.
    Raises:
        UserError: the checkpoint belongs to other features, its device is not available, or nothing is left that it was
            not trained on.
        DivergedError: an output of the model is not finite.
    """
    held_out = checkpoint.config.data.train_on != "all"
    if features.test is None and not held_out:
        raise UserError("was trained on the validation split, too", where=name, how="set data.test_annotations")
    require_same_features(checkpoint, features.fingerprint, name)
    device = choose_device(checkpoint.config.device)
    model = restore_model(checkpoint).to(device)
    train = replace(features.train, grid=None).to(device)  # only its texts and boxes are read
    split, split_name = (features.test, "test") if features.test else (features.validation, "validation")
    started = time.monotonic()
    embedded = embed_split(model, split.to(device))
    order = order_of(chosen_reranking(checkpoint, model, features, settings), settings)
    evaluations, samples = _retrieval(
        model, embedded, _ranking_rules(model, train, order, settings), split_name, settings
    )
    with_regions, regions_split = embedded, split_name
    if len(split.boxes) == 0 and held_out:
        with_regions, regions_split = embed_split(model, features.validation.to(device)), "validation"
    regions = measure_regions(model, with_regions)
    baselines = measure_baselines(model, with_regions, train, features.statistics)
    seconds = time.monotonic() - started
    card = Scorecard(
        checkpoint=name,
        fingerprint=features.fingerprint,
        config_hash=checkpoint.receipt.config_hash,
        epoch=checkpoint.epoch,
        evaluations=evaluations,
        regions_split=regions_split if regions.metrics else None,
        regions={**regions.metrics, **baseline_metrics(baselines)},
        confusion=regions.confusion,
        efficiency=_efficiency(checkpoint, model, features.backbone_parameters, embedded.split, seconds),
        grounding=judge_grounding(regions, baselines),
    )
    return Measured(card, {**samples, **regions.samples}, _embeddings(embedded))


def measure_alone(
    checkpoint: Checkpoint, model: CrossModalModel, tested: MeasuredSet, *, name: str, unique_texts: bool = False
) -> Measured:
    """Measure a checkpoint on a test set without the data that it was trained on.

    What needs the training or the validation split is left out: the baselines that are fitted, and with them the
    verdict on boxes and relations, the query bank, and re-ranking that was not chosen yet.

    Args:
        model: of the checkpoint, on the device that it is to run on.
        name: of the checkpoint, for the record.
        unique_texts: count equal captions as one, also if the checkpoint's configuration does not say so.
    Raises:
        DivergedError: an output of the model is not finite.
    """
    asked = {"evaluation.unique_texts": True} if unique_texts else {}
    settings = checkpoint.config.with_overrides(asked).evaluation
    order = settled_order(checkpoint, settings)
    started = time.monotonic()
    embedded = embed_split(model, tested.split.to(next(model.parameters()).device))
    rules = [RankingRule(depth, order.weight) for depth in dict.fromkeys((0, order.depth))]
    evaluations, samples = _retrieval(model, embedded, rules, tested.name, settings)
    regions = measure_regions(model, embedded)
    shuffled = measure_shuffled(model, embedded)
    seconds = time.monotonic() - started
    card = Scorecard(
        checkpoint=name,
        fingerprint=tested.fingerprint,
        config_hash=checkpoint.receipt.config_hash,
        epoch=checkpoint.epoch,
        evaluations=evaluations,
        regions_split=tested.name if regions.metrics else None,
        regions={**regions.metrics, **baseline_metrics(shuffled)},
        confusion=regions.confusion,
        efficiency=_efficiency(checkpoint, model, tested.backbone_parameters, embedded.split, seconds),
    )
    return Measured(card, {**samples, **regions.samples}, _embeddings(embedded))


def _embeddings(embedded: EmbeddedSplit) -> Embeddings:
    return Embeddings(embedded.images.embedded.cpu(), embedded.captions.embedded.cpu())


def sample_checkpoint(checkpoint: Checkpoint, features: Features) -> dict[str, Samples]:
    """`core.evaluation.retrieval.sample_validation` of a checkpoint, on the device of its configuration.

    Raises:
        UserError: the checkpoint belongs to other features, or its device is not available.
        DivergedError: an output of the model is not finite.
    """
    require_same_features(checkpoint, features.fingerprint, "the checkpoint")
    device = choose_device(checkpoint.config.device)
    return sample_validation(restore_model(checkpoint).to(device), features.validation.to(device))


def save_embeddings(
    path: Path, embeddings: Embeddings, images: Sequence[AnnotatedImage], image_root: Path | None
) -> None:
    """Write the embeddings of a split as .npz, in the order of its annotations.

    Arrays: image [N, D] and text [M, D] float32, unit norm; image_path and image_building [N]; text_string [M], and
    text_image [M] int64, the row of the text's own image. Paths are relative to `image_root`; without
    one they are the names of the images.

    Args:
        images: annotated images of the split that was embedded.
    """
    captions = [(text, row) for row, image in enumerate(images) for text in image.captions]
    stream = io.BytesIO()
    np.savez(
        stream,
        image=embeddings.images.numpy(),
        text=embeddings.captions.numpy(),
        image_path=np.array(
            [str(image.path if image_root is None else image.path.relative_to(image_root)) for image in images]
        ),
        image_building=np.array([image.group for image in images]),
        text_string=np.array([text for text, _ in captions]),
        text_image=np.array([row for _, row in captions], dtype=np.int64),
    )
    write_atomically(path, stream.getvalue())


def _ranking_rules(
    model: CrossModalModel, train: FeatureSplit, order: Order, settings: EvaluationConfig
) -> list[RankingRule]:
    """By similarity and re-ranked; then both once more with the query bank, if there is one."""
    banks = [None] if settings.query_bank == "none" else [None, embed_texts(model, train)[train.caption_text]]
    depths = dict.fromkeys((0, order.depth))
    return [RankingRule(k, order.weight, bank) for bank in banks for k in depths]


def _retrieval(
    model: CrossModalModel,
    embedded: EmbeddedSplit,
    rules: Sequence[RankingRule],
    split_name: str,
    settings: EvaluationConfig,
) -> tuple[list[Evaluation], dict[str, Samples]]:
    """Evaluations by each protocol under each rule, and the samples of the first rule by the main protocol."""
    rounds = [
        measure_retrieval(model, embedded, rule, split_name=split_name, unique_texts=settings.unique_texts)
        for rule in rules
    ]
    evaluations = [measured[protocol].evaluation for protocol in PROTOCOLS for measured in rounds]
    return evaluations, rounds[0][MAIN_PROTOCOL].samples


def _efficiency(
    checkpoint: Checkpoint, model: CrossModalModel, frozen_parameters: int, split: FeatureSplit, seconds: float
) -> Efficiency:
    device, receipt = next(model.parameters()).device, checkpoint.receipt
    probed = slice(0, min(PROBED_ROWS, next(image_blocks(split)).stop))
    return Efficiency(
        trainable_parameters=sum(parameter_counts(model).values()),
        frozen_parameters=frozen_parameters,
        training_epochs=receipt.epochs + receipt.earlier_epochs,
        training_seconds=receipt.seconds + receipt.earlier_seconds,
        training_peak_memory_mb=receipt.peak_memory_mb,
        images_per_second=_rows_per_second(model.embed_images, *image_features(split, probed)),
        texts_per_second=_rows_per_second(model.embed_texts, split.texts[:PROBED_ROWS]),
        evaluation_seconds=seconds,
        evaluation_peak_memory_mb=peak_memory_mb(device),
        device=device_name(device),
        earlier_epochs=receipt.earlier_epochs,
        earlier_seconds=receipt.earlier_seconds,
    )


@torch.no_grad()
def _rows_per_second(embed: Callable[..., Tensor], *tables: Tensor) -> float:
    embed(*tables)
    started = time.perf_counter()
    float(embed(*tables).sum())  # reading the number waits for a GPU
    return len(tables[0]) / (time.perf_counter() - started)
