import dataclasses
import inspect

import pytest
import torch
from torch import Tensor, nn

from core.config import ModelConfig, TrainConfig
from core.evaluation.embedding import embed_split, embed_texts
from core.evaluation.metrics import first_relevant_ranks
from core.evaluation.ranking import RankingRule, Relevance, Search, ranks_by_similarity, rerank
from core.evaluation.retrieval import (
    PROTOCOLS,
    Protocol,
    Validation,
    both_directions,
    measure_retrieval,
    relevance_of,
    validate,
)
from core.features.store import Features, FeatureSplit, Widths
from core.model.model import CrossModalModel, build_model
from core.model.views import ImageView, TextView
from core.records import EpochMetrics, Evaluation
from core.training.train import train
from tests.conftest import planted_split, without_regions


class Constant(CrossModalModel):
    """Embeds everything alike."""

    def __init__(self) -> None:
        super().__init__(Widths(16, 20), ModelConfig(adapter_width=4, embed_dim=4, dropout=0.0, fusion="concat"))

    def embed_images(self, features: Tensor, grid: Tensor | None = None) -> Tensor:
        return nn.functional.normalize(torch.ones(len(features), 4), dim=1)

    def embed_texts(self, features: Tensor) -> Tensor:
        return self.embed_images(features)


@pytest.fixture
def model(planted_features: Features, small_config: TrainConfig) -> CrossModalModel:
    result = train(small_config, planted_features)
    model = build_model(small_config, planted_features)
    model.load_state_dict(result.last.weights)
    return model


@pytest.fixture
def split(planted_features: Features) -> FeatureSplit:
    return planted_features.validation


PLAIN = RankingRule()


def captions_over_images(model: CrossModalModel, split: FeatureSplit) -> tuple[Search, Relevance]:
    search, _ = both_directions(embed_split(model, split))
    return search, relevance_of(split, "building", search)


def evaluate(
    model: CrossModalModel, split: FeatureSplit, protocol: Protocol = "building", rule: RankingRule = PLAIN
) -> Evaluation:
    measured = measure_retrieval(model, embed_split(model, split), rule, split_name="validation")
    assert tuple(measured) == PROTOCOLS
    return measured[protocol].evaluation


def test_a_constant_model_finds_nothing(split: FeatureSplit) -> None:
    assert evaluate(Constant(), split).metrics["recall_mean"] == 0.0


def test_the_light_and_the_full_evaluation_agree(model: CrossModalModel, split: FeatureSplit) -> None:
    light = dataclasses.asdict(validate(model, split))
    full = evaluate(model, split).metrics
    shared = set(light) & set(full)
    assert {"t2i_r1", "i2t_r10", "recall_mean", "t2i_median_rank"} <= shared
    assert {name: light[name] for name in shared} == {name: full[name] for name in shared}
    sizes = ("gallery_images", "gallery_texts", "gallery_groups")
    counted = evaluate(model, split)
    assert [light[name] for name in sizes] == [counted.queries_image, counted.queries_text, counted.groups]


def test_recall_is_that_of_the_score_matrix(model: CrossModalModel, split: FeatureSplit) -> None:
    embedded = embed_split(model, split)
    scores = embedded.captions.embedded @ embedded.images.embedded.T
    ranks = first_relevant_ranks(scores, split.groups[split.caption_image], split.groups)
    assert validate(model, split).t2i_r5 == pytest.approx(float((ranks <= 5).double().mean()))


def test_relevance_by_image_is_harder_than_by_building(model: CrossModalModel, split: FeatureSplit) -> None:
    by: dict[Protocol, float] = {
        protocol: evaluate(model, split, protocol).metrics["t2i_r1"]
        for protocol in ("image", "building", "geotext-official")
    }
    assert by["image"] < by["building"]
    assert by["geotext-official"] != by["building"]


def test_validation_leaves_the_training_mode_as_it_was(model: CrossModalModel, split: FeatureSplit) -> None:
    model.train()
    validate(model, split)
    assert model.training


def test_intervals_hold_their_figure(model: CrossModalModel, split: FeatureSplit) -> None:
    evaluation = evaluate(model, split)
    for name, interval in evaluation.intervals.items():
        assert interval.low <= evaluation.metrics[name] <= interval.high
    assert (evaluation.queries_text, evaluation.queries_image, evaluation.groups) == (36, 36, 12)


def test_reranking_by_similarity_itself_changes_nothing(model: CrossModalModel, split: FeatureSplit) -> None:
    def similarity(images: ImageView, texts: TextView) -> Tensor:
        return (images.embedded * texts.embedded).sum(dim=1)

    search, relevance = captions_over_images(model, split)
    first = ranks_by_similarity(search, relevance)
    model.match_odds = similarity  # type: ignore[method-assign]
    for k in (1, 5, 36, 256):
        (again,) = rerank(model, search, [relevance], [first], RankingRule(k))
        assert again.tolist() == first.tolist()


def test_reranking_permutes_the_shortlist_and_leaves_the_rest_below_it(
    model: CrossModalModel, split: FeatureSplit
) -> None:
    search, relevance = captions_over_images(model, split)
    first = ranks_by_similarity(search, relevance)
    (again,) = rerank(model, search, [relevance], [first], RankingRule(7))
    assert torch.equal(again <= 7, first <= 7)
    assert torch.equal(again[first > 7], first[first > 7])


def test_the_ceiling_of_reranking_is_shown_beside_it(model: CrossModalModel, split: FeatureSplit) -> None:
    metrics = evaluate(model, split, rule=RankingRule(4)).metrics
    assert metrics["t2i_r1"] <= metrics["t2i_ceiling"]
    assert metrics["i2t_r1"] <= metrics["i2t_ceiling"]


def test_the_order_is_told_with_the_metrics(model: CrossModalModel, split: FeatureSplit) -> None:
    plain, reranked = evaluate(model, split), evaluate(model, split, rule=RankingRule(4, 0.5))
    assert (plain.rerank, plain.rerank_weight, plain.query_bank, plain.variant) == (0, None, "none", "")
    assert (reranked.rerank, reranked.rerank_weight, reranked.variant) == (4, 0.5, "_reranked")


def test_a_query_bank_is_told_and_touches_text_queries_alone(
    model: CrossModalModel, split: FeatureSplit, planted_features: Features
) -> None:
    model.eval()
    train_split = planted_features.train
    bank = embed_texts(model, train_split)[train_split.caption_text]
    plain, banked = evaluate(model, split), evaluate(model, split, rule=RankingRule(bank=bank))
    assert (banked.query_bank, banked.variant) == ("train_captions", "_query_bank")
    assert evaluate(model, split, rule=RankingRule(4, bank=bank)).variant == "_query_bank_reranked"
    differing = {name for name in plain.metrics if plain.metrics[name] != banked.metrics[name]}
    assert differing
    assert all(name == "recall_mean" or name.startswith("t2i") for name in differing)


def test_validation_during_training_has_no_query_bank(model: CrossModalModel, split: FeatureSplit) -> None:
    assert "bank" not in inspect.signature(validate).parameters
    assert validate(model, split).t2i_r1 == evaluate(model, split).metrics["t2i_r1"]


def test_a_split_without_regions_has_no_box_figures(model: CrossModalModel) -> None:
    bare = without_regions(planted_split(6, seed=3))
    assert validate(model, bare).box_iou is None
    assert "box_iou" not in evaluate(model, bare).metrics


def test_a_validation_has_the_names_of_an_epochs_figures() -> None:
    names = {field.name for field in dataclasses.fields(Validation)}
    assert names < {field.name for field in dataclasses.fields(EpochMetrics)}


def with_equal_captions(split: FeatureSplit) -> FeatureSplit:
    """The same, with each caption from the ninth image on also written under an image of the first eight buildings."""
    extra = torch.arange(24, 36)
    return dataclasses.replace(
        split,
        caption_text=torch.cat([split.caption_text, extra]),
        caption_image=torch.cat([split.caption_image, torch.arange(0, 24, 2)]),
    )


def test_figures_with_ties_for_the_query_are_told_where_they_differ(
    model: CrossModalModel, split: FeatureSplit
) -> None:
    assert evaluate(model, split).optimistic == {}
    tied = evaluate(model, with_equal_captions(split), "image", RankingRule(5))
    assert tied.optimistic
    assert all(value > tied.metrics[name] for name, value in tied.optimistic.items())
    constant = evaluate(Constant(), split)
    assert constant.optimistic == dict.fromkeys(("t2i_r1", "t2i_r5", "t2i_r10", "i2t_r1", "i2t_r5", "i2t_r10"), 1.0) | {
        "recall_mean": 1.0
    }


@pytest.mark.parametrize("rule", [PLAIN, RankingRule(5)], ids=["by similarity", "re-ranked"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_unique_texts_are_those_of_a_split_without_the_repetitions(
    model: CrossModalModel, split: FeatureSplit, protocol: Protocol, rule: RankingRule
) -> None:
    """A caption that is repeated under its own image is dropped by hand, which changes nothing else."""
    repeated = dataclasses.replace(
        split,
        caption_text=torch.cat([split.caption_text, torch.arange(9)]),
        caption_image=torch.cat([split.caption_image, torch.arange(9)]),
    )
    embedded = embed_split(model, repeated)
    once = measure_retrieval(model, embedded, rule, split_name="validation", unique_texts=True)[protocol]
    by_hand = evaluate(model, split, protocol, rule)
    assert once.evaluation == dataclasses.replace(by_hand, unique_texts=True)
    assert once.evaluation != measure_retrieval(model, embedded, rule, split_name="validation")[protocol].evaluation


def test_a_text_under_several_images_is_relevant_to_each(model: CrossModalModel, split: FeatureSplit) -> None:
    shared = with_equal_captions(split)
    embedded = embed_split(model, shared)
    found = measure_retrieval(model, embedded, PLAIN, split_name="validation", unique_texts=True)["image"].evaluation
    scores = embedded.captions.embedded[:36] @ embedded.images.embedded.T  # one row a text
    relevant = torch.zeros(36, 36, dtype=torch.bool)
    relevant[shared.caption_text, shared.caption_image] = True
    for figure, table, right in (("t2i_r5", scores, relevant), ("i2t_r5", scores.T, relevant.T)):
        best = table.masked_fill(~right, -9).amax(dim=1, keepdim=True)
        ranks = 1 + ((table >= best) & ~right).sum(dim=1)
        assert found.metrics[figure] == pytest.approx(float((ranks <= 5).double().mean()))
    assert (found.queries_text, found.queries_image, found.texts_in_words) == (36, 36, "36 distinct texts")
    assert found.optimistic == {}
