import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, f1_score
from torch import Tensor
from torch.nn.functional import one_hot

from core.config import ModelConfig
from core.data.overlap import paired_iou
from core.evaluation import embedding
from core.evaluation.embedding import EmbeddedSplit, embed_split
from core.evaluation.regions import (
    RegionMeasurement,
    baseline_metrics,
    judge_grounding,
    measure_baselines,
    measure_regions,
    shuffled_images,
)
from core.features.store import FeatureSplit, Statistics, Widths
from core.model.model import CrossModalModel
from core.model.views import ImageView, TextView
from tests.conftest import planted_split, without_regions
from tests.core.evaluation.attending import Attending, with_grid


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


class Looking(Oracle):
    """Finds the box that each image shows; the first four numbers of an embedding are it."""

    def __init__(self) -> None:
        super().__init__(torch.zeros(0), torch.zeros(0))

    def ground(self, images: ImageView, texts: TextView, references: TextView) -> tuple[Tensor, Tensor]:
        return images.embedded, one_hot((100 * images.embedded[:, 0]).long() % 6, 6).float()


def embedded_as(split: FeatureSplit, images: Tensor | None = None) -> EmbeddedSplit:
    """A split whose embeddings nobody looks at, unless they are given."""
    nothing = TextView(torch.zeros(len(split.sentence_text), 4))
    images = torch.zeros(len(split.images), 4) if images is None else images
    return EmbeddedSplit(split, ImageView(images), nothing, nothing)


def measure_oracle(split: FeatureSplit, boxes: Tensor, logits: Tensor) -> RegionMeasurement:
    return measure_regions(Oracle(boxes, logits), embedded_as(split))


def test_right_answers_score_one(split: FeatureSplit) -> None:
    measured = measure_oracle(split, split.boxes, one_hot(split.relations.clamp(min=0), 6).float()).metrics
    assert measured["box_iou"] == pytest.approx(1.0)
    assert measured["box_l1"] == 0.0
    assert measured["relation_accuracy"] == measured["relation_f1"] == 1.0


def test_relations_agree_with_scikit_learn(split: FeatureSplit) -> None:
    related = split.relations >= 0
    logits = torch.randn(len(related), 6, generator=torch.Generator().manual_seed(0))
    measured = measure_oracle(split, split.boxes, logits)
    target, predicted = split.relations[related], logits[related].argmax(1)
    assert measured.confusion == confusion_matrix(target, predicted, labels=range(6)).tolist()
    assert measured.metrics["relation_f1"] == pytest.approx(f1_score(target, predicted, average="macro"))
    assert measured.samples["relation_accuracy"].values.mean() == pytest.approx(measured.metrics["relation_accuracy"])


def test_samples_average_to_the_metrics_and_know_their_building(split: FeatureSplit) -> None:
    measured = measure_oracle(split, split.boxes.flip(0), torch.zeros(len(split.boxes), 6))
    for name, samples in measured.samples.items():
        assert samples.values.mean() == pytest.approx(measured.metrics[name], abs=1e-6)
    assert measured.samples["box_iou"].groups.tolist() == split.groups[split.sentence_image].tolist()


def test_a_split_without_regions_has_no_figures(split: FeatureSplit) -> None:
    bare = without_regions(split)
    model = Oracle(split.boxes, split.boxes)
    assert measure_regions(model, embedded_as(bare)).metrics == {}
    for one, other in ((split, bare), (bare, split)):
        assert measure_baselines(model, embedded_as(one), other, statistics(split)) == {}


def test_regions_are_grounded_in_their_image_with_the_first_region_as_reference(split: FeatureSplit) -> None:
    gridded, watched = with_grid(dataclasses.replace(split, first_region=torch.arange(len(split.boxes)) // 3 * 3))
    model = Attending()
    embedded = embed_split(model, dataclasses.replace(gridded, grid=None))
    embedded = dataclasses.replace(embedded, images=ImageView(embedded.images.embedded, watched))
    measured = measure_regions(model, embedded).metrics
    texts = split.texts[:]
    boxes, _ = model.ground(
        ImageView(embedded.images.embedded, watched[split.sentence_image]),
        TextView(embedded.sentences.embedded, texts),
        TextView(embedded.sentences.embedded, texts[gridded.first_region]),
    )
    assert measured["box_iou"] == pytest.approx(float(paired_iou(boxes, split.boxes).mean()))


def test_regions_are_grounded_in_blocks(split: FeatureSplit, monkeypatch: pytest.MonkeyPatch) -> None:
    gridded, watched = with_grid(dataclasses.replace(split, first_region=torch.arange(len(split.boxes)) // 3 * 3))
    model = Attending()
    embedded = embed_split(model, dataclasses.replace(gridded, grid=None))
    embedded = dataclasses.replace(embedded, images=ImageView(embedded.images.embedded, watched))
    whole = measure_regions(model, embedded).metrics
    watched.most = 0
    monkeypatch.setattr(embedding, "PAIR_BYTES", 4 * (8 * 4 + 4 * 20 + 20) * 7)
    assert measure_regions(model, embedded).metrics == pytest.approx(whole)
    assert watched.most == 7


def statistics(split: FeatureSplit) -> Statistics:
    images, texts = split.images[:], split.texts[:]
    return Statistics(images.mean(0), images.std(0), texts.mean(0), texts.std(0))


def baselines_of(model: CrossModalModel, embedded: EmbeddedSplit, train: FeatureSplit) -> dict[str, RegionMeasurement]:
    return measure_baselines(model, embedded, train, statistics(train))


def telling(split: FeatureSplit) -> FeatureSplit:
    """Each sentence is the box itself."""
    return dataclasses.replace(split, texts=split.boxes)


def test_a_sentence_that_gives_the_box_away_needs_no_image() -> None:
    train, other = telling(planted_split(2000, seed=3)), telling(planted_split(10, seed=4))
    found = baseline_metrics(baselines_of(Oracle(other.boxes, torch.zeros(30, 6)), embedded_as(other), train))
    assert found["box_iou_text_only"] > 0.9
    assert found["box_iou_mean_box"] < found["box_iou_text_only"]


def test_the_mean_box_and_the_commonest_relation_are_the_baselines(split: FeatureSplit) -> None:
    same_box = torch.tensor([[0.1, 0.1, 0.4, 0.4]]).expand(len(split.boxes), -1)
    alike = dataclasses.replace(split, boxes=same_box, relations=torch.full_like(split.relations, 2))
    model = Oracle(split.boxes, torch.zeros(len(split.boxes), 6))
    baselines = baselines_of(model, embedded_as(alike), alike)
    assert baseline_metrics(baselines)["box_iou_mean_box"] == pytest.approx(1.0)
    assert measure_regions(model, embedded_as(alike)).metrics["relation_majority"] == 1.0


def test_every_baseline_that_answers_has_every_metric(split: FeatureSplit) -> None:
    model = Oracle(split.boxes, torch.zeros(len(split.boxes), 6))
    boxes = {f"box_{name}" for name in ("iou", "giou", "l1", "acc50")}
    relations = {"relation_accuracy", "relation_f1"}
    found = baseline_metrics(baselines_of(model, embedded_as(split), split))
    expected = {f"{name}_{baseline}" for baseline in ("text_only", "shuffled") for name in boxes | relations}
    assert found.keys() == expected | {f"{name}_mean_box" for name in boxes}


def test_a_training_split_without_relations_teaches_none(split: FeatureSplit) -> None:
    model = Oracle(split.boxes, torch.zeros(len(split.boxes), 6))
    train = dataclasses.replace(split, relations=torch.full_like(split.relations, -1))
    found = baseline_metrics(baselines_of(model, embedded_as(split), train))
    assert "relation_accuracy_text_only" not in found
    assert "relation_accuracy_shuffled" in found
    grounding = judge_grounding(
        measure_regions(model, embedded_as(split)), baselines_of(model, embedded_as(split), train)
    )
    assert grounding.keys() == {"box_iou"}


def test_a_model_that_looks_is_grounded_and_one_that_does_not_is_not() -> None:
    split, train = planted_split(40, seed=4), planted_split(40, seed=3)
    looking = embedded_as(split, split.boxes)  # a region an image, which shows its box
    model = Looking()
    measured, baselines = measure_regions(model, looking), baselines_of(model, looking, train)
    assert measured.metrics["box_iou"] == pytest.approx(1.0)
    assert baselines["shuffled"].metrics["box_iou"] < 0.5
    assert judge_grounding(measured, baselines)["box_iou"].verdict == "grounded"
    blind = Oracle(split.boxes, torch.zeros(len(split.boxes), 6))  # right, whatever the image shows
    judged = judge_grounding(measure_regions(blind, looking), baselines_of(blind, looking, train))["box_iou"]
    assert judged.over_text_only.low > 0
    assert judged.over_shuffled.low == judged.over_shuffled.high == 0
    assert judged.verdict == "not grounded"


def test_looking_alone_is_not_enough_where_the_sentence_says_more() -> None:
    train, split = telling(planted_split(1000, seed=3)), telling(planted_split(40, seed=4))
    smaller = split.boxes.clone()
    smaller[:, 2:] = (smaller[:, :2] + smaller[:, 2:]) / 2  # a quarter of the right box
    looking = embedded_as(split, smaller)
    model = Looking()
    judged = judge_grounding(measure_regions(model, looking), baselines_of(model, looking, train))["box_iou"]
    assert judged.over_shuffled.low > 0
    assert judged.over_text_only.high < 0
    assert judged.verdict == "not grounded"


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=30), st.integers(0, 9))
def test_shuffled_images_are_of_another_group(regions: list[tuple[int, int]], seed: int) -> None:
    """Of regions (group, image of the group)."""
    images = torch.tensor([4 * group + image for group, image in regions])
    split = dataclasses.replace(planted_split(5, seed=0, views=4), sentence_image=images)
    given_images = shuffled_images(split, seed=seed)
    groups, own = split.groups[given_images], split.groups[images]
    if len(own.unique()) > 1:
        assert (groups != own).all()
    elif len(images.unique()) > 1:
        assert (given_images != images).all()
    if int(own.bincount().max()) * 2 <= len(own):
        assert sorted(given_images.tolist()) == sorted(images.tolist())  # a permutation
    assert torch.equal(given_images, shuffled_images(split, seed=seed))
