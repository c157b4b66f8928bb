import dataclasses
import json
import subprocess
import sys

import pytest

from core.config import TrainConfig
from core.features import Features
from core.records import EpochMetrics, Evaluation, Interval, Receipt
from core.training import train


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


def test_records_are_free_of_torch() -> None:
    code = "import sys, core.records; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
