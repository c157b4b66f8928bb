"""What is written about a trial, and in which order; tests/end_to_end checks the files of a whole campaign."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from core.campaign.campaign import Campaign
from core.config import TrainConfig, load_config
from core.features.store import Features
from core.files.folders import CampaignFolder
from core.files.json_files import read_json_lines
from core.tracked_runs import RunEnd, RunStart, Shown
from core.training.train import TrainResult, train
from search.session.trial_log import TrialLog
from search.study.ledger import Ledger, TrialOutcome
from search.study.proposals import SearchProposals


class Tracker:
    """Keeps the calls it receives."""

    problems = 0

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.ends: list[RunEnd] = []

    def holds(self, name: str) -> bool:
        return False

    def start(self, run: RunStart) -> None:
        self.calls.append((run.name, "start"))

    def epoch(self, name: str, metrics: Any) -> None:
        self.calls.append((name, metrics.epoch))

    def show(self, name: str, title: str, shown: Shown) -> None: ...

    def finish(self, name: str, end: RunEnd) -> None:
        self.calls.append((name, (end.state, end.failed)))
        self.ends.append(end)

    def close(self) -> None: ...


@pytest.fixture
def folder(folder_of: Path) -> CampaignFolder:
    folder_of.mkdir()
    return CampaignFolder(folder_of)


@pytest.fixture
def ledger(campaign_of: Callable[..., Campaign], folder: CampaignFolder, small_config: TrainConfig) -> Iterator[Ledger]:
    space = {"optimizer.weight_decay": {"log": [1e-4, 0.3]}}
    campaign = campaign_of(train=small_config.model_dump(mode="json"), space=space)
    with Ledger(SearchProposals(campaign), folder, "id", ["f"]) as ledger:
        yield ledger


@pytest.fixture
def result(small_config: TrainConfig, planted_features: Features) -> TrainResult:
    return train(small_config, planted_features)


def test_a_trial_is_logged_in_its_folder_the_tracker_and_the_ledger(
    ledger: Ledger, folder: CampaignFolder, result: TrainResult
) -> None:
    tracker = Tracker()
    log = TrialLog(ledger, folder, tracker)
    asked = ledger.ask()
    assert asked is not None
    log.begin(asked)
    for metrics in result.history:
        log.epoch(0, metrics, [metrics.recall_mean])
    log.end(0, TrialOutcome("complete", 0.5, result.history[0], None, 1.0), result.receipt, result.last)
    files = folder.trial(0)
    assert load_config(files.config) == asked.config
    assert read_json_lines(files.metrics) == [metrics.to_json() for metrics in result.history]
    assert files.receipt.exists()
    assert files.best_checkpoint.exists()
    assert tracker.calls == [
        ("trial-0000", each) for each in ["start", *range(len(result.history)), ("complete", False)]
    ]
    (trial,) = ledger.trials()
    assert (trial.state, trial.epochs, trial.best) == ("complete", len(result.history), result.history[0])


@pytest.mark.parametrize("artifacts", [False, True])
def test_a_checkpoint_is_uploaded_only_if_asked_for(
    campaign_of: Callable[..., Campaign], folder: CampaignFolder, small_config: TrainConfig, result: TrainResult,
    artifacts: bool,
) -> None:  # fmt: skip
    space = {"optimizer.weight_decay": {"log": [1e-4, 0.3]}}
    tracking = {"mode": "disabled", "artifacts": artifacts}
    campaign = campaign_of(train=small_config.model_dump(mode="json"), space=space, wandb=tracking)
    with Ledger(SearchProposals(campaign), folder, "id", ["f"]) as ledger:
        tracker = Tracker()
        log = TrialLog(ledger, folder, tracker)
        states: tuple[Literal["complete", "pruned"], ...] = ("complete", "pruned")
        for state in states:
            asked = ledger.ask()
            assert asked is not None
            log.begin(asked)
            log.end(asked.number, TrialOutcome(state, 0.5, result.history[0], None, 1.0), result.receipt, result.last)
    published = folder.trial(0).best_checkpoint if artifacts else None
    assert [end.checkpoint for end in tracker.ends] == [published, None]


def test_a_trial_has_ended_only_once_its_files_are_there(
    ledger: Ledger, folder: CampaignFolder, result: TrainResult
) -> None:
    log = TrialLog(ledger, folder, Tracker())
    assert ledger.ask() is not None
    folder.trial(0).best_checkpoint.mkdir(parents=True)  # nothing can be written in its place
    with pytest.raises(OSError, match="checkpoint_best"):
        log.end(0, TrialOutcome("complete", 0.5, None, None, 1.0), result.receipt, result.last)
    assert ledger.standing().running == 1


def test_a_run_is_ended_with_its_gain_once_the_baseline_has_ended_too(
    ledger: Ledger, folder: CampaignFolder, result: TrainResult
) -> None:
    tracker = Tracker()
    log = TrialLog(ledger, folder, tracker)
    for _ in range(2):
        asked = ledger.ask()
        assert asked is not None
        log.begin(asked)
    log.end(1, TrialOutcome("complete", 0.75, result.history[0], None, 1.0), result.receipt, result.last)
    assert not tracker.ends
    log.end(0, TrialOutcome("complete", 0.5, result.history[0], None, 1.0), result.receipt, result.last)
    assert {name: end[0] for name, end in tracker.calls[-2:]} == {"trial-0000": "complete", "trial-0001": "complete"}
    assert sorted(end.summary["gain_over_baseline"] for end in tracker.ends) == [0.0, 0.25]
    log.close()
    assert len(tracker.ends) == 2


def test_a_run_that_waits_for_the_baseline_is_ended_with_the_session(
    ledger: Ledger, folder: CampaignFolder, result: TrainResult
) -> None:
    tracker = Tracker()
    log = TrialLog(ledger, folder, tracker)
    for _ in range(2):
        asked = ledger.ask()
        assert asked is not None
        log.begin(asked)
    log.end(1, TrialOutcome("complete", 0.75, result.history[0], None, 1.0), result.receipt, result.last)
    log.close()
    (end,) = tracker.ends
    assert end.summary["best_value"] == 0.75
    assert "gain_over_baseline" not in end.summary


def test_an_interrupted_trial_waits_again(ledger: Ledger, folder: CampaignFolder) -> None:
    tracker = Tracker()
    asked = ledger.ask()
    assert asked is not None
    log = TrialLog(ledger, folder, tracker)
    log.begin(asked)
    log.interrupt(0, seconds=2.0)
    assert (ledger.standing().interrupted, ledger.standing().waiting) == (1, 1)
    assert tracker.calls == [("trial-0000", "start"), ("trial-0000", ("interrupted", True))]
