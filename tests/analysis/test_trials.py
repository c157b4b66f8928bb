import shutil
from pathlib import Path

import pytest

from analysis.trials import load_history, load_trials
from core.errors import UserError
from core.files.folders import CampaignFolder
from core.files.json_files import read_json_lines


def test_one_row_a_trial_with_the_figures_of_its_best_epoch(finished_campaign: CampaignFolder) -> None:
    trials = load_trials(finished_campaign)
    assert trials["number"].tolist() == [0, 1, 2, 3, 4]
    assert set(trials["state"]) == {"complete"}
    for _, trial in trials.iterrows():
        history = read_json_lines(finished_campaign.trial(int(trial["number"])).metrics)
        joint = [row for row in history if row["stage"] == history[-1]["stage"]]
        best = max(joint, key=lambda row: row["recall_mean"])
        assert trial["value"] == trial["recall_mean"] == best["recall_mean"]
        assert trial["best_epoch"] == best["epoch"]
        assert trial["t2i_r1"] == best["t2i_r1"]


def test_searched_settings_are_columns(finished_campaign: CampaignFolder) -> None:
    trials = load_trials(finished_campaign)
    assert trials["param:optimizer.learning_rate"].between(1e-4, 1e-2).all()
    single = trials["param:recipe.stage1_epochs"] == 0
    assert trials.loc[single, "param:recipe.stage2_lr_scale"].isna().all()


def test_history_has_one_row_an_epoch(finished_campaign: CampaignFolder) -> None:
    history = load_history(finished_campaign)
    assert len(history) == 5 * 3
    assert history.groupby("number")["epoch"].apply(list).tolist() == [[0, 1, 2]] * 5


def test_a_torn_last_line_of_the_journal_is_not_read(finished_campaign: CampaignFolder, tmp_path: Path) -> None:
    shutil.copytree(finished_campaign.root, tmp_path / "c", ignore=shutil.ignore_patterns("wandb", "sessions"))
    folder = CampaignFolder(tmp_path / "c")
    before = folder.journal.read_bytes()
    folder.journal.write_bytes(before + b'{"op_code": 4, "worker')
    assert load_trials(folder)["number"].tolist() == [0, 1, 2, 3, 4]
    assert folder.journal.read_bytes().startswith(before)


def test_a_folder_without_a_campaign_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no campaign"):
        load_trials(CampaignFolder(tmp_path))


def test_a_study_that_is_being_created_is_reported(finished_campaign: CampaignFolder, tmp_path: Path) -> None:
    folder = CampaignFolder(tmp_path)
    folder.campaign.write_text(finished_campaign.campaign.read_text())
    for content in (None, b"", b'{"op_code": 0, "stu'):
        if content is not None:
            folder.journal.write_bytes(content)
        with pytest.raises(UserError, match="holds no study yet; wait for its first trial"):
            load_trials(folder)
