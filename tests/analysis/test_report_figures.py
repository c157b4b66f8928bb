import math
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import report_figures as figures
from analysis.report_settings import searched_settings
from core.config import LossConfig
from tests.analysis.report_tables import history, space, trials

SETTINGS = space(
    optimizer__learning_rate={"log": [1e-4, 1e-2]},
    model__fusion={"choice": ["concat", "attention"]},
    model__dropout={"uniform": [0.0, 0.4], "when": {"model.fusion": {"in": ["attention"]}}},
)


def drawn() -> pd.DataFrame:
    """A baseline, a better trial, one that failed and one that was stopped early."""
    rate, fusion, dropout = "param:optimizer.learning_rate", "param:model.fusion", "param:model.dropout"
    return trials(
        {"value": 0.3, rate: 1e-4, fusion: "concat"},
        {"value": None, "state": "failed", rate: 1e-3, fusion: "concat"},
        {"value": 0.4, rate: 1e-2, fusion: "attention", dropout: 0.1},
        {"value": 0.35, "state": "pruned", "epochs": 2, rate: 1e-3, fusion: "attention", dropout: 0.2},
    )


def named(figure: go.Figure, name: str) -> Any:
    (trace,) = [trace for trace in figure.data if trace.name == name]
    return trace


def test_the_best_so_far_never_falls_and_failures_are_left_out() -> None:
    figure = figures.optimisation_history(
        trials({"value": 0.3}, {"value": None, "state": "failed"}, {"value": 0.2}), "m"
    )
    assert list(named(figure, "best so far").y) == [30, 30]
    assert list(named(figure, "complete").x) == [0, 2]


def test_a_trial_that_was_stopped_early_is_never_the_best_so_far() -> None:
    figure = figures.optimisation_history(trials({"value": 0.3}, {"value": 0.9, "state": "pruned"}), "m")
    assert list(named(figure, "best so far").y) == [30]


def test_the_baseline_is_a_line_even_if_it_was_retried() -> None:
    retried = trials({"state": "failed", "value": None}, {"value": 0.2}, {"value": 0.3, "origin": 0})
    figure = figures.optimisation_history(retried, "m")
    assert list(named(figure, "baseline").y) == [30, 30]
    assert list(named(figure, "baseline").x) == [1, 2]


def test_a_logarithmic_setting_is_drawn_on_a_log_axis() -> None:
    rate = searched_settings(SETTINGS, drawn())[0]
    figure = figures.setting_slice(drawn(), rate, 2, "m")
    assert figure.layout.xaxis.type == "log"
    assert list(named(figure, "complete").x) == [1e-4, 1e-2]
    assert list(named(figure, "best trial").x) == [1e-2]


def test_a_conditional_setting_has_only_the_trials_that_drew_it() -> None:
    dropout = searched_settings(SETTINGS, drawn())[2]
    figure = figures.setting_slice(drawn(), dropout, 2, "m")
    assert list(named(figure, "complete").x) == [0.1]
    assert list(named(figure, "stopped early").x) == [0.2]
    assert list(named(figure, "baseline").x) == []


def test_parallel_coordinates_show_what_was_not_drawn_below_the_axis() -> None:
    (trace,) = figures.parallel_coordinates(drawn(), searched_settings(SETTINGS, drawn()), "m").data
    objective, rate, fusion, dropout = trace.dimensions
    assert list(objective["values"]) == [30, 40]
    assert list(rate["values"]) == [-4, -2]
    assert list(fusion["ticktext"]) == ["concat", "attention"]
    assert dropout["values"][0] < 0
    assert dropout["values"][1] == 0.1
    assert dropout["ticktext"][0] == "–"


def test_importance_is_in_percent_in_the_given_order() -> None:
    (bars,) = figures.importance({"a": 0.75, "b": 0.25}).data
    assert (list(bars.y), list(bars.x)) == (["a", "b"], [75, 25])


def test_curves_of_a_state_are_one_line_with_gaps() -> None:
    epochs = history((0, 0, 0.1), (0, 1, 0.3), (2, 0, 0.2), (2, 1, 0.4), (3, 0, 0.2))
    figure = figures.learning_curves(epochs, drawn(), 2, "recall_mean")
    complete = named(figure, "complete")
    assert list(complete.x)[:2] == [1, 2]
    assert math.isnan(complete.y[2])
    assert list(named(figure, "best trial").y) == [20, 40]
    assert list(named(figure, "baseline").y) == [10, 30]


def test_epochs_are_drawn_by_how_a_trial_ended() -> None:
    figure = figures.epochs_reached(drawn())
    assert list(named(figure, "complete").y) == [4, 4]
    assert list(named(figure, "stopped early").y) == [2]


def test_a_stage_split_has_the_mean_of_its_complete_trials() -> None:
    splits = pd.DataFrame({"number": range(3), "state": ["complete", "complete", "pruned"], "value": [0.2, 0.4, 0.9]})
    figure = figures.stage_split(splits.assign(stage1_epochs=1), "m")
    assert list(named(figure, "mean of complete trials").y) == [pytest.approx(30)]


def test_shares_of_the_weighted_losses() -> None:
    figure = figures.loss_shares(history((0, 0, 0.1), (0, 1, 0.2)), LossConfig(itc=1, itm=1, box=0.5, spatial=0.1))
    shares = {trace.name: list(trace.y) for trace in figure.data}
    assert shares["contrastive"] == [pytest.approx(200 / 3), pytest.approx(200 / 6)]
    assert shares["boxes"] == [0, pytest.approx(200 / 6)]
    assert shares["relations"] == [0, pytest.approx(100 / 6)]
    assert np.sum(list(shares.values()), axis=0) == pytest.approx([100, 100])


def test_losses_that_never_were_have_no_bars() -> None:
    rows = history((0, 0, 0.1), (0, 1, 0.2)).assign(loss_box=None, loss_spatial=None)
    figure = figures.loss_shares(rows, LossConfig())
    assert [trace.name for trace in figure.data] == ["contrastive", "matching"]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_the_front_is_what_no_other_trial_dominates(points: list[tuple[int, int]]) -> None:
    table = trials(*({"seconds": cost, "value": value} for cost, value in points))
    reached = {(row["seconds"], row["value"]) for _, row in figures.front(table, "seconds").iterrows()}
    undominated = {
        (cost, value)
        for cost, value in points
        if not any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in points)
    }
    assert reached == undominated


def test_only_complete_trials_are_on_the_front() -> None:
    figure = figures.pareto(trials({"value": 0.2}, {"value": 0.9, "state": "pruned"}), "seconds", 0, "m")
    assert list(named(figure, "front").y) == [20]
