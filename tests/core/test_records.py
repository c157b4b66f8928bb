import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest

from core.config import TrainConfig
from core.features.store import Features
from core.records import (
    Efficiency,
    EpochMetrics,
    Evaluation,
    Grounding,
    Interval,
    Receipt,
    Scorecard,
    best_epoch,
    kept_epoch,
)
from core.training.train import train


def test_metrics_and_receipts_survive_json(planted_features: Features, small_config: TrainConfig) -> None:
    last = train(small_config.with_overrides({"recipe.epochs": 1}), planted_features).last
    for record, kind in ((last.history[0], EpochMetrics), (last.receipt, Receipt)):
        assert kind.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_an_unknown_or_missing_field_is_refused() -> None:
    fields = {field.name: 0 for field in dataclasses.fields(EpochMetrics)}
    with pytest.raises(ValueError, match="recal_mean"):
        EpochMetrics.from_json({**fields, "recal_mean": 0.1})
    with pytest.raises(ValueError, match="stage"):
        EpochMetrics.from_json({"epoch": 0})


def test_an_evaluation_keeps_its_intervals() -> None:
    evaluation = Evaluation("test", "building", 0, 3, 1, 1, {"t2i_r1": 0.5}, {"t2i_r1": Interval(0.5, 0.4, 0.6)})
    assert Evaluation.from_json(json.loads(json.dumps(evaluation.to_json()))) == evaluation


@pytest.mark.parametrize(
    ("over_text_only", "over_shuffled", "verdict"),
    [(0.01, 0.01, "grounded"), (0.01, 0.0, "not grounded"), (0.0, 0.01, "not grounded"), (-0.1, -0.1, "not grounded")],
)
def test_grounded_is_what_both_baselines_are_surely_below(
    over_text_only: float, over_shuffled: float, verdict: str
) -> None:
    """By the lower ends of the intervals, whatever the differences themselves are."""
    grounding = Grounding.judge(Interval(0.5, over_text_only, 0.9), Interval(0.5, over_shuffled, 0.9))
    assert grounding.verdict == verdict
    assert Grounding.from_json(json.loads(json.dumps(grounding.to_json()))) == grounding


def test_an_evaluation_with_a_query_bank_is_not_found_in_the_place_of_a_plain_one() -> None:
    plain = Evaluation("test", "building", 0, 3, 1, 1, {"t2i_r1": 0.5})
    banked = dataclasses.replace(plain, query_bank="train_captions", metrics={"t2i_r1": 0.9})
    efficiency = Efficiency(10, 90, 5, 12.0, 100.0, 1.0, 1.0, 1.0, 1.0, "cpu")
    card = Scorecard("a", "f", "h", 1, [banked, plain], None, {}, [], efficiency)
    assert card.find("building", reranked=False) == plain
    assert card.flat() == {"building/t2i_r1": 0.5, "building_query_bank/t2i_r1": 0.9}
    with pytest.raises(KeyError):
        dataclasses.replace(card, evaluations=[banked]).find("building", reranked=False)


def test_where_every_image_is_a_building_only_one_protocol_is_distinct() -> None:
    by = [Evaluation("test", protocol, 0, 9, 3, 2, {}) for protocol in ("image", "building", "geotext-official")]
    efficiency = Efficiency(10, 90, 5, 12.0, 100.0, 1.0, 1.0, 1.0, 1.0, "cpu")
    card = Scorecard("a", "f", "h", 1, by, None, {}, [], efficiency)
    assert card.distinct == by
    own = [dataclasses.replace(each, groups=3) for each in by]
    assert dataclasses.replace(card, evaluations=own).distinct == [own[1]]


def test_records_are_free_of_torch() -> None:
    code = "import sys, core.records; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def epochs(*scores: tuple[int, float, float]) -> list[EpochMetrics]:
    """(stage, recall_mean, t2i_r1) of each epoch."""
    rows = []
    for number, (stage, recall, t2i) in enumerate(scores):
        figures: dict[str, Any] = {field.name: 1 for field in dataclasses.fields(EpochMetrics)}
        rows.append(EpochMetrics(**{**figures, "epoch": number, "stage": stage, "recall_mean": recall, "t2i_r1": t2i}))
    return rows


def test_an_alignment_epoch_never_wins_once_the_joint_stage_has_begun() -> None:
    history = epochs((1, 0.9, 0.9), (1, 0.8, 0.8), (2, 0.3, 0.1), (2, 0.4, 0.2), (2, 0.2, 0.3))
    assert best_epoch(history, "recall_mean").epoch == 3
    assert best_epoch(history[:3], "recall_mean").epoch == 2
    assert best_epoch(history[:2], "recall_mean").epoch == 0


def test_the_objective_decides_and_the_first_of_equals_wins() -> None:
    history = epochs((2, 0.4, 0.1), (2, 0.4, 0.3), (2, 0.2, 0.3))
    assert best_epoch(history, "recall_mean").epoch == 0
    assert best_epoch(history, "t2i_r1").epoch == 1


def test_a_run_keeps_its_best_epoch_or_the_last_if_no_building_was_held_out() -> None:
    history = epochs((1, 0.9, 0.9), (2, 0.4, 0.1), (2, 0.3, 0.3))
    assert kept_epoch(history, TrainConfig()).epoch == 1
    assert kept_epoch(history, TrainConfig().with_overrides({"objective": "t2i_r1"})).epoch == 2
    assert kept_epoch(history, TrainConfig().with_overrides({"data.train_on": "all"})).epoch == 2
    assert kept_epoch(history[:1], TrainConfig().with_overrides({"data.train_on": "all"})).epoch == 0


def test_an_evaluation_from_before_ties_were_told_is_read() -> None:
    now = Evaluation("test", "building", 0, 4, 4, 2, {"t2i_r1": 0.5})
    content = now.to_json()
    del content["optimistic"], content["unique_texts"]
    assert Evaluation.from_json(content) == now
