import csv
import json
import shutil
import signal
from pathlib import Path

import pytest

from analysis.confirmation import best_confirmed, load_confirmation
from core.campaign.study import read_confirmations, read_trials
from core.config import load_config
from core.errors import UserError
from core.features.opening import open_features
from core.files.folders import CampaignFolder
from core.files.json_files import read_json_lines
from core.training.train import train
from search.confirm import propose_confirmation
from tests.commands import CommandLine, finish, run, start, wait_until
from tests.conftest import made_once


@pytest.fixture(scope="session")
def confirmed_campaign(finished_campaign: CampaignFolder, tmp_path_factory: pytest.TempPathFactory) -> CampaignFolder:
    """A finished campaign and its best trial, confirmed with two seeds by real Ray workers; to be read only."""

    def make(work: Path) -> None:
        shutil.copytree(finished_campaign.root, work / "small")
        outcome = run("confirm", "small", "--top", 1, "--seeds", 2, cwd=work)
        assert outcome.code == 0, outcome.err
        (work / "printed").write_text(outcome.out)

    return CampaignFolder(made_once(tmp_path_factory, "confirmed", make) / "small")


def test_the_best_trials_and_the_baseline_are_proposed_with_fresh_seeds(finished_campaign: CampaignFolder) -> None:
    proposals = propose_confirmation(finished_campaign, top=2, seeds=3)
    values = {trial.number: trial.value or 0.0 for trial in read_trials(finished_campaign)}
    best = sorted(values, key=lambda number: -values[number])[:2]
    assert list(proposals.parents) == list(dict.fromkeys([0, *best]))
    assert proposals.campaign.base.seed not in proposals.seeds
    assert len(proposals.seeds) == 3


@pytest.mark.slow
def test_every_repeat_differs_from_its_trial_in_the_seed_alone(confirmed_campaign: CampaignFolder) -> None:
    repeats = read_confirmations(confirmed_campaign)
    pairs = {(repeat.confirms, repeat.seed) for repeat in repeats}
    assert len(pairs) == len(repeats) == 2 * len({parent for parent, _ in pairs})
    for repeat in repeats:
        assert repeat.confirms is not None
        config = load_config(confirmed_campaign.confirmation.trial(repeat.number).config)
        assert config.seed == repeat.seed
        parent = load_config(confirmed_campaign.trial(repeat.confirms).config)
        assert config.with_overrides({"seed": parent.seed}) == parent


@pytest.mark.slow
def test_a_repeat_gives_what_training_it_alone_gives(confirmed_campaign: CampaignFolder) -> None:
    files = confirmed_campaign.confirmation.trial(0)
    config = load_config(files.config)
    alone = train(config, open_features(config)).history
    assert [row["recall_mean"] for row in read_json_lines(files.metrics)] == [each.recall_mean for each in alone]


@pytest.mark.slow
def test_means_are_those_of_the_study_and_printed(confirmed_campaign: CampaignFolder) -> None:
    confirmed = load_confirmation(confirmed_campaign)
    values = {(repeat.confirms, repeat.seed): repeat.value for repeat in read_confirmations(confirmed_campaign)}
    for each in confirmed:
        assert list(each.values) == [values[each.trial, seed] for seed in each.seeds]
        assert each.mean.value == pytest.approx(sum(each.values) / len(each.values))
        assert each.mean.low <= each.mean.value <= each.mean.high
    best = best_confirmed(confirmed_campaign)
    assert best == confirmed[0]
    printed = (confirmed_campaign.root.parent / "printed").read_text()
    said = f"trial {best.trial} has the best mean, " if best.trial else "no trial has a better mean than the baseline, "
    assert f"{said}{best.mean.value:.4f}" in printed


@pytest.mark.slow
def test_the_status_names_the_confirmed_trial(crossmodal: CommandLine, confirmed_campaign: CampaignFolder) -> None:
    best = best_confirmed(confirmed_campaign)
    assert best is not None
    assert f"confirmed: trial {best.trial}, mean recall_mean {best.mean.value:.4f} of 2 seeds" in (
        crossmodal("status", confirmed_campaign.root).out
    )
    found = json.loads(crossmodal("status", confirmed_campaign.root, "--json").out)["confirmed"]
    assert (found["trial"], found["seeds"], found["mean"]) == (best.trial, 2, best.mean.to_json())


@pytest.mark.slow
def test_the_leaderboard_is_renewed_with_the_confirmed_figures(confirmed_campaign: CampaignFolder) -> None:
    with confirmed_campaign.leaderboard.with_suffix(".csv").open() as stream:
        rows = list(csv.DictReader(stream))
    confirmed = load_confirmation(confirmed_campaign)
    assert [row["standing"] for row in rows[: len(confirmed)]] == ["confirmed"] * len(confirmed)
    figures = {
        int(row["number"]): (float(row["recall_mean"]), float(row["t2i_r5_low"])) for row in rows[: len(confirmed)]
    }
    assert figures == {each.trial: (each.mean.value, each.figures["t2i_r5"].low) for each in confirmed}
    for each in confirmed:  # the samples of a repeat are those that its epoch was scored by
        assert each.figures["recall_mean"].value == pytest.approx(each.mean.value, abs=1e-12)
        assert each.figures["box_iou"].low <= each.figures["box_iou"].value <= each.figures["box_iou"].high


@pytest.mark.slow
def test_the_search_itself_is_left_as_it_was(
    confirmed_campaign: CampaignFolder, finished_campaign: CampaignFolder
) -> None:
    assert read_trials(confirmed_campaign) == read_trials(finished_campaign)
    assert confirmed_campaign.journal.read_bytes() == finished_campaign.journal.read_bytes()


@pytest.mark.slow
def test_an_interrupted_confirmation_goes_on_and_more_seeds_add_only_themselves(
    confirmed_campaign: CampaignFolder, tmp_path: Path
) -> None:
    folder = CampaignFolder(tmp_path / "small")
    shutil.copytree(confirmed_campaign.root, folder.root)
    before = len(read_confirmations(folder))
    more = ("confirm", "small", "--top", 1, "--seeds", 3)
    with start(*more, cwd=tmp_path) as process:
        wait_until(lambda: any(trial.state == "running" for trial in read_confirmations(folder)), during=process)
        process.send_signal(signal.SIGKILL)
        finish(process)
    outcome = run(*more, cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    done = [repeat for repeat in read_confirmations(folder) if repeat.state == "complete"]
    pairs = [(repeat.confirms, repeat.seed) for repeat in done]
    assert 2 * len(pairs) == 2 * len(set(pairs)) == 3 * before
    assert {each.trial: len(each.seeds) for each in load_confirmation(folder)} == {parent: 3 for parent, _ in pairs}


def test_a_campaign_without_a_complete_trial_cannot_be_confirmed(crossmodal: CommandLine, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no campaign"):
        propose_confirmation(CampaignFolder(tmp_path), top=1, seeds=2)
    outcome = crossmodal("confirm", tmp_path)
    assert outcome.code == 2
    assert "holds no campaign" in outcome.err


def test_nothing_is_confirmed_before_the_command(finished_campaign: CampaignFolder) -> None:
    assert load_confirmation(finished_campaign) == []
    assert best_confirmed(finished_campaign) is None
