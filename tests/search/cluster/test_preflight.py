from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.campaign.campaign import Campaign
from core.config import TrainConfig
from core.errors import UserError
from search.cluster import preflight
from search.cluster.preflight import (
    NodeReport,
    _pieces,
    _raise_problems,
    _written_by,
    inspect_node,
    preflight_here,
    versions,
)
from search.session.storage import Storage


def report(**changes: Any) -> NodeReport:
    sound = NodeReport(host="n1", versions=versions(), missing_stores=[], storage_problem=None, gpu_problem=None)
    return replace(sound, **changes)


def test_a_healthy_node_raises_nothing() -> None:
    _raise_problems(report(), was_read_back=True)


@pytest.mark.parametrize(
    ("changes", "read_back", "message"),
    [
        ({"versions": {**versions(), "torch": "1.0"}}, True, r"node n1: torch is 1\.0 there but .* here"),
        ({"storage_problem": "Permission denied"}, False, r"node n1: storage cannot be written \(Permission denied\)"),
        ({}, False, "node n1: the driver cannot read what it writes to storage"),
        ({"gpu_problem": "torch sees no GPU"}, True, "node n1: torch sees no GPU"),
    ],
)
def test_a_problem_names_the_node(changes: dict[str, object], read_back: bool, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _raise_problems(report(**changes), was_read_back=read_back)


def test_a_node_reports_what_it_lacks_and_writes_where_the_driver_reads(tmp_path: Path) -> None:
    found = inspect_node(str(tmp_path / "store"), {"f": ()}, str(tmp_path), False, "token")
    assert found.missing_stores == ["f"]
    assert found.storage_problem is None
    assert _written_by(Storage(str(tmp_path)), "token")
    assert not _written_by(Storage(str(tmp_path)), "token")  # removed


def test_a_node_that_cannot_write_reports_it(tmp_path: Path) -> None:
    found = inspect_node(str(tmp_path), {}, str(tmp_path / "gone" / "deeper"), False, "token")
    assert found.storage_problem


@pytest.mark.parametrize(
    ("gpu", "device", "complains"), [(0.0, "auto", False), (0.5, "cpu", False), (0.5, "auto", True)]
)
def test_this_machine_is_asked_for_a_gpu_only_where_trials_use_one(
    campaign_of: Callable[..., Campaign],
    base: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gpu: float,
    device: str,
    complains: bool,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    train = base.with_overrides({"device": device}).model_dump(mode="json")
    campaign = campaign_of(train=train, resources={"gpu": gpu})
    expectation = pytest.raises(UserError, match="this machine: torch sees no GPU") if complains else nullcontext()
    with expectation:
        preflight_here(campaign, Storage(str(tmp_path)))


def test_this_machine_must_be_able_to_write_checkpoints(campaign_of: Callable[..., Campaign], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match="cannot be written"):
        preflight_here(campaign_of(), Storage(str(tmp_path / "file")))


def test_files_are_cut_into_pieces_that_know_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "PIECE_BYTES", 4)
    (tmp_path / "a").write_bytes(b"0123456789")
    assert list(_pieces(tmp_path / "a")) == [(0, b"0123"), (4, b"4567"), (8, b"89")]
