"""Command lines with a mistake: one that the command understands but refuses, and one that it does not understand."""

from pathlib import Path

import pytest

from tests.commands import CommandLine
from tests.hostile.refusal import assert_refused, contents

REFUSED: dict[str, tuple[list[object], str]] = {
    "a configuration that is not there": (["train", "--config", "gone.yaml", "--output-dir", "run"], "gone.yaml"),
    "a campaign that is not there": (["search", "gone.yaml"], "gone.yaml"),
    "a plan of what is not there": (["plan", "gone.yaml"], "gone.yaml"),
    "annotations that are not there": (["data", "check", "gone.json"], "gone.json"),
    "a folder without annotations": (["data", "check", "."], "holds no annotation file"),
    "checkpoints that are not there": (
        ["compare", "--single_stage_checkpoint", "a.pth", "--two_stage_checkpoint", "b.pth", "--output_dir", "o"],
        "a.pth",
    ),
    "logs that are not there": (
        ["efficiency", "--single_stage_log", "a.txt", "--two_stage_log", "b.json", "--output_dir", "o"], "a.txt",
    ),
    "labels that are too few": (
        ["benchmark", "--checkpoints", "a.pth", "b.pth", "--labels", "A", "--output_dir", "o"], "labels",
    ),
    "an evaluation of nothing": (
        ["train", "--config", "empty.yaml", "--evaluate", "--output-dir", "o"], "--evaluate needs --checkpoint",
    ),
    "embeddings of a run": (
        ["train", "--config", "empty.yaml", "--save_embeddings", "--output-dir", "o"], "goes with --evaluate",
    ),
    "an address that nobody has": (
        ["search", "campaign.yaml", "--address", "http://127.0.0.1:1"], "http://127.0.0.1:1",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "expected"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refused_command_line(
    crossmodal: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.yaml").touch()
    (tmp_path / "campaign.yaml").write_text("name: a\ntrain: empty.yaml\nspace: {loss.itc: {log: [0.1, 1]}}\n")
    assert_refused(crossmodal, tmp_path, expected, *arguments)


NOT_UNDERSTOOD: dict[str, tuple[list[object], str]] = {
    "a misspelt command": (["serch", "campaign.yaml"], "No such command 'serch'"),
    "a misspelt option": (["search", "campaign.yaml", "--trails", 3], "No such option: --trails"),
    "an option without a value": (["train", "--config"], "Option '--config' requires an argument."),
    "a missing argument": (["search"], "CAMPAIGN.yaml"),
    "a missing option": (["train", "--config", "empty.yaml"], "--output-dir"),
    "text for a number": (
        ["search", "campaign.yaml", "--trials", "many"],
        "'--trials': Input should be a valid",
    ),
    "a fraction of a trial": (
        ["search", "campaign.yaml", "--trials", "2.5"],
        "'--trials': Input should be a valid",
    ),
    "no trials": (["search", "campaign.yaml", "--trials", 0], "'--trials': Input should be greater than"),
    "negative hours": (
        ["search", "campaign.yaml", "--hours", -1],
        "'--hours': Input should be greater than",
    ),
    "an unknown format": (["leaderboard", "small", "--format", "pdf"], "'pdf' is not one of"),
    "two campaigns": (["search", "a.yaml", "b.yaml"], "b.yaml"),
    "a seed too large": (["data", "synth", "out", "--seed", 2**40], "'--seed': Input should be less than or equal to"),
}


@pytest.mark.parametrize(("arguments", "expected"), NOT_UNDERSTOOD.values(), ids=NOT_UNDERSTOOD.keys())
def test_a_command_line_that_is_not_understood(
    crossmodal: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "empty.yaml").touch()
    before = contents(tmp_path)
    outcome = crossmodal(*arguments)
    assert outcome.code == 2
    assert expected in " ".join(outcome.err.replace("│", " ").split())
    assert "Traceback" not in outcome.err
    assert contents(tmp_path) == before
