"""CMA-ES as a sampler; all but its arithmetic needs the package cmaes, which is an extra."""

import math
from collections.abc import Sequence
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler

from search.study.evolution import EvolutionSampler, _coordinate, _value


def sampler(*settings: str, startup_trials: int = 6, seed: int = 0) -> EvolutionSampler:
    others = RandomSampler(seed=seed)
    return EvolutionSampler(seed=seed, startup_trials=startup_trials, settings=settings, others=others)


def draw(trial: optuna.Trial) -> tuple[float, int, str, float | None]:
    x, n = trial.suggest_float("x", 1e-4, 1.0, log=True), trial.suggest_int("n", 0, 9)
    kind = trial.suggest_categorical("kind", ["a", "b"])
    return x, n, kind, trial.suggest_float("z", 0.0, 1.0) if kind == "a" else None


def score(x: float, n: int) -> float:
    """Best at x = 0.01 and n = 3."""
    return -((math.log10(x) + 2) ** 2) - 0.2 * (n - 3) ** 2


def values(study: optuna.Study, trials: int) -> list[float]:
    for _ in range(trials):
        trial = study.ask()
        x, n, _, _ = draw(trial)
        study.tell(trial, score(x, n))
    return [float(trial.value) for trial in study.trials]


def mean(scores: Sequence[float]) -> float:
    return sum(scores) / len(scores)


def test_it_closes_in_on_the_optimum_of_what_it_may_propose() -> None:
    pytest.importorskip("cmaes")
    study = optuna.create_study(direction="maximize", sampler=sampler("x", "n"))
    found = values(study, 80)
    assert mean(found[-20:]) > mean(found[:20])
    assert mean(found[-20:]) > -0.5
    assert {trial.params["kind"] for trial in study.trials[40:]} == {"a", "b"}  # drawn by the other sampler


def test_a_session_starts_from_the_trials_before_it_and_reads_no_state() -> None:
    pytest.importorskip("cmaes")
    study = optuna.create_study(direction="maximize", sampler=sampler("x", "n"))
    values(study, 60)
    assert all(not trial.system_attrs for trial in study.trials)
    study.sampler = sampler("x", "n", seed=1)
    assert mean(values(study, 10)[-10:]) > -1.0


def test_pruned_trials_and_queued_settings_count_where_they_are() -> None:
    pytest.importorskip("cmaes")
    study = optuna.create_study(direction="maximize", sampler=sampler("x", "n"))
    for number in range(60):
        if number % 5 == 0:
            study.enqueue_trial({"x": 1.0, "n": 9, "kind": "b"})
        trial = study.ask()
        x, n, _, _ = draw(trial)
        trial.report(score(x, n), 1)
        pruned = score(x, n) < -1 and number % 5
        study.tell(trial, None if pruned else score(x, n), optuna.trial.TrialState.PRUNED if pruned else None)
    proposed = [trial for trial in study.trials[40:] if trial.number % 5]
    assert mean([score(trial.params["x"], trial.params["n"]) for trial in proposed]) > -1.0


def test_without_a_number_that_every_trial_has_all_is_left_to_the_other_sampler() -> None:
    study = optuna.create_study(direction="maximize", sampler=sampler("kind"))
    assert len(values(study, 10)) == 10


RANGES = st.one_of(
    st.builds(lambda low, more: FloatDistribution(low, low + more), st.floats(-9, 9), st.floats(0.1, 9)),
    st.builds(
        lambda low, times: FloatDistribution(low, low * times, log=True), st.floats(1e-6, 9), st.floats(1.1, 1e6)
    ),
    st.builds(lambda low, more: IntDistribution(low, low + more), st.integers(-9, 9), st.integers(1, 99)),
)


@given(RANGES, st.floats(0.0, 1.0))
def test_every_point_of_the_unit_interval_is_a_value_that_lies_where_it_came_from(each: Any, x: float) -> None:
    value = _value(each, x)
    assert each._contains(each.to_internal_repr(value))
    cell = 1 / (each.high - each.low + 1) if isinstance(each, IntDistribution) else 0.0
    assert _coordinate(each, value) == pytest.approx(x, abs=cell / 2 + 1e-6)
