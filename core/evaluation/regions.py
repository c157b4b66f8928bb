"""Box and relation metrics of a split's regions, and what is reached by baselines that do not see their images."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from core.data.overlap import paired_giou, paired_iou
from core.evaluation.embedding import EmbeddedSplit, evaluation_mode, pair_blocks
from core.evaluation.metrics import box_scores, confusion_matrix, group_bootstrap, relation_scores
from core.evaluation.text_only import fit_text_only
from core.features.store import FeatureSplit, Statistics
from core.model.model import CrossModalModel, require_finite
from core.records import GROUNDING_METRICS, MAJORITY, MEAN_BOX, SHUFFLED, TEXT_ONLY, Grounding, Interval, Samples


@dataclass(frozen=True, slots=True)
class RegionMeasurement:
    """Metrics of a split's regions; all fields are empty if it has none."""

    metrics: dict[str, float]
    """box_iou, box_giou, box_l1, box_acc50, relation_accuracy, relation_f1, relation_majority"""
    samples: dict[str, Samples]
    """Per region: box_iou, box_giou, box_l1, box_acc50, relation_accuracy."""
    confusion: list[list[int]]
    """[6, 6] counts; rows are the true relation, columns the predicted one, in the order of geometry.RELATIONS."""


def measure_regions(model: CrossModalModel, embedded: EmbeddedSplit) -> RegionMeasurement:
    """Measure the boxes and relations that a model predicts.

    Raises:
        DivergedError: a predicted box or relation logit is not finite.
    """
    split = embedded.split
    if len(split.boxes) == 0:
        return RegionMeasurement({}, {}, [])
    return _measurement(split, *predict_regions(model, embedded, split.sentence_image))


def measure_baselines(
    model: CrossModalModel, embedded: EmbeddedSplit, train: FeatureSplit, statistics: Statistics
) -> dict[str, RegionMeasurement]:
    """What is reached without the image of a region, on the split of `embedded`.

    Args:
        train, statistics: of the training split, which the mean box and the network are taken from.
    Returns:
        text_only, a small network that sees the sentence alone; shuffled, the model with images of other buildings;
        mean_box, without relations. Empty if one of the two splits has no regions.
    """
    split = embedded.split
    if len(train.boxes) == 0 or len(split.boxes) == 0:
        return {}
    boxes, relations = fit_text_only(train, statistics).predict(split)
    learnable = bool((train.relations >= 0).any())
    return {
        TEXT_ONLY: _measurement(split, boxes, relations if learnable else None),
        **measure_shuffled(model, embedded),
        MEAN_BOX: _measurement(split, train.boxes.mean(dim=0).expand_as(split.boxes), None),
    }


def measure_shuffled(model: CrossModalModel, embedded: EmbeddedSplit) -> dict[str, RegionMeasurement]:
    """The one of these baselines that needs no training split; empty without regions."""
    split = embedded.split
    if len(split.boxes) == 0:
        return {}
    return {SHUFFLED: _measurement(split, *predict_regions(model, embedded, shuffled_images(split)))}


def baseline_metrics(baselines: Mapping[str, RegionMeasurement]) -> dict[str, float]:
    """Metrics of baselines as <metric>_<baseline>."""
    return {
        f"{name}_{baseline}": value
        for baseline, measurement in baselines.items()
        for name, value in measurement.metrics.items()
        if name != MAJORITY  # which is of the split, whoever answers
    }


def judge_grounding(measured: RegionMeasurement, baselines: Mapping[str, RegionMeasurement]) -> dict[str, Grounding]:
    """Whether the box IoU and the relation accuracy of a model depend on the image, by paired bootstrap over groups."""
    references = [baselines[name].samples for name in (TEXT_ONLY, SHUFFLED) if name in baselines]
    return {
        name: Grounding.judge(*(_difference(measured.samples[name], samples[name]) for samples in references))
        for name in GROUNDING_METRICS
        if references and all(name in samples for samples in (measured.samples, *references))
    }


def _difference(model: Samples, baseline: Samples) -> Interval:
    """Model minus baseline, region by region."""
    return group_bootstrap(model.values - baseline.values, model.groups)


def shuffled_images(split: FeatureSplit, *, seed: int = 0) -> Tensor:
    """An image [R] for each region that is of another group, or another image where all are of one group.

    Every region is given another region's image, so that images are as frequent as before. Only where more than half
    of the regions are of one group, some images are given twice.

    Args:
        split: with at least one region.
    """
    keys = split.groups[split.sentence_image]
    if len(torch.unique(keys)) == 1:
        keys = split.sentence_image
    _, keys, counts = torch.unique(keys, return_inverse=True, return_counts=True)
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randperm(len(counts), generator=generator).to(keys.device)[keys]
    order = torch.randperm(len(keys), generator=generator).to(keys.device)
    order = order[keys[order].argsort(stable=True)]  # key by key, in a random order of keys and within each
    donors = torch.empty_like(order)
    donors[order] = order.roll(-int(counts.max()))  # past the end of each key, if none has more than half
    same = keys[donors] == keys
    others = (keys != keys[same][0]).nonzero().flatten() if same.any() else order
    if len(others):
        donors[same] = others[torch.arange(int(same.sum()), device=others.device) % len(others)]
    return split.sentence_image[donors]


@torch.no_grad()
def predict_regions(model: CrossModalModel, embedded: EmbeddedSplit, images: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes [R, 4] and relation logits [R, 6] of all sentences of a split in these images [R].

    Raises:
        DivergedError: one of them is not finite.
    """
    references = embedded.split.first_region
    with evaluation_mode(model):
        parts = [
            model.ground(
                embedded.images.rows(images[regions]),
                embedded.sentences.rows(regions),
                embedded.sentences.rows(references[regions]),
            )
            for regions in pair_blocks(len(images), embedded.images, embedded.sentences)
        ]
    boxes, relations = (torch.cat(part).float() for part in zip(*parts, strict=True))
    return require_finite(boxes, "boxes"), require_finite(relations, "relations")


def _measurement(split: FeatureSplit, boxes: Tensor, logits: Tensor | None) -> RegionMeasurement:
    """Metrics of predictions for all regions; without those of relations where there are no logits."""
    groups = split.groups[split.sentence_image]
    metrics = box_scores(boxes, split.boxes)
    iou = paired_iou(boxes, split.boxes)
    samples = {
        "box_iou": _samples(iou, groups),
        "box_giou": _samples(paired_giou(boxes, split.boxes), groups),
        "box_l1": _samples((boxes - split.boxes).abs().mean(dim=1), groups),
        "box_acc50": _samples(iou >= 0.5, groups),
    }
    related = split.relations >= 0
    if logits is None or not related.any():
        return RegionMeasurement(metrics, samples, [])
    target = split.relations[related]
    predicted = logits[related].argmax(dim=1)
    metrics |= relation_scores(predicted, target)
    samples["relation_accuracy"] = _samples(predicted == target, groups[related])
    return RegionMeasurement(metrics, samples, confusion_matrix(predicted, target).tolist())


def _samples(values: Tensor, groups: Tensor) -> Samples:
    return Samples(values.double().cpu().numpy(), groups.cpu().numpy())
