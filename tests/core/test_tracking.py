"""Real offline runs are written and read back from their files."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb

from core.config import TrainConfig
from core.features import Features
from core.records import EpochMetrics
from core.tracking import NoTracker, WandbTracker, build_tracker, resolve_mode
from core.training import train
from tests.wandb_files import read_run


@pytest.fixture(autouse=True)
def _as_in_a_fresh_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """W&B remembers variables and credentials for as long as a process lives."""
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.fixture
def history(planted_features: Features, small_config: TrainConfig) -> list[EpochMetrics]:
    return train(small_config.with_overrides({"recipe.epochs": 2}), planted_features).history


def only_run(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    return read_run(path)


def test_a_run_holds_config_epochs_and_summary(
    tmp_path: Path, history: list[EpochMetrics], small_config: TrainConfig
) -> None:
    tracker = WandbTracker(project="p", group="demo", mode="offline", folder=tmp_path, identity="0123456789ab")
    tracker.start("trial-0007", small_config.model_dump(mode="json"))
    for metrics in history:
        tracker.epoch("trial-0007", metrics)
    tracker.finish(
        "trial-0007", {"state": "complete", "best_value": 0.5, "best_epoch": 1, "reason": None}, failed=False
    )
    tracker.close()
    run = only_run(tmp_path)
    assert (run["group"], run["name"]) == ("demo", "trial-0007")
    assert run["config"]["optimizer"]["learning_rate"] == small_config.optimizer.learning_rate
    assert [row["recall_mean"] for row in run["rows"]] == [metrics.recall_mean for metrics in history]
    assert run["summary"]["best_value"] == 0.5
    assert run["exit"] == 0


def test_an_interrupted_trial_leaves_a_closed_failed_run(tmp_path: Path, history: list[EpochMetrics]) -> None:
    tracker = WandbTracker(project="p", group="demo", mode="offline", folder=tmp_path, identity="0123456789ab")
    tracker.start("a", {})
    tracker.epoch("a", history[0])
    tracker.close()
    run = only_run(tmp_path)
    assert run["summary"]["state"] == "interrupted"
    assert run["exit"] == 1


def test_trouble_with_the_tracker_is_counted_and_passed_over(
    tmp_path: Path, history: list[EpochMetrics], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**settings: object) -> None:
        raise wandb.Error("no disk left")

    monkeypatch.setattr(wandb, "init", fail)
    tracker = WandbTracker(project="p", group="demo", mode="offline", folder=tmp_path, identity="0123456789ab")
    tracker.start("a", {})
    tracker.start("b", {})
    tracker.epoch("a", history[0])
    tracker.finish("a", {}, failed=False)
    tracker.close()
    assert tracker.problems == 2


@pytest.mark.parametrize(
    ("mode", "variables", "resolved"),
    [
        ("auto", {}, "offline"),
        ("auto", {"WANDB_API_KEY": "k"}, "online"),
        ("auto", {"WANDB_API_KEY": "k", "WANDB_MODE": "offline"}, "offline"),
        ("auto", {"WANDB_MODE": "disabled"}, "disabled"),
        ("auto", {"WANDB_MODE": "online"}, "online"),
        ("offline", {"WANDB_API_KEY": "k"}, "offline"),
        ("disabled", {}, "disabled"),
        ("online", {}, "online"),
    ],
)
def test_offline_unless_a_key_or_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, mode: Any, variables: dict[str, str], resolved: str
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert resolve_mode(mode) == resolved


def test_a_disabled_tracker_tells_nobody(tmp_path: Path, history: list[EpochMetrics]) -> None:
    tracker = build_tracker(project="p", group="demo", mode="disabled", folder=tmp_path, identity="0123456789ab")
    assert isinstance(tracker, NoTracker)
    tracker.start("a", {})
    tracker.epoch("a", history[0])
    tracker.finish("a", {}, failed=False)
    tracker.close()
    assert not any(tmp_path.iterdir())
