"""Lost files of trials, and their restoration."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.board_formats import to_csv
from analysis.boards import read_boards
from analysis.lost_files import lost_of_trial
from core.campaign.campaign import load_campaign
from core.campaign.study import read_trials
from core.config import load_config
from core.errors import UserError
from core.files.folders import CampaignFolder
from search.study.restore import restore_files, trial_config
from tests.commands import CommandLine


@pytest.fixture
def campaign(finished_campaign: CampaignFolder, tmp_path: Path) -> CampaignFolder:
    shutil.copytree(finished_campaign.root, tmp_path / "c", ignore=shutil.ignore_patterns("wandb", "sessions"))
    return CampaignFolder(tmp_path / "c")


def restore(folder: CampaignFolder) -> list[str]:
    return restore_files(load_campaign(folder.campaign), folder, read_trials(folder))


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize("lose", [Path.unlink, tear])
@pytest.mark.parametrize("name", ["config", "metrics", "receipt"])
def test_a_lost_file_is_reported_and_restored_unchanged(
    campaign: CampaignFolder, name: str, lose: Callable[[Path], None]
) -> None:
    path = getattr(campaign.trial(2), name)
    before = path.read_text()
    lose(path)
    assert lost_of_trial(campaign.trial(2), pruned=False, epochs=3) == [path]
    (note,) = restore(campaign)
    assert note.startswith(f"trials/0002/{path.name} was missing or torn: restored from")
    assert path.read_text() == before
    assert restore(campaign) == []


def test_a_lost_checkpoint_is_reported_with_the_command_that_repeats_the_trial(campaign: CampaignFolder) -> None:
    campaign.trial(1).best_checkpoint.unlink()
    campaign.trial(1).metrics.unlink()
    notes = restore(campaign)
    assert len(notes) == 2
    assert all(f"crossmodal train --config {campaign.trial(1).config} repeats the trial" in note for note in notes)


def test_the_leaderboard_is_that_of_the_study_whatever_files_are_lost(
    campaign: CampaignFolder, crossmodal: CommandLine
) -> None:
    before = to_csv(read_boards([campaign]))
    for number in range(5):
        campaign.trial(number).metrics.unlink()
    assert to_csv(read_boards([campaign])) == before
    for command in ("leaderboard", "status", "report"):
        outcome = crossmodal(command, campaign.root)
        assert outcome.code == 0, outcome.err
        assert "trials/0004/metrics.jsonl is missing or torn" in outcome.out


def test_a_trials_settings_follow_from_the_study(campaign: CampaignFolder) -> None:
    loaded = load_campaign(campaign.campaign)
    parameters = {"optimizer.learning_rate": 0.005, "loss.itm.on": False, "recipe.stage1_epochs": 0}
    config = trial_config(loaded, parameters)
    assert (config.optimizer.learning_rate, config.loss.itm) == (0.005, 0)
    assert load_config(campaign.trial(0).config) == loaded.base
    with pytest.raises(UserError, match="do not fit the space"):
        trial_config(loaded, {"optimizer.learning_rate": 0.005})
