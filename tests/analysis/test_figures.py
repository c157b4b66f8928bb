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


def trials() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "number": [0, 1, 2],
            "state": ["complete", "failed", "complete"],
            "value": [0.3, None, 0.2],
            "param:lr": [1e-4, 1e-3, 1e-2],
        }
    )


def test_the_best_so_far_never_falls_and_failures_are_left_out() -> None:
    drawn = figures.optimisation_history(trials())
    assert list(drawn.data[-1].y) == [30, 30]


def test_a_wide_setting_is_drawn_on_a_log_axis() -> None:
    drawn = figures.searched_setting(trials(), "param:lr")
    assert drawn.layout.xaxis.type == "log"
    assert list(drawn.data[0].x) == [1e-4, 1e-2]
