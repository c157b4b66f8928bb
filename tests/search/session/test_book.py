"""The driver's book of running trials with simulated Ray events; real Ray runs it in tests/end_to_end."""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.campaign.campaign import Campaign
from core.config import TrainConfig, load_config
from core.features.store import Features
from core.files.atomic import write_atomically
from core.files.folders import CampaignFolder
from core.files.json_files import read_json, read_json_lines
from core.model.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from core.records import EpochMetrics
from core.tracked_runs import NoTracker
from core.training.train import TrainResult, train
from search.session.book import SessionBook
from search.session.storage import CHECKPOINT_NAME, Storage
from search.session.trial_log import TrialLog
from search.study.ledger import Ledger
from search.study.proposals import SearchProposals


class Session:
    """A book over a fresh campaign, and the first trial that it started."""

    def __init__(self, folder: CampaignFolder, ledger: Ledger, features: Features) -> None:
        self.folder, self.ledger, self.features = folder, ledger, features
        self.changes = 0
        self.storage = Storage(str(folder.sessions / "test-id"))
        log = TrialLog(ledger, folder, NoTracker())
        self.book = SessionBook(ledger, log, self.storage, lambda config: "planted", self._count)
        self.task = self.book.next_trial("a")

    def _count(self) -> None:
        self.changes += 1

    def train(self, **changes: Any) -> TrainResult:
        assert self.task is not None
        return train(self.task.config.with_overrides(changes), self.features)

    def tell(self, result: TrainResult) -> list[bool]:
        receipt = json.dumps(result.receipt.to_json())
        rows = [{"metrics": json.dumps(metrics.to_json()), "receipt": receipt} for metrics in result.history]
        return [self.book.record("a", row) for row in rows]


@pytest.fixture
def session(
    campaign_of: Callable[..., Campaign], folder_of: Path, small_config: TrainConfig, planted_features: Features
) -> Iterator[Session]:
    campaign = campaign_of(
        train=small_config.model_dump(mode="json"),
        space={"optimizer.weight_decay": {"log": [1e-4, 0.3]}},
        pruner={"kind": "none"},
    )
    folder = CampaignFolder(folder_of)
    folder.root.mkdir()
    with Ledger(SearchProposals(campaign), folder, "id", ["planted"]) as ledger:
        yield Session(folder, ledger, planted_features)


def reasons(session: Session) -> list[str | None]:
    return [trial.reason for trial in session.ledger.trials() if trial.has_ended]


def test_a_trial_that_ends_well_leaves_all_its_files(session: Session) -> None:
    result = session.train()
    assert session.tell(result) == [False] * 4
    session.book.finish("a", result.last, crash=None)
    kept = session.folder.trial(0)
    assert load_config(kept.config) == result.last.config
    assert [row["epoch"] for row in read_json_lines(kept.metrics)] == [0, 1, 2, 3]
    assert read_json(kept.receipt)["fingerprint"] == "planted"
    assert kept.best_checkpoint.exists()
    assert session.ledger.standing().best == (0, max(metrics.recall_mean for metrics in result.history))
    assert session.changes == 2


def test_an_epoch_that_is_reported_twice_counts_once(session: Session) -> None:
    result = session.train()
    session.tell(result)
    session.tell(result)
    assert len(read_json_lines(session.folder.trial(0).metrics)) == 4


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"seed": 7}, "the receipt is of another configuration than requested"),
        ({"optimizer.weight_decay": 0.2}, "the receipt is of another configuration than requested"),
    ],
)
def test_a_worker_that_trained_something_else_fails_the_trial(
    session: Session, change: dict[str, Any], reason: str
) -> None:
    session.tell(session.train(**change))
    session.book.finish("a", None, crash=None)
    assert reasons(session) == [reason]


def test_a_rate_that_never_reached_the_optimizer_fails_the_trial(session: Session) -> None:
    result = session.train()
    for group in result.receipt.optimizer_groups:
        group["learning_rate"] = 0.5
    session.tell(result)
    session.book.finish("a", None, crash=None)
    assert reasons(session) == ["the optimizer had learning rates [0.5], not 0.01"]


@pytest.mark.parametrize("crash", [None, "the worker died"])
def test_a_trial_without_a_report_fails_with_its_reason(session: Session, crash: str | None) -> None:
    session.book.finish("a", None, crash=crash)
    assert reasons(session) == [crash or "ended without a report"]


def test_a_failure_reported_by_the_worker_is_kept(session: Session) -> None:
    session.book.record("a", {"failure": "DivergedError: the loss is not finite in epoch 2"})
    session.book.finish("a", None, crash=None)
    assert reasons(session) == ["DivergedError: the loss is not finite in epoch 2"]


def test_a_value_that_is_no_number_is_a_failure(session: Session) -> None:
    result = session.train()
    row = {"metrics": json.dumps(result.history[0].to_json()), "receipt": json.dumps(result.receipt.to_json())}
    content = json.loads(row["metrics"]) | {"recall_mean": math.inf}
    assert session.book.record("a", row | {"metrics": json.dumps(content)}) is True
    session.book.finish("a", None, crash=None)
    (reason,) = reasons(session)
    assert reason is not None
    assert "its report cannot be read" in reason
    assert "recall_mean" in reason


def test_an_error_of_the_driver_stops_the_session_and_is_raised_at_its_end(session: Session) -> None:
    session.folder.trial(0).metrics.mkdir(parents=True)  # nothing can be appended to a folder
    assert session.tell(session.train())[0] is True
    assert session.book.next_trial("b") is None
    session.book.finish("a", None, crash=None)
    with pytest.raises(IsADirectoryError):
        session.book.close()
    assert session.ledger.standing().ended == 0


def test_at_the_limits_there_is_no_next_trial(session: Session) -> None:
    tasks = [session.book.next_trial(name) for name in "bcdef"]
    assert [task is None for task in tasks] == [False, False, False, True, True]


def test_while_a_trial_runs_the_limits_may_still_be_raised(session: Session) -> None:
    tasks = [session.book.next_trial(name) for name in "bcd"]
    assert None not in tasks
    assert session.book.next_trial("e") is None
    assert not session.book.is_over()
    write_atomically(session.folder.limits, "trials: 5\n")
    assert session.book.next_trial("e") is not None
    write_atomically(session.folder.limits, "trials: 1\n")
    assert session.book.next_trial("f") is None
    for name in "abcde":
        session.book.finish(name, None, crash="the worker died")
    assert session.book.is_over()


def test_a_session_that_stops_is_over_at_once(session: Session) -> None:
    assert not session.book.is_over()
    session.book.stop()
    assert session.book.is_over()


def test_a_session_with_too_many_failures_is_over_although_others_run(session: Session) -> None:
    session.ledger.campaign = session.ledger.campaign.model_copy(update={"max_failed_trials": 1})
    assert session.book.next_trial("b") is not None
    session.book.finish("b", None, crash="the worker died")
    assert session.book.next_trial("c") is None
    assert session.book.is_over()


def test_a_checkpoint_that_did_not_arrive_fails_the_trial_instead_of_losing_it_in_silence(session: Session) -> None:
    session.tell(session.train())
    session.book.finish("a", None, crash=None)
    assert reasons(session) == ["its last checkpoint is missing or torn"]


def test_a_trial_that_is_put_back_is_asked_for_again_in_the_same_session(session: Session) -> None:
    lost = session.book.next_trial("another")
    assert lost is not None
    session.book.put_back("another")
    session.book.put_back("another")  # told twice
    again = session.book.next_trial("third")
    assert again is not None
    assert again.config == lost.config
    assert again.number > lost.number


def test_a_stopping_book_starts_nothing_and_requeues_running_trials(session: Session) -> None:
    result = session.train()
    session.book.stop()
    assert session.book.next_trial("b") is None
    assert session.tell(result)[0] is True
    session.book.finish("a", None, crash=None)
    assert session.ledger.standing().ended == 0
    again = session.ledger.ask()
    assert again is not None
    assert (again.lineage, again.config) == ([0], result.last.config)


def test_a_retry_keeps_the_epochs_of_the_trial_that_died(
    session: Session, small_config: TrainConfig, planted_features: Features
) -> None:
    kept = []
    train(small_config, planted_features, lambda metrics, checkpoint: kept.append(checkpoint))
    half = kept[1]
    save_checkpoint(Path(session.storage.root) / "1" / "0000" / "checkpoint_000001" / CHECKPOINT_NAME, half)
    torn = Path(session.storage.root) / "1" / "0000" / "checkpoint_000002" / CHECKPOINT_NAME
    torn.parent.mkdir()
    torn.write_bytes(b"half")
    session.book.close()
    task = session.book.next_trial("b")
    assert task is not None
    assert task.resume_from is not None
    taken_up = session.storage.read_checkpoint(task.resume_from)
    assert taken_up is not None
    assert taken_up.epoch == 1
    rows = read_json_lines(session.folder.trial(task.number).metrics)
    assert rows == [metrics.to_json() for metrics in half.history]


def test_a_trial_without_reports_for_too_long_is_returned_once(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert session.book.silent() == []
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 4000)
    assert session.book.silent() == ["a"]
    assert session.book.silent() == []
    session.book.finish("a", None, crash="killed")
    assert reasons(session) == ["no report for 3600 s"]


def kept_checkpoints(config: TrainConfig, features: Features) -> list[Checkpoint]:
    kept: list[Checkpoint] = []
    train(config, features, lambda metrics, checkpoint: kept.append(checkpoint))
    return kept


def leave(session: Session, ray_session: str, number: int, checkpoint: Checkpoint) -> None:
    place = Path(session.storage.root) / ray_session / f"{number:04d}" / "checkpoint_000000"
    save_checkpoint(place / CHECKPOINT_NAME, checkpoint)


def test_a_retry_of_a_retry_continues_from_the_latest_checkpoint_of_all(
    session: Session, small_config: TrainConfig, planted_features: Features
) -> None:
    """The trial in between was killed before its first checkpoint."""
    kept = kept_checkpoints(small_config, planted_features)
    leave(session, "1", 0, kept[1])
    leave(session, "1", 7, kept[2])
    session.book.close()
    second = session.book.next_trial("b")
    assert second is not None
    session.book.close()
    third = session.book.next_trial("c")
    assert third is not None
    assert third.resume_from is not None
    taken_up = session.storage.read_checkpoint(third.resume_from)
    assert taken_up is not None
    assert taken_up.epoch == 1


def test_a_trial_that_was_trained_to_its_end_before_its_driver_died_is_not_trained_again(
    session: Session, small_config: TrainConfig, planted_features: Features
) -> None:
    last = kept_checkpoints(small_config, planted_features)[-1]
    leave(session, "1", 0, last)
    session.book.close()
    again = session.book.next_trial("b")
    assert again is not None
    row = {"metrics": json.dumps(last.history[-1].to_json()), "receipt": json.dumps(last.receipt.to_json())}
    assert session.book.record("b", row) is False
    session.book.finish("b", last, crash=None)
    assert session.ledger.standing().best == (1, max(metrics.recall_mean for metrics in last.history))


def two_stages(history: list[EpochMetrics], *stages: int) -> list[EpochMetrics]:
    """Earlier epochs are better: a score over all epochs would choose them."""
    return [
        replace(metrics, stage=stage, recall_mean=0.9 - metrics.epoch / 10)
        for metrics, stage in zip(history, stages, strict=False)
    ]


@pytest.fixture
def staged(
    campaign_of: Callable[..., Campaign], folder_of: Path, small_config: TrainConfig, planted_features: Features
) -> Iterator[Session]:
    """Two epochs of alignment, two joint ones."""
    config = small_config.with_overrides({"recipe.stage1_epochs": 2}).model_dump(mode="json")
    space = {"optimizer.weight_decay": {"log": [1e-4, 0.3]}}
    campaign = campaign_of(train=config, space=space, pruner={"kind": "none"})
    folder = CampaignFolder(folder_of)
    folder.root.mkdir()
    with Ledger(SearchProposals(campaign), folder, "id", ["planted"]) as ledger:
        yield Session(folder, ledger, planted_features)


def test_a_two_stage_trial_is_scored_by_its_joint_stage_alone(staged: Session) -> None:
    last = staged.train().last
    last = replace(last, history=two_stages(last.history, 1, 1, 2, 2))
    receipt = json.dumps(last.receipt.to_json())
    for metrics in last.history:
        staged.book.record("a", {"metrics": json.dumps(metrics.to_json()), "receipt": receipt})
    staged.book.finish("a", last, crash=None)
    assert staged.ledger.standing().best == pytest.approx((0, 0.7))
    (trial,) = [trial for trial in staged.ledger.trials() if trial.has_ended]
    assert trial.best == last.history[2]
    kept = load_checkpoint(staged.folder.trial(0).best_checkpoint)
    assert kept.epoch == kept.best_epoch == 2


def test_a_trial_pruned_before_its_joint_stage_has_no_score(staged: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    last = staged.train().last
    row = {"receipt": json.dumps(last.receipt.to_json())}
    (metrics,) = two_stages(last.history, 1)
    monkeypatch.setattr(staged.ledger, "should_stop", lambda number: True)
    assert staged.book.record("a", row | {"metrics": json.dumps(metrics.to_json())}) is True
    staged.book.finish("a", None, crash=None)
    (trial,) = [trial for trial in staged.ledger.trials() if trial.has_ended]
    assert (trial.state, trial.value) == ("pruned", None)
    assert trial.reason is None


def test_a_trial_that_ends_before_its_last_epoch_fails_with_its_reason(session: Session) -> None:
    result = session.train()
    row = {"metrics": json.dumps(result.history[0].to_json()), "receipt": json.dumps(result.receipt.to_json())}
    session.book.record("a", row)
    session.book.finish("a", result.last, crash=None)
    assert reasons(session) == ["ended after 1 of 4 epochs"]
