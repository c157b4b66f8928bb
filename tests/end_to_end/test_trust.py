"""The content of a campaign folder is read, never run; secrets stay out of it."""

import os
import pickle
import shutil
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from core.files.folders import CampaignFolder
from tests.commands import CommandLine, run

pytestmark = pytest.mark.slow
SECRET = "5e7c0de5e7c0de5e7c0de5e7c0de5e7c0de5e7c0"  # has the length of a W&B key


class Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.mark),)


def plant(folder: CampaignFolder, mark: Path) -> None:
    """A pickle in place of everything that an earlier session may have left, and a trial that would load it."""
    bait = pickle.dumps(Evil(mark))
    session = folder.sessions / "1"
    places = [
        session / "0005" / "checkpoint_000000" / "checkpoint.pth",
        session / "0005" / "params.pkl",
        session / "0005" / ".metadata.pkl",
        session / "experiment_state-2026-01-01_00-00-00.json",
        session / "searcher-state-2026-01-01_00-00-00.pkl",
        session / "search_gen_state-2026-01-01_00-00-00.json",
        session / "tuner.pkl",
        folder.trial(1).best_checkpoint,
        folder.trial(1).metrics,
    ]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(bait)
    optuna.load_study(
        study_name="small", storage=JournalStorage(JournalFileBackend(str(folder.journal)))
    ).ask()  # like a driver that died


def test_nothing_in_a_campaign_folder_is_unpickled_and_no_key_reaches_it(
    crossmodal: CommandLine, finished_campaign: CampaignFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = CampaignFolder(shutil.copytree(finished_campaign.root, tmp_path / "small"))
    campaign = Path(shutil.copy(folder.campaign, tmp_path / "again.yaml"))
    mark = tmp_path / "was-run"
    plant(folder, mark)
    secret = {"WANDB_API_KEY": SECRET, "WANDB_MODE": "offline"}
    for name, value in secret.items():
        monkeypatch.setenv(name, value)
    more = run("search", campaign, "--output-dir", folder.root, "--trials", 6, cwd=tmp_path, extra=secret)
    assert more.code == 0, more.err
    for command in ("status", "leaderboard", "report"):
        assert crossmodal(command, folder.root).code == 0
    retrained = run("retrain", folder.root, "--output-dir", tmp_path / "final", cwd=tmp_path, extra=secret)
    assert retrained.code == 0, retrained.err
    assert not mark.exists()
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("wandb" in path.parts for path in written)
    assert [path for path in written if SECRET.encode() in path.read_bytes()] == []
