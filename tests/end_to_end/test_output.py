"""What commands write where: JSON alone on stdout, colours and progress on terminals only, exit codes, completion."""

import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from core.config import TrainConfig
from core.files.folders import CampaignFolder
from core.sections import dump_yaml
from tests.commands import COMMAND, LAST_RESORT_S, CommandLine, Outcome, environment, run

ROOT = Path(__file__).parents[2]
ANSI = "\x1b["
SNAKE_CASE = re.compile(r"[a-z][a-z0-9_]*")
Ask = Callable[..., Any]


@pytest.fixture
def campaign(finished_campaign: CampaignFolder, tmp_path: Path) -> CampaignFolder:
    shutil.copytree(finished_campaign.root, tmp_path / "c", ignore=shutil.ignore_patterns("wandb", "sessions"))
    return CampaignFolder(tmp_path / "c")


@pytest.fixture
def ask(crossmodal: CommandLine) -> Ask:
    """The value that a command prints with --json, which is all that it prints on stdout."""

    def ask(*arguments: object) -> Any:
        outcome = crossmodal(*arguments, "--json")
        assert outcome.code == 0, outcome.err
        return json.loads(outcome.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    return ask


def test_a_campaign_as_json(ask: Ask, campaign: CampaignFolder) -> None:
    status = ask("status", campaign.root)
    assert (status["campaign"], status["trials"]["complete"], status["driver"]) == ("small", 5, "none")
    assert status["best"]["gain"] >= 0
    board = ask("leaderboard", campaign.root)
    assert board[0]["number"] == status["best"]["trial"]
    limits = ask("limits", campaign.root, "--trials", 7)
    assert (limits["before"]["trials"], limits["now"]["trials"]) == (5, 7)
    assert status["limits"] == limits["before"]
    for names in (status, status["best"], limits, limits["now"]):
        assert all(map(SNAKE_CASE.fullmatch, names))


def test_a_repeated_trial_as_json(ask: Ask, campaign: CampaignFolder) -> None:
    repeated = ask("rerun", campaign.root, "--trial", 1)
    assert repeated == {"trial": 1, "epochs": 3, "changes": [], "notes": []}


def test_json_and_another_format_contradict(crossmodal: CommandLine, campaign: CampaignFolder) -> None:
    outcome = crossmodal("leaderboard", campaign.root, "--format", "csv", "--json")
    assert (outcome.code, outcome.out) == (2, "")
    assert "contradict" in outcome.err


def test_runs_as_json(ask: Ask, crossmodal: CommandLine, demo_config: TrainConfig, tmp_path: Path) -> None:
    """From the plan to a comparison, on one small run; the files have the same content."""
    config, out = tmp_path / "train.yaml", tmp_path / "out"
    config.write_text(dump_yaml(demo_config))
    campaign = tmp_path / "campaign.yaml"
    campaign.write_text("name: a\ntrain: train.yaml\nspace: {loss.itm: {log: [0.1, 1.0]}}\n")
    plan = ask("plan", campaign, "--output-dir", tmp_path / "none")
    assert (plan["trials_left"], plan["trials_per_gpu"]) == (100, None)
    assert plan["extraction"][0]["costs"][0]["reading"] == "tower.mean"
    info = ask("features", "info", "--config", config)
    assert info["fingerprint"] == plan["extraction"][0]["fingerprint"]
    assert [(each["kind"], each["name"]) for each in info["readings"]] == [
        ("images", "tower.mean"),
        ("texts", "lm.last"),
    ]
    assert crossmodal("train", "--config", config, "--output-dir", out / "run").code == 0
    checkpoint = out / "run" / "checkpoint_1.pth"
    told = ["--config", config, "--checkpoint", checkpoint, "--output-dir", out / "test"]
    measured = ask("train", "--evaluate", *told)
    assert measured == json.loads((out / "test" / "metrics.json").read_text())
    pair = ["--single-stage-checkpoint", checkpoint, "--two-stage-checkpoint", checkpoint]
    compared = ask("compare", *pair, "--output-dir", out / "compared")
    assert compared == json.loads((out / "compared" / "comparison.json").read_text())
    labelled = ["--checkpoints", checkpoint, "--labels", "a"]
    assert ask("benchmark", *labelled, "--output-dir", out / "benchmark")[0]["label"] == "a"
    refused = crossmodal("train", "--config", config, "--output-dir", out / "other", "--json")
    assert (refused.code, refused.out) == (2, "")
    assert "--json goes with --evaluate" in refused.err


def on_terminal(*arguments: object, columns: int = 40, extra: dict[str, str] | None = None) -> Outcome:
    """Run a command on a pseudo-terminal of this width, which stdout and stderr share."""
    ours, theirs = pty.openpty()
    settings = {**environment(extra), "COLUMNS": str(columns), "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdin=theirs, stdout=theirs, stderr=theirs, env=settings, close_fds=True
    )
    os.close(theirs)
    received = b""
    with suppress(OSError):  # EIO: the process has ended
        while part := os.read(ours, 1 << 16):
            received += part
    os.close(ours)
    return Outcome(process.wait(timeout=LAST_RESORT_S), received.decode(), "")


def test_colours_and_progress_are_for_terminals(tmp_path: Path) -> None:
    synth = ["data", "synth", tmp_path / "drawn", "--buildings", 2, "--images-per-building", 1]
    piped = run(*synth, cwd=tmp_path)
    assert piped.code == 0
    assert ANSI not in piped.out + piped.err
    assert len(piped.out.splitlines()) == 1
    shown = on_terminal(*synth)
    assert "drawing synthetic scenes" in shown.out
    assert f"{ANSI}3" in shown.out


def test_a_table_is_whole_on_a_narrow_terminal(campaign: CampaignFolder) -> None:
    shown = on_terminal("leaderboard", campaign.root, columns=40)
    assert shown.code == 0
    assert "…" not in shown.out
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown.out)
    rows = [line for line in plain.splitlines() if re.match(r"# \d", line)]
    assert len(rows) == 5
    assert max(map(len, rows)) <= 40


def test_a_mistake_is_red_on_a_terminal_and_plain_in_a_pipe(tmp_path: Path) -> None:
    piped, shown = run("status", tmp_path, cwd=tmp_path), on_terminal("status", tmp_path)
    assert (piped.code, shown.code) == (2, 2)
    assert piped.err.startswith("error: ")
    assert f"{ANSI}31m" in shown.out
    assert f"{ANSI}3" not in on_terminal("status", tmp_path, extra={"NO_COLOR": "1"}).out


def test_a_reader_that_stops_early_is_no_traceback(campaign: CampaignFolder) -> None:
    board = shlex.join([*COMMAND, "leaderboard", str(campaign.root), "--format", "html"])
    outcome = subprocess.run(
        ["bash", "-c", f"{board} | head -c 1"], capture_output=True, text=True, env=environment(), check=True
    )
    assert (outcome.stdout, outcome.stderr) == ("<", "")


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The environment of a shell that finds `crossmodal`."""
    command = tmp_path / "bin" / "crossmodal"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\nfrom search.cli import main\nmain()\n")
    command.chmod(0o755)
    return environment({"PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)})


def in_bash(script: str, settings: dict[str, str]) -> str:
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=settings).stdout


def test_bash_completes_commands_and_options(installed: dict[str, str]) -> None:
    completed = in_bash(
        """
        eval "$(crossmodal --show-completion)"
        COMP_WORDS=(crossmodal sta) COMP_CWORD=1; $(complete -p crossmodal | grep -o "_[a-z_]*") crossmodal
        echo "${COMPREPLY[@]}"
        COMP_WORDS=(crossmodal rerun --tr) COMP_CWORD=2; $(complete -p crossmodal | grep -o "_[a-z_]*") crossmodal
        echo "${COMPREPLY[@]}"
        """,
        installed,
    )
    assert completed.split() == ["status", "--trial"]


def test_zsh_gets_a_script_and_its_answers(installed: dict[str, str]) -> None:
    script = in_bash("crossmodal", installed | {"_CROSSMODAL_COMPLETE": "source_zsh"})
    assert script.lstrip().startswith("#compdef crossmodal")
    asked = {"_CROSSMODAL_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "crossmodal rerun --tr"}
    assert '"--trial":"Number of the trial' in in_bash("crossmodal", installed | asked)
