"""Folders of campaigns and runs of which one file is broken."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from core.files.folders import CampaignFolder
from tests.commands import CommandLine
from tests.hostile.refusal import assert_refused

Damage = Callable[[CampaignFolder], object]


@pytest.fixture
def folder(finished_campaign: CampaignFolder, tmp_path: Path) -> CampaignFolder:
    shutil.copytree(finished_campaign.root, tmp_path / "small")
    return CampaignFolder(tmp_path / "small")


def written(name: str, content: bytes) -> Damage:
    return lambda folder: (folder.root / name).write_bytes(content)


def removed(name: str) -> Damage:
    return lambda folder: (folder.root / name).unlink()


def torn(name: str) -> Damage:
    return lambda folder: (folder.root / name).write_bytes((folder.root / name).read_bytes()[:60])


def replaced_by_a_folder(name: str) -> Damage:
    def damage(folder: CampaignFolder) -> None:
        (folder.root / name).unlink()
        (folder.root / name).mkdir()

    return damage


RECEIPT, CONFIG, METRICS = "trials/0000/receipt.json", "trials/0000/config.yaml", "trials/0000/metrics.jsonl"
FOLDERS: dict[str, tuple[Damage, str, str]] = {
    "no campaign file": (removed("campaign.yaml"), "leaderboard", "holds no campaign"),
    "half a campaign file": (torn("campaign.yaml"), "leaderboard", "campaign.yaml"),
    "an empty campaign file": (written("campaign.yaml", b""), "leaderboard", "campaign.yaml"),
    "a campaign file of another kind": (written("campaign.yaml", b"seed: 1\n"), "status", "campaign.yaml"),
    "a campaign file of bytes": (written("campaign.yaml", b"\xff\xfe"), "status", "campaign.yaml"),
    "a campaign file that is a folder": (replaced_by_a_folder("campaign.yaml"), "status", "campaign.yaml"),
    "no journal": (removed("study.journal"), "leaderboard", "study.journal: is missing or empty, though there are"),
    "an empty journal": (written("study.journal", b""), "leaderboard", "is missing or empty, though there are trials"),
    "a journal of text": (written("study.journal", b"hello\n"), "leaderboard", "study.journal"),
    "a journal of other JSON": (written("study.journal", b'{"a": 1}\n[1]\n'), "leaderboard", "study.journal"),
    "a journal of bytes": (written("study.journal", b"\0" * 300), "leaderboard", "study.journal"),
    "a journal that is a folder": (replaced_by_a_folder("study.journal"), "leaderboard", "study.journal"),
    "a journal of another kind of entry": (
        written("study.journal", b'{"op_code": 99, "worker_id": "x"}\n'), "leaderboard", "study.journal",
    ),
    "half a receipt": (torn(RECEIPT), "leaderboard", "receipt.json"),
    "a receipt that is a list": (written(RECEIPT, b"[1, 2]"), "leaderboard", "receipt.json"),
    "a receipt of other fields": (written(RECEIPT, b'{"epochs": "many"}'), "leaderboard", "receipt.json"),
    "limits that are text": (written("limits.yaml", b"trials: many\n"), "status", "limits.yaml"),
    "limits of another kind": (written("limits.yaml", b"trails: 3\n"), "status", "limits.yaml"),
    "features that are a list": (written("features.json", b"[]"), "retrain", "features.json"),
    "half of the features": (torn("features.json"), "retrain", "features.json"),
    "an identity that is a list": (written("identity.json", b"[]"), "confirm", "identity.json"),
    "no identity": (removed("identity.json"), "confirm", "which crossmodal did not write"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "command", "expected"), FOLDERS.values(), ids=FOLDERS.keys())
def test_a_broken_campaign_folder(
    crossmodal: CommandLine, folder: CampaignFolder, damage: Damage, command: str, expected: str
) -> None:
    damage(folder)
    options = ["--output-dir", folder.root / "final"] if command == "retrain" else []
    assert_refused(crossmodal, folder.root, expected, command, folder.root, *options)


FOREIGN: dict[str, tuple[list[object], str]] = {
    "a folder that is not there": (["leaderboard", "gone"], "gone"),
    "a folder of something else": (["leaderboard", "thesis"], "thesis"),
    "a file": (["status", "thesis/thesis.tex"], "thesis.tex"),
    "a report of something else": (["report", "thesis"], "thesis"),
    "the dashboard of something else": (["dashboard", "thesis"], "thesis"),
    "runs of something else": (["track", "thesis"], "thesis"),
    "limits of something else": (["limits", "thesis", "--trials", 3], "thesis"),
    "a repeated trial of something else": (["rerun", "thesis", "--trial", 0], "thesis"),
    "a confirmation of something else": (["confirm", "thesis"], "thesis"),
    "a model of something else": (["retrain", "thesis", "--output-dir", "final"], "thesis"),
}


@pytest.mark.parametrize(("arguments", "expected"), FOREIGN.values(), ids=FOREIGN.keys())
def test_a_folder_that_is_no_campaign(
    crossmodal: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], expected: str
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("mine")
    monkeypatch.chdir(tmp_path)
    assert_refused(crossmodal, tmp_path, expected, *arguments)
