"""Box and relation metrics of a split's regions, and baselines that do not use the image."""

from dataclasses import dataclass

import torch
from torch import Tensor

from core.data.geometry import paired_giou, paired_iou
from core.evaluation.metrics import box_scores, confusion_matrix, relation_scores
from core.features.store import FeatureSplit
from core.model.model import CrossModalModel, require_finite
from core.model.views import ImageView, TextView
from core.records import Samples

RIDGE = 1e-2
"""Regularisation of the text-only regression, relative to the mean diagonal of the Gram matrix."""


@dataclass(frozen=True, slots=True)
class RegionMeasurement:
    """Metrics of a split's regions; all fields are empty if it has none."""

    metrics: dict[str, float]
    """box_iou, box_giou, box_l1, box_acc50, relation_accuracy, relation_f1, relation_majority"""
    samples: dict[str, Samples]
    """Per region: box_iou, box_giou, box_l1, box_acc50, relation_accuracy."""
    confusion: list[list[int]]
    """[6, 6] counts; rows are the true relation, columns the predicted one, in the order of geometry.RELATIONS."""


@torch.no_grad()
def measure_regions(
    model: CrossModalModel, split: FeatureSplit, images: Tensor, sentences: Tensor
) -> RegionMeasurement:
    """Measure the box and relation predictions of a model.

    Args:
        images, sentences: embeddings of the same split, [N, D] and [R, D].
    Raises:
        DivergedError: a predicted box or relation logit is not finite.
    """
    if len(split.boxes) == 0:
        return RegionMeasurement({}, {}, [])
    region_images = images[split.sentence_image]
    groups = split.groups[split.sentence_image]
    boxes, relations = model.ground(
        ImageView(region_images), TextView(sentences), TextView(sentences[split.first_region])
    )
    require_finite(boxes, "boxes"), require_finite(relations, "relations")
    metrics = box_scores(boxes, split.boxes)
    iou = paired_iou(boxes, split.boxes)
    samples = {
        "box_iou": _samples(iou, groups),
        "box_giou": _samples(paired_giou(boxes, split.boxes), groups),
        "box_l1": _samples((boxes - split.boxes).abs().mean(dim=1), groups),
        "box_acc50": _samples(iou >= 0.5, groups),
    }
    related = split.relations >= 0
    if not related.any():
        return RegionMeasurement(metrics, samples, [])
    target = split.relations[related]
    predicted = relations[related].argmax(dim=1)
    metrics |= relation_scores(predicted, target)
    samples["relation_accuracy"] = _samples(predicted == target, groups[related])
    return RegionMeasurement(metrics, samples, confusion_matrix(predicted, target).tolist())


def blind_baselines(
    train: FeatureSplit, split: FeatureSplit, train_sentences: Tensor, sentences: Tensor
) -> dict[str, float]:
    """Box metrics without the image: of the mean training box, and of a ridge regression from the sentence to its box.

    Sentences state the position ("on the upper left"), so only a box head that beats the regression uses the image.

    Args:
        train_sentences, sentences: embeddings of the training split and of `split`, [R', D] and [R, D].
    Returns:
        box_*_mean_box and box_*_text_only; empty if one of the splits has no regions.
    """
    if len(train.boxes) == 0 or len(split.boxes) == 0:
        return {}
    mean_box = train.boxes.mean(dim=0).expand_as(split.boxes)
    centred = train_sentences - train_sentences.mean(dim=0)
    gram = centred.T @ centred
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), device=gram.device)
    weights = torch.linalg.solve(gram + ridge, centred.T @ (train.boxes - train.boxes.mean(dim=0)))
    by_text = mean_box + (sentences - train_sentences.mean(dim=0)) @ weights
    baselines = {"mean_box": mean_box, "text_only": _valid(by_text)}
    return {
        f"{name}_{baseline}": value
        for baseline, boxes in baselines.items()
        for name, value in box_scores(boxes, split.boxes).items()
    }


def _valid(boxes: Tensor) -> Tensor:
    """Clip boxes [R, 4] to the image and order their corners."""
    boxes = boxes.clamp(0, 1)
    return torch.cat([torch.minimum(boxes[:, :2], boxes[:, 2:]), torch.maximum(boxes[:, :2], boxes[:, 2:])], dim=1)


def _samples(values: Tensor, groups: Tensor) -> Samples:
    return Samples(values.double().cpu().numpy(), groups.cpu().numpy())
