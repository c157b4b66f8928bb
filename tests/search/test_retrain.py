import os
import shutil
from pathlib import Path

import pytest

from analysis.leaderboard import rank
from analysis.status import read_status
from analysis.trials import load_trials
from core.campaign.campaign import load_campaign
from core.errors import UserError
from core.features.opening import open_features
from core.files.folders import CampaignFolder
from core.files.json_files import read_json
from core.files.ownership import claim_folder
from core.sections import dump_yaml
from core.training.runs import hold_run
from search.retrain import find_winner, in_two_stages, retrain
from tests.commands import CommandLine


def copy_of(campaign: CampaignFolder, tmp_path: Path) -> CampaignFolder:
    shutil.copytree(campaign.root, tmp_path / "copy", ignore=shutil.ignore_patterns("wandb", "sessions"))
    return CampaignFolder(tmp_path / "copy")


def test_the_winner_is_the_first_of_the_leaderboard(finished_campaign: CampaignFolder) -> None:
    best = rank(load_trials(finished_campaign)).iloc[0]
    winner = find_winner(finished_campaign)
    assert (winner.number, winner.value) == (best["number"], best["recall_mean"])


def test_a_single_stage_winner_is_split_as_the_campaign_does(finished_campaign: CampaignFolder) -> None:
    campaign = load_campaign(finished_campaign.campaign)
    single = campaign.base.with_overrides({"recipe.stage1_epochs": 0})
    split = in_two_stages(single, campaign.base.recipe, where=finished_campaign.root)
    assert (split.recipe.stage1_epochs, split.recipe.epochs) == (1, 3)


def test_the_winner_and_its_settings_are_those_of_the_study_whatever_became_of_its_files(
    finished_campaign: CampaignFolder, tmp_path: Path
) -> None:
    folder = copy_of(finished_campaign, tmp_path)
    best = find_winner(finished_campaign)
    files = folder.trial(best.number)
    files.metrics.unlink()
    files.best_checkpoint.unlink()
    files.config.write_text(dump_yaml(best.config.with_overrides({"recipe.stage1_epochs": 0})))
    assert find_winner(folder) == best
    assert read_status(folder).standing.best == (best.number, best.value)


def test_the_final_model_is_measured_on_the_test_split(finished_campaign: CampaignFolder, tmp_path: Path) -> None:
    winner = find_winner(finished_campaign)
    features = open_features(winner.config, with_test=True)
    final = retrain(winner, features, tmp_path)
    assert winner.was_single_stage or final.value == winner.value
    evaluation = final.card.find("building", reranked=False)
    assert evaluation.split == "test"
    assert features.test is not None
    assert evaluation.queries_image == len(features.test.images)
    written = read_json(tmp_path / "metrics.json")
    assert written["trial"] == winner.number
    assert written["evaluations"][2]["metrics"] == evaluation.metrics
    assert (tmp_path / "stage2" / "checkpoint_best.pth").exists()


def test_a_folder_without_a_campaign_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        find_winner(CampaignFolder(tmp_path))


@pytest.mark.parametrize("name", ["metrics.json", "stage1/log.txt", "experiment_summary.json"])
def test_foreign_files_are_refused_before_any_work(
    crossmodal: CommandLine, finished_campaign: CampaignFolder, tmp_path: Path, name: str
) -> None:
    theirs = tmp_path / "final" / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    outcome = crossmodal("retrain", finished_campaign.root, "--output-dir", tmp_path / "final")
    assert outcome.code == 2
    assert f"holds {name.split('/')[0]}, which crossmodal did not write" in outcome.err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [theirs]
    assert theirs.read_text() == "mine"


def test_a_folder_held_by_a_run_is_refused_by_name(
    crossmodal: CommandLine, finished_campaign: CampaignFolder, tmp_path: Path
) -> None:
    claim_folder(tmp_path, ["stage1", "stage2"])
    with hold_run(tmp_path / "stage2"):
        outcome = crossmodal("retrain", finished_campaign.root, "--output-dir", tmp_path)
    assert outcome.code == 2
    assert f"process {os.getpid()} on " in outcome.err
    assert not (tmp_path / "stage1").exists()
