from dataclasses import replace

import pytest

from core.config import TrainConfig
from core.features.store import Features
from core.sections import Scalar, dotted_keys
from core.tracked_runs import RunEnd, RunStart, best_figures, dotted, training_tags
from core.training.train import train


def test_settings_have_the_names_of_the_search_space() -> None:
    flat = dotted(TrainConfig().model_dump(mode="json"))
    assert list(flat) == list(dotted_keys(TrainConfig))
    assert flat["optimizer.learning_rate"] == TrainConfig().optimizer.learning_rate


def test_a_run_names_what_it_is_beside_its_settings() -> None:
    start = RunStart.of_training("trial-0007", "search", TrainConfig(), {"trial": 7, "confirms": None})
    assert start.config["trial"] == 7
    assert "confirms" not in start.config
    assert start.config["loss.itm"] == TrainConfig().loss.itm


@pytest.mark.parametrize(
    ("epochs", "aligned", "tag"), [(4, 0, "single"), (4, 4, "single"), (4, 1, "two"), (2, 1, "two")]
)
def test_a_run_is_tagged_with_its_stages_and_heads(epochs: int, aligned: int, tag: str) -> None:
    recipe: dict[str, Scalar] = {"recipe.epochs": epochs, "recipe.stage1_epochs": aligned, "model.fusion": "concat"}
    assert training_tags(TrainConfig().with_overrides(recipe)) == [f"{tag}-stage", "fusion-concat"]


def test_a_finished_run_is_summed_up_by_its_best_epoch(planted_features: Features, small_config: TrainConfig) -> None:
    result = train(small_config, planted_features)
    history = [
        replace(each, recall_mean=value) for each, value in zip(result.history, (0.1, 0.4, 0.2, 0.3), strict=True)
    ]
    end = RunEnd.of_training(history, result.receipt, "recall_mean")
    assert (end.summary["best_value"], end.summary["best_epoch"], end.summary["epochs"]) == (0.4, 1, 4)
    assert end.summary["t2i_r1"] == history[1].t2i_r1
    assert end.summary["parameters"] == result.receipt.parameters
    assert not end.failed


def test_what_was_not_measured_is_not_summed_up(planted_features: Features, small_config: TrainConfig) -> None:
    metrics = replace(train(small_config, planted_features).history[0], box_iou=None)
    assert "box_iou" not in best_figures(metrics)
    assert "epoch" not in best_figures(metrics)


@pytest.mark.parametrize(
    ("state", "failed"), [("complete", False), ("pruned", False), ("failed", True), ("interrupted", True)]
)
def test_a_pruned_run_has_not_failed(state: str, failed: bool) -> None:
    assert RunEnd(state, {}).failed == failed  # type: ignore[arg-type]
