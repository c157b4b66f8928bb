from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from core.campaign.space import Space, setting
from core.config import TrainConfig, config_hash
from core.errors import UserError
from core.sections import parse
from tests.search.conftest import SPACE

BASE = TrainConfig().with_overrides({"recipe.epochs": 3})


def space_of(content: dict[str, Any]) -> Space:
    return parse(Space, content, where="test")


@given(st.integers(0, 2**31))
def test_every_draw_is_a_valid_configuration_within_the_space(seed: int) -> None:
    space = space_of(SPACE)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    overrides = space.suggest(study.ask(), BASE)
    config = BASE.with_overrides(overrides)
    for key, value in overrides.items():
        assert space.dimensions[key].contains(value)
        assert setting(config, key) == value


@given(st.integers(0, 2**31))
def test_a_conditional_setting_is_drawn_exactly_when_its_condition_holds(seed: int) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask()
    overrides = space_of(SPACE).suggest(trial, BASE)
    assert ("recipe.stage2_lr_scale" in trial.params) == (overrides["recipe.stage1_epochs"] != 0)


@given(st.floats(1e-4, 1e-1), st.sampled_from([0.0, 0.5]), st.integers(0, 2))
def test_the_baseline_trial_is_exactly_the_baseline(rate: float, itm: float, stage1: int) -> None:
    space = space_of(SPACE)
    base = BASE.with_overrides({"optimizer.learning_rate": rate, "loss.itm": itm, "recipe.stage1_epochs": stage1})
    space.check(base)
    overrides = space.suggest(FixedTrial(space.baseline(base)), base)
    assert config_hash(base.with_overrides(overrides)) == config_hash(base)


def test_a_branch_may_have_a_value_of_its_own_that_the_baseline_does_not_have() -> None:
    branch = {
        "model.fusion": {"choice": ["concat", "attention"]},
        "model.image_pooling": {"choice": ["attention"], "when": {"model.fusion": {"in": ["attention"]}}},
    }
    base, space = BASE.with_overrides({"model.fusion": "concat"}), space_of(branch)
    space.check(base)
    assert space.baseline(base) == {"model.fusion": "concat"}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [base.with_overrides(space.suggest(study.ask(), base)).model for _ in range(20)]
    assert {(model.fusion, model.image_pooling) for model in drawn} == {("concat", "none"), ("attention", "attention")}


def test_a_switch_sets_zero_and_then_draws_nothing() -> None:
    trial = FixedTrial({"loss.itm.on": False})
    assert space_of({"loss.itm": {"log": [0.1, 1.0], "off": True}}).suggest(trial, BASE) == {"loss.itm": 0}


def test_a_setting_is_drawn_after_those_it_depends_on() -> None:
    backwards = dict(reversed(SPACE.items()))
    keys = list(space_of(backwards).dimensions)
    assert keys.index("recipe.stage1_epochs") < keys.index("recipe.stage2_lr_scale")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"loss.itmm": {"log": [0.1, 1.0]}}, "loss.itmm is not a setting; did you mean loss.itm?"),
        ({"learning_rate": {"log": [1e-4, 1e-1]}}, "did you mean optimizer.learning_rate?"),
        ({"loss.itm": {"log": [0.1, 1.0], "when": {"nowhere": {"min": 1}}}}, "nowhere is not a setting"),
        ({"seed": {"int": [0, 5]}}, "seed cannot be searched: the best seed is luck"),
        ({"data.image_root": {"choice": ["a", "b"]}}, "data.image_root cannot be searched"),
        ({"features.backbone": {"choice": ["a", "b"]}}, "compares adapters on one backbone"),
        ({"model.dropout": {"uniform": [0.0, 1.5]}}, "has an invalid corner {'model.dropout': 1.5}"),
        ({"recipe.stage1_epochs": {"int": [0, 9]}}, "stage1_epochs 9 is more than epochs 3"),
        ({"optimizer.learning_rate": {"log": [1e-6, 1e-5]}}, "the baseline's value 0.001 is outside the space"),
        ({"model.adapter_width": {"choice": [8, 16]}}, "the baseline's value 256 is outside the space"),
        ({"optimizer.learning_rate": {"log": [1e-6, 1.0], "off": True}}, "has an invalid corner"),
        ({"model.adapter_width": {"uniform": [8.0, 512.0]}}, "model.adapter_width is a whole number; write int"),
        ({"recipe.epochs": {"log": [1, 8]}}, "recipe.epochs is a whole number; write int for its range, or a choice"),
        ({"loss.itm": {"int": [1, 3]}}, "loss.itm is a real number; write uniform or log for its range, or a choice"),
        ({"model.fusion": {"uniform": [0, 1]}}, "model.fusion is not a number, so it has no range; write {choice: "),
        ({"optimizer.cuda_graph": {"int": [0, 1]}}, "optimizer.cuda_graph is not a number"),
        ({"features.max_tokens": {"int": [64, 128]}}, "features.max_tokens needs other features for every value"),
        ({"model.fusion": {"choice": ["concat", "sum"]}}, "{'model.fusion': 'sum'}: model.fusion: Input should be"),
        ({"model.adapter_width": {"choice": ["64", "256"]}}, "{'model.adapter_width': '64'}: model.adapter_width: Inp"),
        ({"loss.itm": {"uniform": [0, 1e308]}}, "has an invalid corner {'loss.itm': 1e+308}"),
        ({"recipe.epochs": {"int": [1, 10**30]}}, "has an invalid corner {'recipe.epochs': 1000000000000000000000"),
        ({}, "is empty; add a setting and its range, like loss.itm: {log: [0.1, 10]}"),
        ({"model": 3}, "model is not a setting but a section; its settings are model.adapter_width, "),
        ({"modle": {"log": [1, 2]}}, "modle is not a setting; valid names are model, loss"),
        ({"lossitm": {"log": [1, 2]}}, "lossitm is not a setting; did you mean loss.itm?"),
        ({"optimizer": {"learning_rate": {"log": [1e-4, 1e-1]}}}, "as dotted keys here: optimizer.learning_rate: …"),
        ({"loss.itm": 3}, "loss.itm needs exactly one of log, uniform, int and choice, like {log: [0.1, 10]}"),
        ({"loss.itm": {"choice": [0, 1], "off": True}}, "loss.itm: off belongs to a range; put 0 into the choice"),
        ({"loss.itm": {"choice": [1, 1.0]}}, "loss.itm: choice: 1.0 is given twice"),
    ],
)
def test_a_space_that_does_not_fit_is_refused_before_anything_starts(content: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        space_of(content).check(BASE)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ({"model.fuson": {"in": ["concat"]}}, "model.fuson is not a setting; did you mean model.fusion?"),
        ({"model": {"in": ["concat"]}}, "model is not a setting but a section"),
        ({"loss.itm": {"min": 1}}, "loss.itm depends on itself"),
        ({"model.fusion": {"min": 1}}, "model.fusion is not a number, so it has no min or max; write {in: [a, b]}"),
        ({"optimizer.cuda_graph": {"max": 1}}, "optimizer.cuda_graph is not a number"),
        ({"model.fusion": {"in": ["interaction", "sum"]}}, "model.fusion can never be 'sum'; correct or remove it"),
        ({"recipe.epochs": {"in": [-1]}}, "recipe.epochs can never be -1"),
        ({"recipe.epochs": {"in": ["3"]}}, "recipe.epochs can never be '3'"),
        ({"model.fusion": {"in": ["concat"]}}, "loss.itm: when model.fusion: never holds"),
        ({"recipe.stage1_epochs": {"min": 3}}, "loss.itm: when recipe.stage1_epochs: never holds"),
        ({"model.dropout": {"in": [0.75]}}, "loss.itm: when model.dropout: never holds"),
    ],
)
def test_a_condition_that_asks_for_the_impossible_is_refused(when: dict[str, Any], message: str) -> None:
    searched = {key: SPACE[key] for key in ("recipe.stage1_epochs", "model.dropout")}
    with pytest.raises(UserError) as caught:
        space_of({**searched, "loss.itm": {"log": [0.1, 10.0], "when": when}}).check(BASE)
    assert message in str(caught.value)


def test_a_condition_on_a_setting_that_stays_as_it_is_may_hold() -> None:
    space_of({"loss.itm": {"log": [0.1, 10.0], "when": {"model.fusion": {"in": ["interaction"]}}}}).check(BASE)


def test_corners_are_tried_in_pairs_where_they_are_too_many_to_combine() -> None:
    wide = {f"loss.{name}": {"log": [0.01, 10.0], "off": True} for name in ("itm", "box", "spatial", "itc", "giou")}
    wide |= {
        "model.adapter_width": {"choice": [64, 128, 256, 512]},
        "model.embed_dim": {"choice": [64, 128, 256, 512]},
        "model.fusion": {"choice": ["concat", "interaction"]},
    }
    base = BASE.with_overrides({"loss.giou": 1.0})
    with pytest.raises(UserError, match="itc and itm are both 0"):
        space_of(wide).check(base)


@given(st.integers(0, 2**31))
def test_a_setting_of_a_trial_is_that_of_its_configuration(seed: int) -> None:
    space = space_of(SPACE)
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
    config = BASE.with_overrides(space.suggest(trial, BASE))
    for key in (*space.dimensions, "recipe.epochs", "model.embed_dim"):
        assert space.value(key, trial.params, BASE) == setting(config, key)
