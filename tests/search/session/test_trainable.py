"""The trainable without Ray: its reports are intercepted."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import tune

from core.config import TrainConfig, config_hash
from core.features.opening import open_features
from core.model.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from core.training.train import train
from search.session import trainable
from search.session.storage import CHECKPOINT_NAME
from search.session.task import TrialTask
from search.session.trainable import run_trial


class Reports:
    """Stands in for Ray: keeps rows and checkpoints."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.checkpoints: list[Checkpoint] = []

    def __call__(self, row: dict[str, Any], checkpoint: tune.Checkpoint | None = None) -> None:
        self.rows.append(row)
        if checkpoint is not None:
            self.checkpoints.append(load_checkpoint(Path(checkpoint.path) / CHECKPOINT_NAME))


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> Reports:
    caught = Reports()
    monkeypatch.setattr(tune, "report", caught)
    monkeypatch.setattr(tune, "get_checkpoint", lambda: None)
    trainable._open_features.cache_clear()
    return caught


def payload(config: TrainConfig, fingerprint: str, **changes: Any) -> dict[str, Any]:
    task = TrialTask(0, config, fingerprint, storage="", resume_from=None, threads=1, gpu=0, checkpoint_every_s=3600.0)
    return replace(task, **changes).to_plain()


def test_every_epoch_is_reported_and_the_last_brings_the_checkpoint(reports: Reports, demo_config: TrainConfig) -> None:
    features = open_features(demo_config)
    run_trial(payload(demo_config, features.fingerprint))
    metrics = [json.loads(row["metrics"]) for row in reports.rows]
    assert [row["epoch"] for row in metrics] == [0, 1]
    (checkpoint,) = reports.checkpoints
    assert checkpoint.epoch == 1
    assert json.loads(reports.rows[-1]["receipt"])["config_hash"] == config_hash(demo_config)


def test_it_trains_exactly_what_the_plain_function_trains(reports: Reports, demo_config: TrainConfig) -> None:
    features = open_features(demo_config)
    run_trial(payload(demo_config, features.fingerprint))
    plain = train(demo_config, features).history
    assert [json.loads(row["metrics"])["recall_mean"] for row in reports.rows] == [m.recall_mean for m in plain]


def test_checkpoints_travel_as_often_as_asked(reports: Reports, demo_config: TrainConfig) -> None:
    features = open_features(demo_config)
    run_trial(payload(demo_config, features.fingerprint, checkpoint_every_s=0.0))
    assert [checkpoint.epoch for checkpoint in reports.checkpoints] == [0, 1]


@pytest.mark.parametrize(("gpu", "capped"), [(0.25, [0.25]), (1, []), (0, [])])
def test_a_share_of_a_gpu_is_a_share_of_its_memory(
    reports: Reports, demo_config: TrainConfig, monkeypatch: pytest.MonkeyPatch, gpu: float, capped: list[float]
) -> None:
    caps: list[float] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", caps.append)
    config = demo_config.with_overrides({"device": "cpu"})
    run_trial(payload(config, open_features(demo_config).fingerprint, gpu=gpu))
    assert caps == capped
    assert [json.loads(row["metrics"])["epoch"] for row in reports.rows] == [0, 1]


def test_a_failure_is_reported_instead_of_raised(reports: Reports, demo_config: TrainConfig) -> None:
    run_trial(payload(demo_config, "0123456789abcdef"))
    (row,) = reports.rows
    assert row["failure"].startswith("UserError")
    assert "0123456789abcdef" in row["failure"]


def test_ray_may_stop_a_trial_with_system_exit(monkeypatch: pytest.MonkeyPatch, demo_config: TrainConfig) -> None:
    def stop(row: dict[str, Any], checkpoint: object = None) -> None:
        raise SystemExit(0)

    features = open_features(demo_config)
    monkeypatch.setattr(tune, "report", stop)
    monkeypatch.setattr(tune, "get_checkpoint", lambda: None)
    with pytest.raises(SystemExit):
        run_trial(payload(demo_config, features.fingerprint))


def test_an_interrupted_trial_is_resumed(reports: Reports, demo_config: TrainConfig, tmp_path: Path) -> None:
    features = open_features(demo_config)
    run_trial(payload(demo_config, features.fingerprint, checkpoint_every_s=0.0))
    whole = [json.loads(row["metrics"]) for row in reports.rows]
    save_checkpoint(tmp_path / CHECKPOINT_NAME, reports.checkpoints[0])
    reports.rows.clear()
    place = {"storage": str(tmp_path), "resume_from": str(tmp_path / CHECKPOINT_NAME)}
    run_trial(payload(demo_config, features.fingerprint, **place))
    (row,) = reports.rows
    assert json.loads(row["metrics"])["recall_mean"] == whole[1]["recall_mean"]
