import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.efficiency import convergence_epoch, curves_frame, efficiency_table, read_single_stage, read_two_stage
from core.errors import UserError


def row(recall: float) -> dict[str, float]:
    return {"recall_mean": recall, "train_seconds": 2.0, "evaluation_seconds": 1.0}


@pytest.fixture
def logs(tmp_path: Path) -> tuple[Path, Path]:
    log, summary = tmp_path / "log.txt", tmp_path / "experiment_summary.json"
    log.write_text("".join(json.dumps(row(recall)) + "\n" for recall in (0.1, 0.3, 0.399, 0.4, 0.38)))
    (tmp_path / "receipt.json").write_text('{"peak_memory_mb": 100.0}')
    stages = {
        "stage1": {"history": [row(0.2), row(0.41)], "peak_memory_mb": 80.0},
        "stage2": {"history": [row(0.5)], "peak_memory_mb": 90.0},
    }
    summary.write_text(json.dumps(stages))
    return log, summary


def test_the_table_is_worked_out_by_hand(logs: tuple[Path, Path]) -> None:
    table = efficiency_table(read_single_stage(logs[0]), read_two_stage(logs[1])).set_index("metric")
    single, two = table["single_stage"], table["two_stage"]
    assert (single["best_recall_mean"], two["best_recall_mean"]) == (0.4, 0.5)
    assert (single["epochs_to_convergence"], two["epochs_to_convergence"]) == (3, 3)  # 0.399 is within 1 % of 0.4
    assert (single["seconds_to_convergence"], two["seconds_to_convergence"]) == (9, 9)
    assert math.isnan(single["epochs_to_the_others_best"])
    assert (two["epochs_to_the_others_best"], two["seconds_to_the_others_best"]) == (2, 6)
    assert (single["peak_memory_mb"], two["peak_memory_mb"]) == (100, 90)
    assert table["ratio"]["epochs"] == 3 / 5


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=20))
def test_convergence_is_the_first_epoch_close_to_the_best(curve: list[float]) -> None:
    epoch = convergence_epoch(curve, max(curve))
    assert curve[epoch] >= 0.99 * max(curve)
    assert all(value < 0.99 * max(curve) for value in curve[:epoch])


def test_curves_run_on_through_both_stages(logs: tuple[Path, Path]) -> None:
    frame = curves_frame([read_two_stage(logs[1])])
    assert frame["epoch"].tolist() == [0, 1, 2]
    assert frame["seconds"].tolist() == [3, 6, 9]


def test_a_two_stage_run_is_scored_by_its_joint_stage(tmp_path: Path) -> None:
    stages = {
        name: {"history": [row(recall) | {"stage": number} for recall in recalls], "peak_memory_mb": 1.0}
        for number, (name, recalls) in enumerate({"stage1": (0.2, 0.9), "stage2": (0.5, 0.6)}.items(), start=1)
    }
    (tmp_path / "experiment_summary.json").write_text(json.dumps(stages))
    assert read_two_stage(tmp_path / "experiment_summary.json").best == 0.6


def test_other_files_are_refused(tmp_path: Path, logs: tuple[Path, Path]) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        read_single_stage(tmp_path / "gone.txt")
    with pytest.raises(UserError, match="is not the summary of a two-stage run"):
        read_two_stage(tmp_path / "receipt.json")
    logs[0].write_text('{"loss": 1}\n')
    with pytest.raises(UserError, match="is not a training log"):
        read_single_stage(logs[0])
    logs[0].write_text("")
    with pytest.raises(UserError, match="contains no epoch"):
        read_single_stage(logs[0])


DIGITS = "1" + "0" * 400
LOGS = ["[]", "3", "null", '"a"', "[" * 100_000, '{"recall_mean": 1' + "0" * 5000 + "}"]
LOGS += [
    f'{{"recall_mean": {value}, "train_seconds": 1, "evaluation_seconds": 1}}'
    for value in ("NaN", "Infinity", "null", "true", '"0.5"', "[]", "-1", DIGITS, "1e999")
]


@pytest.mark.parametrize("line", LOGS, ids=lambda line: line[:40])
def test_a_log_of_anything_else_is_one_line(logs: tuple[Path, Path], line: str) -> None:
    logs[0].write_text(line + "\n")
    with pytest.raises(UserError, match=r"log\.txt") as caught:
        read_single_stage(logs[0])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("receipt", ["", "[]", "null", "{}", '{"peak_memory_mb": NaN}', '{"peak_memory_mb": "1"}'])
def test_a_receipt_of_anything_else_is_one_line(logs: tuple[Path, Path], receipt: str) -> None:
    (logs[0].parent / "receipt.json").write_text(receipt)
    with pytest.raises(UserError, match=r"receipt\.json"):
        read_single_stage(logs[0])


STAGES: list[object] = [None, [], {}, "a", {"history": [], "peak_memory_mb": 1}, {"history": {}, "peak_memory_mb": 1}]
STAGES += [{"history": [1], "peak_memory_mb": 1}, {"history": [row(0.5)], "peak_memory_mb": None}]
STAGES += [{"history": [row(0.5)], "peak_memory_mb": math.nan}, {"history": [row(math.nan)], "peak_memory_mb": 1}]


@pytest.mark.parametrize("stage", STAGES, ids=str)
def test_a_summary_of_anything_else_is_one_line(logs: tuple[Path, Path], stage: object) -> None:
    logs[1].write_text(json.dumps({"stage1": stage, "stage2": stage}))
    with pytest.raises(UserError, match=r"experiment_summary\.json") as caught:
        read_two_stage(logs[1])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "null", "{}", "[" * 100_000, "1" * 5000, '{"stage1": {}}'])
def test_a_summary_that_is_none_is_one_line(logs: tuple[Path, Path], content: str) -> None:
    logs[1].write_text(content)
    with pytest.raises(UserError, match=r"experiment_summary\.json"):
        read_two_stage(logs[1])
