import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from core.files import CampaignFolder, read_json
from tests.commands import CommandLine
from tests.conftest import CAMPAIGN, write_campaign


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda t: t.replace("loss.itm:", "loss.itmm:"), "loss.itmm is not a setting; did you mean loss.itm?"),
        (lambda t: t.replace("limits:", "limit:"), "limit is not a setting; did you mean limits"),
        (lambda t: t.replace("train.yaml", "gone.yaml"), "gone.yaml: there is no such file"),
        (lambda t: t.replace("[1.0e-4, 1.0e-2]", "[1.0e-2, 1.0e-4]"), "is not below the upper bound"),
        (lambda t: t.replace("{int: [0, 2]}", "{int: [0, 9]}"), "has an invalid corner"),
        (lambda t: t.replace("{trials: 5}", "{trials: 0}"), "limits.trials"),
        (lambda t: t + "objective: loss\n", "objective"),
        (lambda t: t + "name: twice\n", "name is given twice"),
    ],
)
def test_a_mistake_in_the_campaign_is_one_line_before_anything_starts(
    crossmodal: CommandLine, demo: Path, tmp_path: Path, wrong: Callable[[str], str], message: str
) -> None:
    path = write_campaign(tmp_path, demo, wrong(CAMPAIGN))
    outcome = crossmodal("search", path, "--output-dir", tmp_path / "out")
    assert outcome.code == 2
    assert message in outcome.err
    assert str(tmp_path) in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_retrain_prints_its_plan_and_the_test_figures(
    crossmodal: CommandLine, finished_campaign: CampaignFolder, tmp_path: Path
) -> None:
    outcome = crossmodal("retrain", finished_campaign.root, "--output-dir", tmp_path / "final")
    assert outcome.code == 0, outcome.err
    assert "in two stages" in outcome.out
    assert "95 %" in outcome.out
    assert read_json(tmp_path / "final" / "metrics.json")["evaluations"][0]["split"] == "test"


@pytest.mark.parametrize("command", ["retrain", "leaderboard"])
def test_a_folder_that_holds_no_campaign_is_one_line(crossmodal: CommandLine, tmp_path: Path, command: str) -> None:
    extra = ["--output-dir", tmp_path / "final"] if command == "retrain" else []
    outcome = crossmodal(command, tmp_path, *extra)
    assert outcome.code == 2
    assert len(outcome.err.strip().splitlines()) == 1
    assert not (tmp_path / "final").exists()


def named_commands() -> set[str]:
    """What follows `crossmodal` in the strings of the source, as far as it may be a command."""
    root = Path(__file__).parents[2]
    texts = [
        node.value
        for package in ("core", "search", "analysis")
        for path in root.glob(f"{package}/*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return {found for text in texts for found in re.findall(r"crossmodal ((?:data |features )?[a-z][a-z-]*)", text)}


def test_a_message_that_names_a_command_names_one_that_exists(crossmodal: CommandLine) -> None:
    prose = {"did"}  # 'which crossmodal did not write'
    named = named_commands() - prose
    assert "features extract" in named
    for command in named:
        assert crossmodal(*command.split(), "--help").code == 0, command
