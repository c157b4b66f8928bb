"""Real offline runs are written and read back from their files; faulty W&B servers are simulated on loopback."""

import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import wandb
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from core import tracking
from core.config import TrainConfig
from core.errors import UserError
from core.features.store import Features
from core.files.json_files import read_json
from core.records import EpochMetrics
from core.tracked_runs import DrawnBox, NoTracker, Picture, RunEnd, RunStart, ShownTable
from core.tracking import WandbTracker, build_tracker, finished_runs, resolve_mode, run_id
from core.training.train import train
from tests.commands import free_port
from tests.wandb_files import read_run, read_runs

KEY = "k" * 40
A = RunStart("a", "train", {})
DONE = RunEnd("complete", {})


@pytest.fixture(autouse=True)
def _as_in_a_fresh_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """W&B caches variables and credentials for the lifetime of a process."""
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.fixture
def history(planted_features: Features, small_config: TrainConfig) -> list[EpochMetrics]:
    return train(small_config.with_overrides({"recipe.epochs": 2}), planted_features).history


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Lines that a user sees."""
    return [record.getMessage() for record in caplog.records if record.name == "core.tracking"]


def tell_one_run(folder: Path, mode: Any) -> None:
    tracker = build_tracker(project="p", group="demo", mode=mode, folder=folder, identity="0123456789ab")
    tracker.start(A)
    tracker.finish("a", DONE)
    tracker.close()


def only_run(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    return read_run(path)


def offline(folder: Path, project: str = "p") -> WandbTracker:
    return WandbTracker(project=project, group="demo", mode="offline", folder=folder, identity="0123456789ab")


def test_a_run_holds_config_epochs_and_summary(
    tmp_path: Path, history: list[EpochMetrics], small_config: TrainConfig
) -> None:
    tracker = offline(tmp_path)
    tracker.start(RunStart.of_training("trial-0007", "search", small_config))
    for metrics in history:
        tracker.epoch("trial-0007", metrics)
    tracker.finish("trial-0007", RunEnd("complete", {"best_value": 0.5, "best_epoch": 1, "reason": None}))
    tracker.close()
    run = only_run(tmp_path)
    assert (run["group"], run["name"], run["job_type"], run["project"]) == ("demo", "trial-0007", "search", "p")
    assert run["config"]["optimizer.learning_rate"] == small_config.optimizer.learning_rate
    assert [row["recall_mean"] for row in run["rows"]] == [metrics.recall_mean for metrics in history]
    assert run["summary"]["best_value"] == 0.5
    assert "reason" not in run["summary"]
    assert run["tags"] == ["single-stage", "fusion-interaction", "complete"]
    assert run["exit"] == 0
    assert tracker.problems == 0


def test_the_summary_has_the_best_epoch_and_never_the_last(tmp_path: Path, history: list[EpochMetrics]) -> None:
    tracker = offline(tmp_path)
    best, last = replace(history[0], epoch=0, recall_mean=0.7), replace(history[1], epoch=1, recall_mean=0.1)
    for name, end in (("trained", RunEnd("complete", {"recall_mean": 0.7})), ("failed", RunEnd("failed", {}))):
        tracker.start(RunStart(name, "search", {}))
        tracker.epoch(name, best)
        tracker.epoch(name, last)
        tracker.finish(name, end)
    tracker.close()
    runs = read_runs(tmp_path)
    assert runs["trained"]["summary"]["recall_mean"] == 0.7
    assert "recall_mean" not in runs["failed"]["summary"]
    assert (runs["failed"]["tags"], runs["failed"]["exit"]) == (["failed"], 1)


def test_epochs_are_the_steps_of_all_curves(tmp_path: Path) -> None:
    tell_one_run(tmp_path, "offline")
    assert only_run(tmp_path)["metrics"]["*"]["step_metric"] == "epoch"


def test_tables_and_pictures_are_media_of_the_run(tmp_path: Path) -> None:
    picture = Picture(Image.new("RGB", (8, 6)), "a tower", [DrawnBox("predicted", (0.1, 0.2, 0.5, 0.75), "left")])
    tracker = offline(tmp_path)
    tracker.start(A)
    tracker.show("a", "panel", ShownTable(["caption", "best"], [["a tower", picture], [None, picture]]))
    tracker.show("a", "boxes", [picture, picture])
    tracker.finish("a", DONE)
    tracker.close()
    assert tracker.problems == 0
    row = {key: value for logged in only_run(tmp_path)["rows"] for key, value in logged.items()}
    (files,) = (path.parent / "files" for path in tmp_path.glob("wandb/offline-run-*/*.wandb"))
    table = read_json(files / row["panel.path"])
    assert table["columns"] == ["caption", "best"]
    assert [cells[0] for cells in table["data"]] == ["a tower", None]
    with Image.open(files / row["boxes.filenames"][0]) as image:
        assert image.size == (8, 6)
    drawn = read_json(files / row["boxes.all_boxes"][1]["predicted"]["path"])
    (box,) = drawn["box_data"]
    assert box["position"] == {"minX": 0.1, "minY": 0.2, "maxX": 0.5, "maxY": 0.75}
    assert box["box_caption"] == "left"


def test_what_is_not_uploaded_yet_lies_beside_the_runs(tmp_path: Path) -> None:
    (tmp_path / "checkpoint_best.pth").write_bytes(b"weights")
    tracker = offline(tmp_path)
    tracker.start(A)
    tracker.show("a", "panel", ShownTable(["number"], [[1]]))
    tracker.finish("a", RunEnd("complete", {}, tmp_path / "checkpoint_best.pth"))
    tracker.close()
    assert tracker.problems == 0
    artifacts = only_run(tmp_path)["artifacts"]
    assert artifacts["demo-a-0123456789ab-model"] == ["checkpoint_best.pth"]
    assert list(tmp_path.glob("wandb/artifacts/staging/*"))
    assert not list((tmp_path / "home").rglob("staging/*"))


def test_a_tracker_knows_the_runs_of_its_project_that_were_finished_before(tmp_path: Path) -> None:
    first = offline(tmp_path)
    assert not first.holds("a")
    first.start(A)
    first.finish("a", DONE)
    first.close()
    assert offline(tmp_path).holds("a")
    assert not offline(tmp_path).holds("b")
    assert not offline(tmp_path, project="another").holds("a")


def test_a_torn_mark_of_a_finished_run_fails_nothing(tmp_path: Path) -> None:
    tell_one_run(tmp_path, "offline")
    assert finished_runs(tmp_path, "p") == {"demo-a-0123456789ab"}
    (mark,) = tmp_path.glob("wandb/offline-run-*/finished.json")
    mark.write_text("{")
    assert finished_runs(tmp_path, "p") == set()


def test_an_interrupted_trial_leaves_a_closed_failed_run(tmp_path: Path, history: list[EpochMetrics]) -> None:
    tracker = WandbTracker(project="p", group="demo", mode="offline", folder=tmp_path, identity="0123456789ab")
    tracker.start(A)
    tracker.epoch("a", history[0])
    tracker.close()
    run = only_run(tmp_path)
    assert run["summary"]["state"] == "interrupted"
    assert run["exit"] == 1


def test_tracker_errors_are_counted_and_ignored(
    tmp_path: Path, history: list[EpochMetrics], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**settings: object) -> None:
        raise wandb.Error("no disk left")

    monkeypatch.setattr(wandb, "init", fail)
    tracker = WandbTracker(project="p", group="demo", mode="offline", folder=tmp_path, identity="0123456789ab")
    tracker.start(A)
    tracker.start(RunStart("b", "train", {}))
    tracker.epoch("a", history[0])
    tracker.finish("a", DONE)
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


@pytest.mark.parametrize(
    ("stated", "resolved"),
    [
        ("foo", "offline"),
        ("", "online"),
        ("OFFLINE", "offline"),
        (" online ", "online"),
        ("dryrun", "offline"),
        ("shared", "online"),
        ("Disabled", "disabled"),
    ],
)
def test_an_unknown_mode_in_the_environment_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stated: str, resolved: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", stated)
    assert resolve_mode("auto") == resolved
    (line,) = said(caplog)
    assert line == f"WANDB_MODE is {stated!r}: Weights & Biases is {resolved}"


@pytest.mark.parametrize("mode", ["foo", "", "OFFLINE", "shared"])
def test_an_unknown_mode_never_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    tell_one_run(tmp_path, "offline")
    assert only_run(tmp_path)["name"] == "a"


def test_a_variable_that_switches_tracking_off_is_obeyed_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_DISABLED", "true")
    assert resolve_mode("auto") == "disabled"
    assert said(caplog) == ["WANDB_DISABLED is set: there are no Weights & Biases runs"]


@pytest.mark.parametrize("variable", ["HOME", "NETRC"])
def test_a_login_counts_as_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    place = tmp_path / "home" / ".netrc" if variable == "HOME" else tmp_path / "keys"
    place.parent.mkdir(exist_ok=True)
    monkeypatch.setenv(variable, str(place.parent if variable == "HOME" else place))
    assert resolve_mode("auto") == "offline"
    place.write_text(f"machine api.wandb.ai\n  login user\n  password {KEY}\n")
    assert resolve_mode("auto") == "online"


def test_an_identity_token_that_cannot_be_read_is_ignored_and_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_IDENTITY_TOKEN_FILE", str(tmp_path / "gone"))
    tell_one_run(tmp_path, "auto")
    assert only_run(tmp_path)["name"] == "a"
    assert "cannot be read; it is ignored" in said(caplog)[0]


@contextmanager
def server(kind: str) -> Iterator[str]:
    """Address of a server that is gone, never answers, or answers everything with a status."""
    if kind == "gone":
        yield f"http://127.0.0.1:{free_port()}"
        return
    if kind == "silent":
        with socket.create_server(("127.0.0.1", 0)) as listening:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        return

    class Refusal(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self.send_response(int(kind))
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as refusing:
        threading.Thread(target=refusing.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{refusing.server_port}"
        refusing.shutdown()


@pytest.mark.parametrize("kind", ["gone", "silent", "401", "500"])
def test_a_server_that_cannot_be_used_is_given_up_once_and_all_runs_are_offline(
    tmp_path: Path,
    history: list[EpochMetrics],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    monkeypatch.setattr(tracking, "LEAN", tracking.LEAN.model_copy(update={"init_timeout": 1.0}))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with server(kind) as address:
        monkeypatch.setenv("WANDB_BASE_URL", address)
        tracker = build_tracker(project="p", group="demo", mode="auto", folder=tmp_path, identity="0123456789ab")
        for name in ("a", "b", "c"):
            tracker.start(RunStart(name, "train", {}))
            tracker.epoch(name, history[0])
            tracker.finish(name, DONE)
        tracker.close()
    runs = [read_run(path) for path in tmp_path.glob("wandb/offline-run-*/*.wandb")]
    assert sorted(run["name"] for run in runs) == ["a", "b", "c"]
    assert all(len(run["rows"]) == 1 for run in runs)
    assert len(list(tmp_path.glob("wandb/run-*"))) == 1  # tried once
    (line,) = said(caplog)
    assert "cannot be used online" in line
    assert "\n" not in line
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_online_without_a_key_prompts_nobody_and_goes_offline(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tell_one_run(tmp_path, "online")
    assert only_run(tmp_path)["name"] == "a"
    assert "there is no API key" in said(caplog)[0]


@given(st.text(max_size=300), st.sampled_from(["train", "stage1", "trial-0007"]), st.text(max_size=80))
def test_an_id_is_short_and_of_safe_characters(group: str, name: str, identity: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", run_id(group, name, identity))
    assert run_id(group, name, identity) == run_id(group, name, identity)


def test_an_id_distinguishes_folders_and_runs() -> None:
    ids = {
        run_id(group, name, identity)
        for group in ("run", "r\u00fcn", "r/n", "run" * 100)
        for name in ("train", "stage1", "stage2", "trial-0001", "trial-0010")
        for identity in ("0123456789ab", "ba9876543210")
    }
    assert len(ids) >= 3 * 5 * 2  # two of the groups differ in an unsafe character alone


@pytest.mark.parametrize("group", ["my run", "a:b?c#d", "R\u00fcckgrat \u4e2d\u6587", "x" * 255])
def test_a_folder_of_any_name_gets_its_run(tmp_path: Path, group: str) -> None:
    tracker = build_tracker(project="p", group=group, mode="offline", folder=tmp_path, identity="0123456789ab")
    tracker.start(A)
    tracker.finish("a", DONE)
    tracker.close()
    assert only_run(tmp_path)["group"] == group[:128]


def test_a_foreign_wandb_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "debug.log").write_text("mine")
    with pytest.raises(UserError, match="holds wandb, which crossmodal did not write"):
        build_tracker(project="p", group="g", mode="offline", folder=tmp_path, identity="0123456789ab")
    assert [path.name for path in tmp_path.rglob("*")] == ["wandb", "debug.log"]


def test_a_disabled_tracker_does_nothing(tmp_path: Path, history: list[EpochMetrics]) -> None:
    tracker = build_tracker(project="p", group="demo", mode="disabled", folder=tmp_path, identity="0123456789ab")
    assert isinstance(tracker, NoTracker)
    tracker.start(A)
    tracker.epoch("a", history[0])
    tracker.finish("a", DONE)
    tracker.close()
    assert not any(tmp_path.iterdir())
