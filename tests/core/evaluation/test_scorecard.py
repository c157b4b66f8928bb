import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from core.config import EvaluationConfig, TrainConfig
from core.errors import UserError
from core.evaluation.scorecard import measure, require_same_model, save_embeddings
from core.features.inputs import read_inputs
from core.features.opening import open_features
from core.features.store import Features
from core.model.checkpoints import Checkpoint
from core.records import Reranking, Scorecard
from core.training.train import train
from tests.conftest import without_regions


@pytest.fixture
def checkpoint(planted_features: Features, small_config: TrainConfig) -> Checkpoint:
    return train(small_config, planted_features).best


def test_every_protocol_is_measured_without_and_with_reranking(
    checkpoint: Checkpoint, planted_features: Features
) -> None:
    card = measure(checkpoint, planted_features, name="a.pth", settings=EvaluationConfig(k_test=5)).scorecard
    kinds = [(evaluation.protocol, evaluation.rerank) for evaluation in card.evaluations]
    assert kinds == [(p, k) for p in ("image", "building", "geotext-official") for k in (0, 5)]
    assert {evaluation.split for evaluation in card.evaluations} == {"test"}
    assert card.find("building", reranked=True).rerank == 5
    assert Scorecard.from_json(json.loads(json.dumps(card.to_json()))) == card


def test_no_reranking_is_measured_once(checkpoint: Checkpoint, planted_features: Features) -> None:
    card = measure(checkpoint, planted_features, name="a.pth", settings=EvaluationConfig(k_test=0)).scorecard
    assert len(card.evaluations) == 3


def test_a_query_bank_is_measured_beside_plain_similarities(checkpoint: Checkpoint, planted_features: Features) -> None:
    settings = EvaluationConfig(k_test=5, rerank_weight=0.5, query_bank="train_captions")
    card = measure(checkpoint, planted_features, name="a.pth", settings=settings).scorecard
    rounds = [(e.query_bank, e.rerank, e.rerank_weight) for e in card.evaluations if e.protocol == "building"]
    assert rounds == [(bank, k, weight) for bank in ("none", "train_captions") for k, weight in ((0, None), (5, 0.5))]
    plain = measure(checkpoint, planted_features, name="a.pth", settings=EvaluationConfig(k_test=0)).scorecard
    assert card.find("building", reranked=False) == plain.find("building", reranked=False)
    assert card.find("building", reranked=True).query_bank == "none"
    flat = card.flat()
    names = ("building", "building_reranked", "building_query_bank", "building_query_bank_reranked")
    assert {f"{name}/t2i_r1" for name in names} <= flat.keys()
    assert flat["building_query_bank/t2i_r1"] != flat["building/t2i_r1"]


@pytest.mark.parametrize(
    ("settings", "order"),
    [
        (EvaluationConfig(), (9, 0.25)),
        (EvaluationConfig(k_test=4), (4, 0.25)),
        (EvaluationConfig(k_test=4, rerank_weight=2.0), (4, 2.0)),
        (EvaluationConfig(rerank_weight=2.0), (256, 2.0)),
    ],
    ids=["as chosen", "no more than allowed", "as configured", "a weight alone"],
)
def test_the_choice_of_the_checkpoint_is_used_unless_the_settings_give_a_weight(
    checkpoint: Checkpoint, planted_features: Features, settings: EvaluationConfig, order: tuple[int, float]
) -> None:
    holding = replace(checkpoint, reranking=Reranking(9, 0.25, "recall_mean", plain=0.1, reranked=0.2))
    card = measure(holding, planted_features, name="a.pth", settings=settings).scorecard
    evaluation = card.find("building", reranked=True)
    assert (evaluation.rerank, evaluation.rerank_weight) == order


def test_a_model_trained_on_all_buildings_is_measured_on_the_test_split_alone(
    planted_features: Features, small_config: TrainConfig
) -> None:
    checkpoint = train(small_config.with_overrides({"data.train_on": "all"}), planted_features).best
    with pytest.raises(UserError, match=r"a\.pth: was trained on the validation split, too; set data\.test"):
        measure(checkpoint, replace(planted_features, test=None), name="a.pth", settings=EvaluationConfig())
    assert planted_features.test is not None
    bare = replace(planted_features, test=without_regions(planted_features.test))
    card = measure(checkpoint, bare, name="a.pth", settings=EvaluationConfig()).scorecard
    assert (card.regions_split, card.regions) == (None, {})
    assert card.find("building", reranked=True).rerank_weight == 0  # nothing was left to choose it by


def test_without_a_choice_it_is_made_on_validation(checkpoint: Checkpoint, planted_features: Features) -> None:
    """On the same split, re-ranking then cannot be worse."""
    validated = replace(planted_features, test=None)
    card = measure(checkpoint, validated, name="a.pth", settings=EvaluationConfig()).scorecard
    plain, reranked = (card.find("building", reranked=again).metrics["recall_mean"] for again in (False, True))
    assert reranked >= plain


def test_regions_stand_beside_their_baselines_with_a_verdict(
    checkpoint: Checkpoint, planted_features: Features
) -> None:
    card = measure(checkpoint, planted_features, name="a.pth", settings=EvaluationConfig(k_test=0)).scorecard
    assert card.grounding.keys() == {"box_iou", "relation_accuracy"}
    for name, grounding in card.grounding.items():
        for baseline, difference in (("text_only", grounding.over_text_only), ("shuffled", grounding.over_shuffled)):
            expected = card.regions[name] - card.regions[f"{name}_{baseline}"]
            assert difference.value == pytest.approx(expected, abs=1e-6)
    assert Scorecard.from_json(json.loads(json.dumps(card.to_json()))) == card


def test_costs_are_in_the_table(checkpoint: Checkpoint, planted_features: Features) -> None:
    cost = measure(checkpoint, planted_features, name="a.pth", settings=EvaluationConfig(k_test=0)).scorecard.efficiency
    assert cost.training_epochs == 4
    assert cost.trainable_parameters == sum(p.numel() for name, p in checkpoint.weights.items() if "norm" not in name)
    assert min(cost.images_per_second, cost.texts_per_second, cost.evaluation_seconds) > 0


def test_a_configuration_of_another_model_is_refused(checkpoint: Checkpoint, small_config: TrainConfig) -> None:
    require_same_model(checkpoint, small_config.with_overrides({"optimizer.learning_rate": 0.5}), Path("a.pth"))
    for change in ({"model.embed_dim": 8}, {"features.text": "lm.mean"}):
        with pytest.raises(UserError, match=next(iter(change)).replace(".", r"\.")):
            require_same_model(checkpoint, small_config.with_overrides(change), Path("a.pth"))


def test_the_figures_can_be_recomputed_from_the_embeddings(demo_config: TrainConfig, tmp_path: Path) -> None:
    features = open_features(demo_config, with_test=True)
    measured = measure(train(demo_config, features).best, features, name="a.pth", settings=EvaluationConfig(k_test=0))
    records = read_inputs(demo_config).images["test"]
    save_embeddings(tmp_path / "e.npz", measured.embeddings, records, demo_config.data.image_root)
    content = np.load(tmp_path / "e.npz", allow_pickle=False)
    image, text = content["image"], content["text"]
    assert image.dtype == text.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(image, axis=1), 1, atol=1e-5)
    own = content["image_building"][content["text_image"]]
    best = (text @ image.T).argmax(axis=1)
    r1 = (content["image_building"][best] == own).mean()
    assert r1 == pytest.approx(measured.scorecard.find("building", reranked=False).metrics["t2i_r1"])
    assert (demo_config.data.image_root / content["image_path"][0]).exists()
    assert content["text_string"][0] == records[0].captions[0]
    assert torch.equal(torch.from_numpy(content["text_image"]), features.test.caption_image)  # type: ignore[union-attr]
