"""The outcome of a trial, from its reports; whole trials are in test_book."""

import dataclasses
from typing import Any

import pytest

from core.config import TrainConfig
from core.records import EpochMetrics
from search.session.running import RunningTrial, judge, objective_of
from search.study.ledger import AskedTrial


def epoch(number: int, stage: int, recall: float) -> EpochMetrics:
    figures: dict[str, Any] = {field.name: 1 for field in dataclasses.fields(EpochMetrics)}
    return EpochMetrics(**{**figures, "epoch": number, "stage": stage, "recall_mean": recall})


@pytest.fixture
def trial(small_config: TrainConfig) -> RunningTrial:
    """Two epochs of alignment, two joint ones; nothing is reported yet."""
    config = small_config.with_overrides({"recipe.stage1_epochs": 2})
    return RunningTrial(AskedTrial(0, "trial-0000", config, []), started=10.0, heard=10.0)


HISTORY = [epoch(0, 1, 0.9), epoch(1, 1, 0.8), epoch(2, 2, 0.3), epoch(3, 2, 0.2)]


def test_a_pruned_trial_has_its_best_epoch_so_far(trial: RunningTrial) -> None:
    trial.history, trial.stopped_early = HISTORY[:3], True
    outcome = judge(trial, None, crash=None, now=12.5)
    assert (outcome.state, outcome.value, outcome.reason, outcome.seconds) == ("pruned", 0.3, None, 2.5)
    assert outcome.best == HISTORY[2]


def test_a_trial_has_no_score_before_its_joint_stage(trial: RunningTrial) -> None:
    trial.history, trial.stopped_early = HISTORY[:2], True
    outcome = judge(trial, None, crash=None, now=11.0)
    assert (outcome.state, outcome.value, outcome.best) == ("pruned", None, None)


@pytest.mark.parametrize(
    ("failure", "crash", "reason"),
    [
        ("no memory", "the worker died", "no memory"),
        (None, "the worker died", "the worker died"),
        (None, None, "its last checkpoint is missing or torn"),
    ],
)
def test_a_failure_reported_by_the_worker_takes_precedence_over_rays(
    trial: RunningTrial, failure: str | None, crash: str | None, reason: str
) -> None:
    trial.history, trial.failure = HISTORY, failure
    outcome = judge(trial, None, crash=crash, now=11.0)
    assert (outcome.state, outcome.reason, outcome.value) == ("failed", reason, 0.3)


def test_the_objective_is_that_of_the_configuration(trial: RunningTrial, small_config: TrainConfig) -> None:
    assert objective_of(trial, HISTORY[2]) == 0.3
    other = AskedTrial(0, "trial-0000", small_config.with_overrides({"objective": "t2i_r1"}), [])
    assert objective_of(RunningTrial(other, 0.0, 0.0), HISTORY[2]) == 1.0
