import pandas as pd

from analysis import figures
from core.records import RETRIEVAL_KEYS


def test_a_curve_a_run_in_percent() -> None:
    frame = pd.DataFrame({"label": ["a", "a", "b"], "epoch": [0, 1, 0], "recall_mean": [0.1, 0.2, 0.3]})
    drawn = figures.learning_curves(frame)
    assert [trace.name for trace in drawn.data] == ["a", "b"]
    assert list(drawn.data[0].y) == [10, 20]


def test_differences_leave_out_what_has_no_interval() -> None:
    table = pd.DataFrame(
        {"metric": ["t2i_r1", "training_seconds"], "difference": [0.1, 5.0], "low": [0.05, None], "high": [0.2, None]}
    )
    (trace,) = figures.differences(table).data
    assert list(trace.y) == ["t2i_r1"]
    assert list(trace.error_x.array) == [10.0]


def test_a_group_of_bars_a_model() -> None:
    models = pd.DataFrame([{"label": name, **dict.fromkeys(RETRIEVAL_KEYS, 0.5)} for name in "ab"])
    drawn = figures.recall_bars(models)
    assert [trace.name for trace in drawn.data] == ["a", "b"]
    assert list(drawn.data[0].y) == [50.0] * 6
