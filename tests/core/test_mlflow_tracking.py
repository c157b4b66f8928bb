"""A real local file store, if MLflow is installed."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from core.config import TrainConfig
from core.errors import UserError
from core.features.store import Features
from core.mlflow_tracking import MlflowTracker, mlflow_place
from core.records import EpochMetrics
from core.tracked_runs import DrawnBox, Picture, RunEnd, RunStart, ShownTable
from core.training.train import train

IDENTITY = "0123456789ab"
START = RunStart("trial-0007", "search", {f"setting.{number}": number for number in range(150)}, ["two-stage"])


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)


@pytest.fixture
def history(planted_features: Features, small_config: TrainConfig) -> list[EpochMetrics]:
    return train(small_config.with_overrides({"recipe.epochs": 2}), planted_features).history


@pytest.fixture
def _installed() -> None:
    pytest.importorskip("mlflow", reason="MLflow is not installed (the extra mlflow)")


def open_store(folder: Path, project: str = "p") -> MlflowTracker:
    return MlflowTracker(project=project, group="demo", folder=folder, identity=IDENTITY)


def runs(folder: Path, project: str = "p") -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_place(folder))
    return list(client.search_runs([client.get_experiment_by_name(project).experiment_id]))


@pytest.mark.usefixtures("_installed")
def test_a_run_holds_settings_curves_and_the_best_epochs_figures(tmp_path: Path, history: list[EpochMetrics]) -> None:
    from mlflow import MlflowClient

    tracker = open_store(tmp_path)
    tracker.start(START)
    for metrics in history:
        tracker.epoch(START.name, metrics)
    tracker.finish(START.name, RunEnd("pruned", {"recall_mean": 1 / 3, "best_epoch": 0, "reason": None}))
    tracker.close()
    (run,) = runs(tmp_path)
    assert (run.info.run_name, run.info.status) == ("trial-0007", "FINISHED")
    assert len(run.data.params) == 150
    assert run.data.params["setting.149"] == "149"
    assert run.data.metrics["recall_mean"] == 1 / 3
    tags = {name: run.data.tags[name] for name in ("group", "job_type", "two-stage", "state")}
    assert tags == {"group": "demo", "job_type": "search", "two-stage": "true", "state": "pruned"}
    curve = MlflowClient(mlflow_place(tmp_path)).get_metric_history(run.info.run_id, "epoch/recall_mean")
    assert [(point.step, point.value) for point in curve] == [(each.epoch, each.recall_mean) for each in history]


@pytest.mark.usefixtures("_installed")
def test_tables_pictures_and_checkpoints_are_artifacts(tmp_path: Path) -> None:
    (tmp_path / "checkpoint_best.pth").write_bytes(b"weights")
    picture = Picture(Image.new("RGB", (20, 20)), "a tower", [DrawnBox("true", (0.1, 0.1, 0.5, 0.5), "left")])
    tracker = open_store(tmp_path)
    tracker.start(START)
    tracker.show(START.name, "leaderboard", ShownTable(["run", "image"], [["trial-0007", picture], [None, picture]]))
    tracker.show(START.name, "boxes", [picture])
    tracker.finish(START.name, RunEnd("complete", {}, tmp_path / "checkpoint_best.pth"))
    (run,) = runs(tmp_path)
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    table = json.loads((artifacts / "leaderboard.json").read_text())
    assert table == {"columns": ["run", "image"], "data": [["trial-0007", "a tower"], [None, "a tower"]]}
    assert (artifacts / "model" / "checkpoint_best.pth").read_bytes() == b"weights"
    with Image.open(artifacts / "boxes" / "00.png") as drawn:
        assert drawn.getpixel((2, 2)) == (0, 255, 0)
        assert drawn.getpixel((15, 15)) == (0, 0, 0)
    assert picture.image.getpixel((2, 2)) == (0, 0, 0)  # the caller's image is left as it is


@pytest.mark.usefixtures("_installed")
def test_a_finished_run_is_known_and_one_that_was_left_open_is_written_again(tmp_path: Path) -> None:
    killed = open_store(tmp_path)
    killed.start(RunStart("trial-0001", "search", {}))
    tracker = open_store(tmp_path)
    assert not tracker.holds("trial-0001")
    tracker.start(RunStart("trial-0001", "search", {}))
    tracker.finish("trial-0001", RunEnd("failed", {"reason": "no disk"}))
    tracker.start(RunStart("trial-0002", "search", {}))
    tracker.close()
    again = open_store(tmp_path)
    assert [again.holds(name) for name in ("trial-0001", "trial-0002")] == [True, False]
    (run,) = runs(tmp_path)
    assert (run.info.run_name, run.info.status) == ("trial-0001", "FAILED")
    assert not open_store(tmp_path, "another").holds("trial-0001")


@pytest.mark.usefixtures("_installed")
def test_what_mlflow_refuses_is_one_line(tmp_path: Path) -> None:
    tracker = open_store(tmp_path)
    with pytest.raises(UserError, match="MLflow: ") as refused:
        tracker.start(RunStart("a", "search", {"a setting?!": 1}))
    assert "\n" not in str(refused.value)


@pytest.mark.usefixtures("_installed")
def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mlruns").mkdir()
    with pytest.raises(UserError, match="holds mlruns, which crossmodal did not write"):
        open_store(tmp_path)
    assert not list((tmp_path / "mlruns").iterdir())


def test_without_mlflow_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)  # as if it were not installed
    with pytest.raises(UserError, match="run pip install mlflow-skinny"):
        open_store(tmp_path)
    assert not list(tmp_path.iterdir())
