import dataclasses

import pytest
import torch
from sklearn.metrics import confusion_matrix, f1_score
from torch import Tensor

from core.config import ModelConfig
from core.evaluation.regions import blind_baselines, measure_regions
from core.features.store import FeatureSplit, Widths
from core.model.model import CrossModalModel
from core.model.views import ImageView, TextView
from tests.conftest import planted_split


class Oracle(CrossModalModel):
    """Returns fixed answers instead of using the image."""

    def __init__(self, boxes: Tensor, logits: Tensor) -> None:
        super().__init__(Widths(16, 20), ModelConfig(adapter_width=4, embed_dim=4, dropout=0.0, fusion="concat"))
        self.answers = boxes, logits

    def ground(self, images: ImageView, texts: TextView, references: TextView) -> tuple[Tensor, Tensor]:
        return self.answers


@pytest.fixture
def split() -> FeatureSplit:
    return planted_split(10, seed=3)


def dummy(split: FeatureSplit) -> tuple[Tensor, Tensor]:
    return torch.zeros(len(split.images), 4), torch.zeros(len(split.boxes), 4)


def test_right_answers_score_one(split: FeatureSplit) -> None:
    model = Oracle(split.boxes, torch.nn.functional.one_hot(split.relations.clamp(min=0), 6).float())
    measured = measure_regions(model, split, *dummy(split)).metrics
    assert measured["box_iou"] == pytest.approx(1.0)
    assert measured["box_l1"] == 0.0
    assert measured["relation_accuracy"] == measured["relation_f1"] == 1.0


def test_relations_agree_with_scikit_learn(split: FeatureSplit) -> None:
    related = split.relations >= 0
    logits = torch.randn(len(related), 6, generator=torch.Generator().manual_seed(0))
    measured = measure_regions(Oracle(split.boxes, logits), split, *dummy(split))
    target, predicted = split.relations[related], logits[related].argmax(1)
    assert measured.confusion == confusion_matrix(target, predicted, labels=range(6)).tolist()
    assert measured.metrics["relation_f1"] == pytest.approx(f1_score(target, predicted, average="macro"))
    assert measured.samples["relation_accuracy"].values.mean() == pytest.approx(measured.metrics["relation_accuracy"])


def test_samples_average_to_the_metrics_and_know_their_building(split: FeatureSplit) -> None:
    model = Oracle(split.boxes.flip(0), torch.zeros(len(split.boxes), 6))
    measured = measure_regions(model, split, *dummy(split))
    for name, samples in measured.samples.items():
        assert samples.values.mean() == pytest.approx(measured.metrics[name], abs=1e-6)
    assert measured.samples["box_iou"].groups.tolist() == split.groups[split.sentence_image].tolist()


def test_a_split_without_regions_has_no_figures(split: FeatureSplit) -> None:
    bare = dataclasses.replace(split, boxes=split.boxes[:0], relations=split.relations[:0])
    assert measure_regions(Oracle(split.boxes, split.boxes), bare, *dummy(bare)).metrics == {}


def test_a_sentence_that_gives_the_box_away_needs_no_image(split: FeatureSplit) -> None:
    other = planted_split(10, seed=4)
    measured = blind_baselines(split, other, split.boxes, other.boxes)  # the sentence is the box itself
    assert measured["box_iou_text_only"] > 0.9
    assert measured["box_iou_mean_box"] < measured["box_iou_text_only"]


def test_the_mean_box_and_the_commonest_relation_are_the_baselines(split: FeatureSplit) -> None:
    same_box = torch.tensor([[0.1, 0.1, 0.4, 0.4]]).expand(len(split.boxes), -1)
    alike = dataclasses.replace(split, boxes=same_box, relations=torch.full_like(split.relations, 2))
    assert blind_baselines(alike, alike, split.boxes, split.boxes)["box_iou_mean_box"] == pytest.approx(1.0)
    model = Oracle(split.boxes, torch.zeros(len(split.boxes), 6))
    assert measure_regions(model, alike, *dummy(alike)).metrics["relation_majority"] == 1.0
