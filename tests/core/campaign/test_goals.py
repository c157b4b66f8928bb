from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from core.campaign.goals import Goal, Goals, mark_front
from core.campaign.trials import TrialRecord
from tests.conftest import epoch_metrics

GOALS: Goals = (
    Goal(figure="recall_mean", direction="max"),
    Goal(figure="trainable_parameters", direction="min"),
)


def trial(number: int, recall: float, parameters: int, **others: Any) -> TrialRecord:
    best = epoch_metrics(recall_mean=recall)
    return TrialRecord(number, "complete", number, best=best, trainable_parameters=parameters, **others)


def front(*trials: TrialRecord) -> list[int]:
    return [each.number for each in mark_front(trials, GOALS) if each.on_front]


def test_only_trials_that_no_other_beats_are_on_the_front() -> None:
    assert front(trial(0, 0.5, 100), trial(1, 0.6, 200), trial(2, 0.5, 150), trial(3, 0.4, 50)) == [0, 1, 3]


def test_equal_trials_are_both_on_it() -> None:
    assert front(trial(0, 0.5, 100), trial(1, 0.5, 100)) == [0, 1]


def test_what_breaks_a_constraint_takes_no_part() -> None:
    assert front(trial(0, 0.9, 10, broken=("box_iou",)), trial(1, 0.5, 100)) == [1]


def test_with_one_goal_there_is_no_front() -> None:
    assert not any(each.on_front for each in mark_front([trial(0, 0.5, 100)], GOALS[:1]))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=1, max_size=12))
def test_everything_off_the_front_is_beaten_by_something_on_it(figures: list[tuple[int, int]]) -> None:
    trials = [trial(number, recall / 10, parameters) for number, (recall, parameters) in enumerate(figures)]
    on = set(front(*trials))
    assert on
    for number, (recall, parameters) in enumerate(figures):
        beaten = any(
            figures[other] != (recall, parameters) and figures[other][0] >= recall and figures[other][1] <= parameters
            for other in on
        )
        assert (number in on) != beaten


@pytest.mark.parametrize("content", [["recall"], [{"box_iou": "up"}], [{"a": "max", "b": "min"}], [3]])
def test_what_is_no_goal_is_refused(content: list[object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Goals).validate_python(content)
