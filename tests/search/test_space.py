from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from core.config import TrainConfig, config_hash
from core.errors import UserError
from search.space import Space, setting
from tests.search.conftest import SPACE

BASE = TrainConfig().with_overrides({"recipe.epochs": 3})


def space_of(content: dict[str, Any]) -> Space:
    return Space.model_validate(content)


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
        ({"seed": {"int": [0, 5]}}, "seed is not to be searched: the best seed is luck"),
        ({"data.image_root": {"choice": ["a", "b"]}}, "data.image_root is not to be searched"),
        ({"features.backbone": {"choice": ["a", "b"]}}, "compares adapters on one backbone"),
        ({"model.dropout": {"uniform": [0.0, 1.5]}}, "has an invalid corner {'model.dropout': 1.5}"),
        ({"recipe.stage1_epochs": {"int": [0, 9]}}, "stage1_epochs 9 is more than epochs 3"),
        ({"optimizer.learning_rate": {"log": [1e-6, 1e-5]}}, "the baseline's value 0.001 lies outside"),
        ({"model.adapter_width": {"choice": [8, 16]}}, "the baseline's value 256 lies outside"),
        ({"optimizer.learning_rate": {"log": [1e-6, 1.0], "off": True}}, "has an invalid corner"),
        ({"model.adapter_width": {"uniform": [8.0, 512.0]}}, "has an invalid corner"),
    ],
)
def test_a_space_that_does_not_fit_is_refused_before_anything_starts(content: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        space_of(content).check(BASE)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


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
