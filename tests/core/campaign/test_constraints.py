import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from core.campaign.constraints import Constraints
from core.campaign.trials import TrialRecord, standing_of
from tests.conftest import epoch_metrics


def trial(number: int, value: float, *, iou: float | None = 0.5, parameters: int | None = 100) -> TrialRecord:
    best = epoch_metrics(recall_mean=value, box_iou=iou)
    return TrialRecord(number, "complete", number, value=value, best=best, trainable_parameters=parameters)


def read(**content: object) -> Constraints:
    return Constraints.model_validate(content)


def test_the_best_trial_is_the_best_of_those_that_keep_the_constraints() -> None:
    trials = [trial(0, 0.3, iou=0.5), trial(1, 0.9, iou=0.4), trial(2, 0.6, iou=0.495)]
    judged = read(box_iou={"at_least": "baseline - 0.01"}).judge(trials)
    assert [each.broken for each in judged] == [(), ("box_iou",), ()]
    assert standing_of(trials).best == (1, 0.9)
    assert standing_of(judged).best == (2, 0.6)


def test_a_bound_may_be_a_number_and_an_upper_one() -> None:
    judged = read(trainable_parameters={"at_most": 100}, box_iou={"at_least": 0.5}).judge(
        [trial(0, 0.3), trial(1, 0.3, parameters=101), trial(2, 0.3, iou=0.4)]
    )
    assert [each.broken for each in judged] == [(), ("trainable_parameters",), ("box_iou",)]


def test_a_figure_that_was_not_measured_keeps_nothing() -> None:
    assert read(box_iou={"at_least": 0.1}).judge([trial(0, 0.3, iou=None)])[0].broken == ("box_iou",)


def test_before_the_baseline_is_complete_nothing_relative_to_it_is_broken() -> None:
    judged = read(box_iou={"at_least": "baseline"}).judge([trial(3, 0.3, iou=0.0)])
    assert judged[0].broken == ()


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.5))
def test_a_violation_is_positive_exactly_where_the_bound_is_broken(base: float, value: float, slack: float) -> None:
    constraints = read(box_iou={"at_least": f"baseline - {slack!r}"})
    excess = constraints.violations(trial(1, 0.1, iou=value).figure, trial(0, 0.1, iou=base).figure)["box_iou"]
    assert (excess > 0) == (value < base - slack)


@given(st.floats(0, 1))
def test_the_baseline_keeps_what_is_relative_to_it(iou: float) -> None:
    assert read(box_iou={"at_least": "baseline"}).judge([trial(0, 0.2, iou=iou)])[0].broken == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"box_iuo": {"at_least": 0.1}}, "box_iuo cannot be constrained"),
        ({"box_iou": {}}, "needs either at_least or at_most"),
        ({"box_iou": {"at_least": 0.1, "at_most": 0.2}}, "needs either at_least or at_most"),
        ({"box_iou": {"at_least": "baselin"}}, "must be a number, or like baseline"),
        ({"box_iou": {"at_least": "baseline * 2"}}, "must be a number, or like baseline"),
        ({"box_iou": {"at_least": True}}, "must be a number, or like baseline"),
        ({"box_iou": {"atleast": 0.1}}, "atleast"),
    ],
)
def test_what_is_no_constraint_is_refused(content: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Constraints.model_validate(content)
