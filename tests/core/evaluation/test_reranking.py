from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from core.config import EvaluationConfig, TrainConfig
from core.evaluation.embedding import embed_split
from core.evaluation.ranking import Order, RankingRule
from core.evaluation.reranking import WEIGHTS, choose_reranking, chosen_reranking, orders_up_to
from core.evaluation.retrieval import measure_retrieval, validate
from core.features.store import Features, FeatureSplit
from core.model.checkpoints import Checkpoint, restore_model
from core.model.model import CrossModalModel
from core.model.views import ImageView, TextView
from core.records import Reranking
from core.training.train import train

Odds = Callable[[ImageView, TextView], Tensor]


@pytest.fixture
def checkpoint(planted_features: Features, small_config: TrainConfig) -> Checkpoint:
    return train(small_config.with_overrides({"recipe.epochs": 1}), planted_features).best


@pytest.fixture
def model(checkpoint: Checkpoint, planted_features: Features) -> CrossModalModel:
    return restore_model(checkpoint)


@pytest.fixture
def split(planted_features: Features) -> FeatureSplit:
    return planted_features.validation


def with_head(model: CrossModalModel, odds: Odds) -> CrossModalModel:
    model.match_odds = odds  # type: ignore[method-assign,assignment]
    return model


def per_text(images: ImageView, texts: TextView) -> Tensor:
    """The image of each text: heads are given each image once, and as many texts of each."""
    return images.embedded.repeat_interleave(len(texts.embedded) // len(images.embedded), dim=0)


def knows_buildings(model: CrossModalModel, split: FeatureSplit) -> Odds:
    embedded = embed_split(model, split)

    def odds(images: ImageView, texts: TextView) -> Tensor:
        image_rows = (per_text(images, texts) @ embedded.images.embedded.T).argmax(dim=1)
        text_rows = (texts.embedded @ embedded.captions.embedded.T).argmax(dim=1)
        same = split.groups[image_rows] == split.groups[split.caption_image[text_rows]]
        return torch.where(same, 10.0, -10.0)

    return odds


def opposes_similarity(images: ImageView, texts: TextView) -> Tensor:
    return -100 * (per_text(images, texts) * texts.embedded).sum(dim=1)


def says_nothing(images: ImageView, texts: TextView) -> Tensor:
    return torch.zeros(len(texts.embedded))


def test_the_choices_go_from_similarity_alone_to_many_candidates(split: FeatureSplit) -> None:
    orders = orders_up_to(256, split)  # 36 images and 36 captions
    assert orders[0] == Order(36, 0.0)
    assert orders[1:] == [Order(depth, weight) for depth in (2, 9, 36) for weight in WEIGHTS]
    assert [order.depth for order in orders_up_to(8, split)[:: len(WEIGHTS)]] == [8, 2, 8]
    assert orders_up_to(1, split) == [Order(1, 0.0)]


@pytest.mark.parametrize("head", [opposes_similarity, says_nothing])
def test_a_head_that_does_not_help_is_left_out(model: CrossModalModel, split: FeatureSplit, head: Odds) -> None:
    plain = validate(model, split).recall_mean
    chosen = choose_reranking(with_head(model, head), split, orders_up_to(16, split), objective="recall_mean")
    assert chosen == Reranking(16, 0.0, "recall_mean", plain=plain, reranked=plain)
    assert chosen.in_words().startswith("off")


def test_a_head_that_helps_is_used_as_the_full_evaluation_confirms(model: CrossModalModel, split: FeatureSplit) -> None:
    with_head(model, knows_buildings(model, split))
    chosen = choose_reranking(model, split, orders_up_to(256, split), objective="t2i_r1")
    assert chosen.plain == validate(model, split).t2i_r1
    assert chosen.reranked > chosen.plain
    rule = RankingRule(chosen.depth, chosen.weight)
    measured = measure_retrieval(model, embed_split(model, split), rule, split_name="validation")
    assert measured["building"].evaluation.metrics["t2i_r1"] == chosen.reranked


def test_a_gain_in_one_building_is_no_reason(model: CrossModalModel, split: FeatureSplit) -> None:
    whole = knows_buildings(model, split)
    embedded = embed_split(model, split)

    def knows_one_building(images: ImageView, texts: TextView) -> Tensor:
        text_rows = (texts.embedded @ embedded.captions.embedded.T).argmax(dim=1)
        of_one = split.groups[split.caption_image[text_rows]] == split.groups[-1]
        return torch.where(of_one, whole(images, texts), 0.0)

    orders = orders_up_to(256, split)
    rounds = [
        measure_retrieval(with_head(model, knows_one_building), embedded, RankingRule(*order), split_name="validation")
        for order in orders
    ]
    values = [measured["building"].evaluation.metrics["t2i_r1"] for measured in rounds]
    assert max(values) > values[0]
    assert choose_reranking(model, split, orders, objective="t2i_r1").weight == 0


def test_the_validation_figure_is_the_highest_of_the_choices_that_are_better(
    model: CrossModalModel, split: FeatureSplit
) -> None:
    with_head(model, knows_buildings(model, split))
    orders, embedded = orders_up_to(256, split), embed_split(model, split)
    rounds = [
        measure_retrieval(model, embedded, RankingRule(*order), split_name="validation")["building"] for order in orders
    ]
    values = [measured.evaluation.metrics["i2t_r5"] for measured in rounds]
    chosen = choose_reranking(model, split, orders, objective="i2t_r5")
    assert (chosen.plain, chosen.reranked) == (values[0], max(values))
    assert Order(chosen.depth, chosen.weight) == orders[values.index(max(values))]


def test_settings_that_leave_no_choice_are_followed(
    checkpoint: Checkpoint, model: CrossModalModel, planted_features: Features
) -> None:
    for settings in (EvaluationConfig(k_test=0), EvaluationConfig(rerank_weight=0.5)):
        assert chosen_reranking(checkpoint, model, planted_features, settings) is None


def test_a_choice_in_the_checkpoint_is_not_made_again(
    checkpoint: Checkpoint, model: CrossModalModel, planted_features: Features
) -> None:
    stored = Reranking(3, 0.25, "recall_mean", plain=0.1, reranked=0.2)
    holding = replace(checkpoint, reranking=stored)
    assert chosen_reranking(holding, model, planted_features, EvaluationConfig()) == stored


def test_a_matching_head_that_was_never_trained_is_left_out(
    planted_features: Features, small_config: TrainConfig
) -> None:
    untrained = train(small_config.with_overrides({"recipe.epochs": 1, "loss.itm": 0.0}), planted_features).best
    model = restore_model(untrained)
    with_head(model, knows_buildings(model, planted_features.validation))
    chosen = chosen_reranking(untrained, model, planted_features, EvaluationConfig())
    assert chosen is not None
    assert chosen.weight == 0
