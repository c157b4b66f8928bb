from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.campaign.dimensions import KINDS, Condition, Dimension, is_number
from core.errors import UserError
from core.sections import parse


def dimension_of(content: dict[str, Any]) -> Dimension:
    kind = next(kind for kind in KINDS if kind in content)
    return parse(KINDS[kind], content, where="test")


@st.composite
def ranges(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["log", "uniform", "int"]))
    numbers = {
        "log": st.floats(1e-12, 1e6),
        "uniform": st.floats(-1e6, 1e6),
        "int": st.integers(-1_000_000, 2**32 - 1),
    }[kind]
    low, high = sorted(draw(st.lists(numbers, min_size=2, max_size=2, unique=True)))
    return {kind: [low, high]}


@given(ranges(), st.integers(0, 2**32 - 1))
def test_no_draw_leaves_its_range(content: dict[str, Any], seed: int) -> None:
    dimension = dimension_of(content)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for _ in range(3):
        assert dimension.contains(dimension.draw(study.ask(), "some.setting"))
    assert all(dimension.contains(corner) for corner in dimension.corners())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"choice": "foo"}, "choice: must be a list, not 'foo'"),
        ({"choice": []}, "at least 1 item"),
        ({"choice": [1]}, "a choice of one value needs a when"),
        ({"choice": list(range(101))}, "at most 100 items"),
        ({"choice": [1, 1]}, "choice: 1 is given twice"),
        ({"choice": ["a", "b", "a"]}, "choice: 'a' is given twice"),
        ({"choice": [1, 2, 1.0]}, "choice: 1.0 is given twice"),
        ({"choice": [1, True]}, "choice: True is given twice"),
        ({"choice": [0, False]}, "choice: False is given twice"),
        ({"choice": [1, None]}, "choice.1: must be a string, a finite number, true or false, not null"),
        ({"choice": [[1], [2]]}, "choice.0: must be a string, a finite number, true or false"),
        ({"choice": [1.0, float("nan")]}, "choice.1: must be a string, a finite number, true or false, not nan"),
        ({"log": 3}, "log: must be two bounds, like [1, 10], not 3"),
        ({"log": []}, "log: must be two bounds"),
        ({"log": [1]}, "log: must be two bounds"),
        ({"log": [1, 2, 3]}, "log: must be two bounds"),
        ({"log": {"low": 1, "high": 2}}, "log: must be two bounds"),
        ({"log": ["a", "b"]}, "log.0: must be a number"),
        ({"log": [True, 2]}, "log.0: must be a number, not True"),
        ({"log": [1.0, float("inf")]}, "log.1: Input should be a finite number"),
        ({"log": [0.0, 1.0]}, "must be above 0"),
        ({"uniform": [1, 1]}, "the lower bound 1.0 is not below the upper bound 1.0"),
        ({"int": [3, 3]}, "the lower bound 3 is not below the upper bound 3"),
        ({"int": [0.5, 2]}, "int.0: Input should be a valid integer, not 0.5"),
        ({"int": [1, 2], "off": 3}, "off: Input should be a valid boolean"),
        ({"int": [1, 2], "of": True}, "of is not a setting; did you mean off?"),
        ({"int": [1, 2], "when": "model.fusion"}, "when: must be a mapping of settings, not 'model.fusion'"),
        ({"int": [1, 2], "when": {"a": "b"}}, "when a: must be a mapping of settings, not 'b'"),
        ({"int": [1, 2], "when": {"a": {}}}, "when a: a condition needs min, max or in"),
        ({"int": [1, 2], "when": {"a": {"mn": 1}}}, "when a: mn is not a setting; did you mean min?"),
        ({"int": [1, 2], "when": {"a": {"min": 3, "max": 2}}}, "when a: min 3.0 is above max 2.0"),
        ({"int": [1, 2], "when": {"a": {"min": "b"}}}, "when a: min: must be a number"),
        ({"int": [1, 2], "when": {"a": {"in": []}}}, "when a: in: Value should have at least 1 item"),
        ({"int": [1, 2], "when": {"a": {"in": 3}}}, "when a: in: must be a list, not 3"),
        ({"int": [1, 2], "when": {"a": {"in": [3, 3.0]}}}, "when a: in: 3.0 is given twice"),
    ],
)
def test_a_mistake_is_one_line(content: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        dimension_of(content)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "condition", "possible"),
    [
        ({"int": [0, 2]}, {"min": 2}, True),
        ({"int": [0, 2]}, {"min": 3}, False),
        ({"int": [1, 2]}, {"max": 0}, False),
        ({"int": [1, 2], "off": True}, {"max": 0}, True),
        ({"uniform": [0.0, 0.5]}, {"in": [0.25]}, True),
        ({"uniform": [0.0, 0.5]}, {"in": [0.25], "min": 0.3}, False),
        ({"choice": ["a", "b"]}, {"in": ["b", "c"]}, True),
        ({"choice": ["a", "b"]}, {"in": ["c"]}, False),
        ({"choice": [1, 5]}, {"min": 2, "max": 4}, False),
    ],
)
def test_a_condition_is_possible_where_a_value_fulfils_it(
    content: dict[str, Any], condition: dict[str, Any], possible: bool
) -> None:
    assert dimension_of(content).can_meet(parse(Condition, condition, where="test")) is possible


def test_true_and_false_are_no_numbers() -> None:
    assert [is_number(value) for value in (1, 1.5, True, "1")] == [True, True, False, False]
