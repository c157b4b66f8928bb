import math

import pytest

from analysis.report_settings import (
    choice_labels,
    searched_settings,
    values_of,
    worded_condition,
    worded_range,
    worded_value,
)
from core.sections import Scalar
from tests.analysis.report_tables import space, trials

WIDTH = {"model__adapter_width": {"choice": [64, 128]}}
BOX = {"loss__box": {"log": [0.1, 1.0]}, "loss__spatial": {"log": [0.1, 1.0]}}


def test_a_switch_is_a_setting_of_its_own() -> None:
    drawn = trials({"param:loss.itm.on": True, "param:loss.itm": 0.5}, {"param:loss.itm.on": False})
    found = searched_settings(space(loss__itm={"log": [0.1, 1.0], "off": True}), drawn)
    assert [each.name for each in found] == ["loss.itm.on", "loss.itm"]
    assert choice_labels(found[0]) == ["on", "off"]
    assert values_of(found[0], drawn).tolist() == [0.0, 1.0]
    assert math.isnan(values_of(found[1], drawn)[1])


@pytest.mark.parametrize(("missing", "left"), [("box_iou", ["loss.spatial"]), ("relation_accuracy", ["loss.box"])])
def test_weights_of_what_the_data_lacks_are_left_out(missing: str, left: list[str]) -> None:
    drawn = trials({"param:loss.box": 0.5, "param:loss.spatial": 0.5, missing: math.nan})
    assert [each.name for each in searched_settings(space(**BOX), drawn)] == left


def test_what_no_trial_drew_or_all_trials_share_is_left_out() -> None:
    one = {"model__dropout": {"uniform": [0.0, 0.5], "when": {"model.fusion": {"in": ["attention"]}}}}
    same = {"model__image_pooling": {"choice": ["attention"], "when": {"model.fusion": {"in": ["attention"]}}}}
    fusion = {"model__fusion": {"choice": ["concat", "attention"]}}
    drawn = trials({"param:model.fusion": "concat", "param:model.image_pooling": "attention"})
    assert [each.name for each in searched_settings(space(**fusion, **one, **same), drawn)] == ["model.fusion"]


def test_choices_are_placed_in_their_order() -> None:
    drawn = trials({"param:model.adapter_width": 128}, {"param:model.adapter_width": 64}, {})
    (width,) = searched_settings(space(**WIDTH), drawn)
    assert values_of(width, drawn)[:2].tolist() == [1.0, 0.0]
    assert choice_labels(width) == ["64", "128"]


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "–"), (math.nan, "–"), (True, "on"), (0.00123456, "0.00123"), (12, "12"), ("a+b", "a+b")],
)
def test_values_are_short(value: Scalar | None, words: str) -> None:
    assert worded_value(value) == words


def test_ranges_and_conditions_in_words() -> None:
    dimensions = space(
        loss__itm={"log": [0.1, 10.0], "off": True},
        recipe__stage1_epochs={"int": [0, 3]},
        recipe__stage2_lr_scale={"uniform": [0.5, 1.0], "when": {"recipe.stage1_epochs": {"min": 1, "max": 2}}},
        model__dropout={"choice": [0.0, 0.1], "when": {"model.fusion": {"in": ["concat", "attention"]}}},
    ).dimensions
    assert [worded_range(each) for each in dimensions.values()] == [
        "0.1 to 10 (log), or 0",
        "0 to 3 (whole)",
        "0.5 to 1",
        "0, 0.1",
    ]
    assert [worded_condition(each) for each in dimensions.values()] == [
        "",
        "",
        "recipe.stage1_epochs is at least 1 and at most 2",
        "model.fusion is concat or attention",
    ]
