import json
import re
import shutil
from pathlib import Path

import pytest

from analysis.confirmation import Confirmed
from core.files.folders import CampaignFolder
from core.files.json_files import read_json, read_json_lines
from core.model.checkpoints import load_checkpoint
from core.records import Interval
from core.sections import dump_yaml
from core.terminal.console import print_json
from search.winner import find_winner
from search.winner_cli import confirmation_json, print_confirmation
from tests.commands import CommandLine, Outcome


@pytest.fixture
def campaign(finished_campaign: CampaignFolder, tmp_path: Path) -> CampaignFolder:
    shutil.copytree(finished_campaign.root, tmp_path / "c", ignore=shutil.ignore_patterns("wandb", "sessions"))
    return CampaignFolder(tmp_path / "c")


def retrained(crossmodal: CommandLine, campaign: CampaignFolder, *options: object) -> Outcome:
    outcome = crossmodal("retrain", campaign.root, "--output-dir", campaign.root / "final", *options)
    assert outcome.code == 0, outcome.err
    return outcome


def test_retrain_compares_with_the_winner_and_leaves_a_card(crossmodal: CommandLine, campaign: CampaignFolder) -> None:
    winner = find_winner(campaign)
    out = retrained(crossmodal, campaign).out
    assert f"retraining trial {winner.number} (validation {winner.value:.4f}) in two stages: " in out
    assert ("the trial was single-stage" in out) == winner.was_single_stage
    told = re.search(r"validation recall_mean ([\d.]+); trial (\d+) had ([\d.]+)\nDifference ([+-][\d.]+), ", out)
    assert told is not None
    assert float(told[1]) - float(told[3]) == pytest.approx(float(told[4]), abs=2e-4)
    assert re.search(r": (better|worse|not distinguishable)$", out, flags=re.MULTILINE)
    assert f"its model card is {campaign.root / 'final' / 'model_card.md'}" in out
    assert "Re-ranking, chosen on this split: " in (campaign.root / "final" / "model_card.md").read_text()


def test_the_second_time_shows_what_was_read_the_first_time(crossmodal: CommandLine, campaign: CampaignFolder) -> None:
    tables = retrained(crossmodal, campaign).out.split("test split, relevance")[1:]
    again = retrained(crossmodal, campaign).out
    assert again.split("test split, relevance")[1:] == tables
    assert read_json(campaign.root / "final" / "metrics.json")["test_reads"] == 1
    assert "the test split was read 2 times for this model" in retrained(crossmodal, campaign, "--again").out
    assert read_json(campaign.root / "final" / "metrics.json")["test_reads"] == 2


def test_other_commands_read_the_test_split_of_a_final_model_only_when_asked(
    crossmodal: CommandLine, campaign: CampaignFolder, tmp_path: Path
) -> None:
    retrained(crossmodal, campaign)
    best = campaign.root / "final" / "stage2" / "checkpoint_best.pth"
    (tmp_path / "train.yaml").write_text(dump_yaml(load_checkpoint(best).config))
    evaluate = ["train", "--evaluate", "--config", tmp_path / "train.yaml", "--checkpoint", best]
    benchmark = ["benchmark", "--checkpoints", best, "--labels", "final"]
    compare = ["compare", "--single-stage-checkpoint", best, "--two-stage-checkpoint", best]
    for number, command in enumerate((evaluate, benchmark, compare), start=2):
        output = tmp_path / str(command[0])
        refused = crossmodal(*command, "--output-dir", output)
        assert refused.code == 2
        assert "the test split was read for this model" in refused.err
        assert "--again reads it once more" in refused.err
        assert len(refused.err.strip().splitlines()) == 1
        assert not output.exists()
        assert crossmodal(*command, "--output-dir", output, "--again").code == 0
        assert read_json(campaign.root / "final" / "metrics.json")["test_reads"] >= number
    assert read_json(tmp_path / "train" / "metrics.json")["test_reads"] == 2
    notes = (tmp_path / "benchmark" / "benchmark.md").read_text()
    assert "the test split was read 3 times for this model" in notes


def test_again_goes_with_evaluate(crossmodal: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text("{}")
    outcome = crossmodal("train", "--config", tmp_path / "train.yaml", "--output-dir", tmp_path / "run", "--again")
    assert (outcome.code, "--again goes with --evaluate" in outcome.err) == (2, True)


def test_on_all_prints_no_validation_figure(crossmodal: CommandLine, campaign: CampaignFolder) -> None:
    out = retrained(crossmodal, campaign, "--on", "all").out
    assert "on the training and validation buildings" in out
    epochs = [line for line in out.splitlines() if line.startswith("epoch ")]
    assert epochs
    assert not any("R@1" in line or "recall" in line for line in epochs)
    assert "validation split" not in out
    assert "validation recall_mean" not in out
    best = load_checkpoint(campaign.root / "final" / "stage2" / "checkpoint_best.pth")
    assert best.config.data.train_on == "all"


def test_as_searched_keeps_the_stages_of_the_trial(crossmodal: CommandLine, campaign: CampaignFolder) -> None:
    out = retrained(crossmodal, campaign, "--as-searched").out
    single = find_winner(campaign).was_single_stage
    assert ("in one stage" in out) == single
    assert (campaign.root / "final" / "stage2").exists() != single
    assert "Difference +0.0000, paired 95 % interval over buildings +0.0000 to +0.0000: not distinguishable" in out


def test_a_repeated_trial_that_comes_out_the_same_exits_with_0(
    crossmodal: CommandLine, campaign: CampaignFolder
) -> None:
    before = {path: path.read_bytes() for path in campaign.root.rglob("*") if path.is_file()}
    outcome = crossmodal("rerun", campaign.root, "--trial", 1)
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[-1] == "trial 1: all figures of 3 epochs are the same"
    assert {path: path.read_bytes() for path in campaign.root.rglob("*") if path.is_file()} == before


def test_a_repeated_trial_that_differs_says_where_and_exits_with_1(
    crossmodal: CommandLine, campaign: CampaignFolder
) -> None:
    log = campaign.trial(1).metrics
    rows = read_json_lines(log)
    rows[2]["t2i_r5"] += 0.125
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    outcome = crossmodal("rerun", campaign.root, "--trial", 1)
    assert outcome.code == 1
    changed = f"epoch 2: t2i_r5 {rows[2]['t2i_r5']:.6g} → {rows[2]['t2i_r5'] - 0.125:.6g} (-0.12)"
    assert outcome.out.splitlines()[-2:] == [changed, "trial 1: the figures of 1 of 3 epochs differ"]


def test_a_trial_that_is_not_there_is_one_line(crossmodal: CommandLine, campaign: CampaignFolder) -> None:
    outcome = crossmodal("rerun", campaign.root, "--trial", 99)
    assert (outcome.code, len(outcome.err.strip().splitlines())) == (2, 1)
    assert "holds no trial 99" in outcome.err


def confirmed(trial: int, mean: float, gain: Interval, rank: int = 1) -> Confirmed:
    return Confirmed(
        trial, rank, [1, 2], [mean, mean], Interval(mean, mean - 0.02, mean + 0.02), gain, searched=mean + 0.015
    )


@pytest.mark.parametrize(
    ("low", "said"), [(0.05, "and beats the baseline"), (-0.01, "and cannot be told from the baseline")]
)
def test_the_last_line_says_whether_the_winner_beats_the_baseline(
    capsys: pytest.CaptureFixture[str], low: float, said: str
) -> None:
    print_confirmation(
        [confirmed(7, 0.72, Interval(0.1, low, 0.15)), confirmed(0, 0.62, Interval(0, 0, 0), rank=2)], "recall_mean", 0
    )
    printed = " ".join(capsys.readouterr().out.split())
    assert f"trial 7 has the best mean, 0.7200, {said}; the search said 0.7350" in printed
    assert "0 (baseline)" in printed
    assert "+1.5" in printed


def test_a_confirmation_as_json_has_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(confirmation_json([confirmed(7, 0.72, Interval(0.1, 0.05, 0.15))], "small", "recall_mean"))
    told = json.loads(capsys.readouterr().out)
    assert (told["campaign"], told["objective"]) == ("small", "recall_mean")
    (trial,) = told["confirmed"]
    assert (trial["trial"], trial["mean"]["value"], trial["gain"]["low"]) == (7, 0.72, 0.05)
    assert trial["curse"] == pytest.approx(0.015)


def test_a_search_that_found_nothing_better_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    print_confirmation(
        [confirmed(0, 0.62, Interval(0, 0, 0)), confirmed(7, 0.6, Interval(-0.02, -0.05, 0.01))], "recall_mean", 0
    )
    assert "no trial has a better mean than the baseline, 0.6200" in capsys.readouterr().out


def test_a_folder_without_a_campaign_is_named(crossmodal: CommandLine, tmp_path: object) -> None:
    outcome = crossmodal("confirm", tmp_path)
    assert outcome.code == 2
    assert "holds no campaign" in outcome.err
    assert "Traceback" not in outcome.err
