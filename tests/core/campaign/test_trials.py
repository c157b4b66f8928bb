import subprocess
import sys
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.campaign.trials import (
    ENDED,
    SCORED,
    STALE,
    Standing,
    State,
    TrialRecord,
    awaits_baseline,
    earlier_attempts,
    gain_over_baseline,
    standing_of,
)


def retried(times: int) -> list[TrialRecord]:
    """Trial 0, interrupted several times, and the trial that continues it; trial 1 is unrelated."""
    first = [TrialRecord(0, "failed", 0, reason=STALE), TrialRecord(1, "complete", 1, value=0.5)]
    others = [TrialRecord(n, "failed", 0, retry_of=0 if n == 2 else n - 1, reason=STALE) for n in range(2, times + 1)]
    return [*first, *others, TrialRecord(times + 1, "complete", 0, retry_of=0 if times == 1 else times, value=0.25)]


@given(st.integers(1, 9))
def test_a_retry_stays_what_it_continues_through_any_number_of_interruptions(times: int) -> None:
    trials = retried(times)
    assert trials[-1].is_baseline
    assert earlier_attempts(trials, times + 1) == [*range(times, 1, -1), 0]
    assert earlier_attempts(trials, 1) == []
    standing = standing_of(trials)
    assert (standing.complete, standing.interrupted, standing.ended) == (2, times, 2)
    assert (standing.best, standing.baseline, standing.gain) == ((1, 0.5), 0.25, 0.25)


@pytest.mark.parametrize("state", get_args(State))
def test_an_interrupted_trial_counts_for_nothing_in_whatever_state(state: State) -> None:
    trial = TrialRecord(0, state, 0)
    assert trial.has_ended == (state in ENDED)
    assert standing_of([trial]).states[state] == 1
    stale = TrialRecord(0, state, 0, reason=STALE)
    assert not stale.has_ended
    assert standing_of([stale]) == Standing(interrupted=1)


def test_every_trial_is_counted_once() -> None:
    trials = [TrialRecord(number, state, number) for number, state in enumerate(get_args(State))]
    standing = standing_of(trials)
    assert sum(standing.states.values()) == len(trials)
    assert standing.ended == sum(trial.has_ended for trial in trials)
    assert set(SCORED) < set(ENDED)


def test_a_value_of_zero_is_a_value_and_the_first_of_equals_is_the_best() -> None:
    trials = [TrialRecord(number, "complete", number, value=0.0) for number in range(2)]
    assert standing_of(trials).best == (0, 0.0)
    assert standing_of(trials).gain == 0.0


def test_without_a_complete_trial_nothing_is_best() -> None:
    standing = standing_of([TrialRecord(0, "pruned", 0, value=0.9), TrialRecord(1, "running", 1)])
    assert (standing.best, standing.baseline, standing.gain) == (None, None, None)


def test_records_are_read_without_optuna() -> None:
    code = "import sys, core.campaign.trials; print({'optuna', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_a_gain_is_measured_from_the_baseline_once_it_is_complete() -> None:
    trials = [
        TrialRecord(0, "failed", 0, value=0.1, reason=STALE),
        TrialRecord(1, "complete", 1, value=0.5),
        TrialRecord(2, "failed", 2),
        TrialRecord(3, "complete", 0, retry_of=0, value=0.25),
    ]
    assert gain_over_baseline(trials[:3], trials[1]) is None
    assert gain_over_baseline(trials, trials[1]) == 0.25
    assert gain_over_baseline(trials, trials[2]) is None
    assert gain_over_baseline(trials, trials[3]) == 0.0


def test_a_confirmed_gain_is_measured_from_the_baseline_with_the_same_seed() -> None:
    trials = [
        TrialRecord(0, "complete", 0, confirms=0, seed=1, value=0.25),
        TrialRecord(1, "complete", 1, confirms=7, seed=1, value=0.5),
        TrialRecord(2, "running", 2, confirms=0, seed=2, value=0.4),
        TrialRecord(3, "complete", 3, confirms=7, seed=2, value=0.75),
    ]
    assert gain_over_baseline(trials, trials[1]) == 0.25
    assert gain_over_baseline(trials, trials[3]) is None
    assert [trial.repeats_baseline for trial in trials] == [True, False, True, False]


def test_a_gain_is_awaited_only_while_the_baseline_may_still_end() -> None:
    ended = TrialRecord(1, "complete", 1, value=0.5)
    for state in get_args(State):
        baseline = TrialRecord(0, state, 0, value=0.25 if state == "complete" else None)
        assert awaits_baseline([baseline, ended], ended) == (state in ("running", "waiting"))
        assert not awaits_baseline([baseline, TrialRecord(1, "failed", 1)], TrialRecord(1, "failed", 1))
    retried = [TrialRecord(0, "failed", 0, reason=STALE), ended, TrialRecord(2, "waiting", 0, retry_of=0)]
    assert awaits_baseline(retried, ended)
