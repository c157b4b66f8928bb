import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from core.campaign.campaign import load_campaign
from core.campaign.trials import Standing
from core.errors import UserError
from core.files.folders import CampaignFolder
from core.files.json_files import read_json
from core.sections import dump_yaml
from search.campaign import SessionEnd
from search.cli import _print_outcome
from tests.commands import COMMAND, CommandLine, environment
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


def as_process(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, env=environment(variables), capture_output=True, text=True, encoding="ascii")


def test_a_terminal_that_knows_only_ascii_gets_ascii(finished_campaign: CampaignFolder) -> None:
    plain = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    board = as_process("leaderboard", finished_campaign.root, "--format", "md", "--by", "i2t_r1", **plain)
    assert board.returncode == 0, board.stderr
    missing = as_process("status", "hier-ist-keine-Übersicht–×", **plain)
    assert missing.returncode == 2
    assert missing.stderr.startswith("error: hier-ist-keine-")
    assert "Traceback" not in missing.stderr


@pytest.mark.parametrize("columns", ["1", "40"])
def test_a_narrow_terminal_loses_no_figure(finished_campaign: CampaignFolder, tmp_path: Path, columns: str) -> None:
    folder = CampaignFolder(shutil.copytree(finished_campaign.root, tmp_path / "small"))
    wide, narrow = (
        as_process("leaderboard", folder.root, PYTHONIOENCODING="ascii", COLUMNS=width) for width in ("200", columns)
    )
    assert narrow.returncode == 0, narrow.stderr
    figures = [set(re.findall(r"[-+]?[0-9]+\.[0-9]", outcome.stdout)) for outcome in (wide, narrow)]
    assert figures[0] == figures[1]
    for command in ("status", "report"):
        assert as_process(command, folder.root, COLUMNS=columns, PYTHONIOENCODING="ascii").returncode == 0


def test_a_closed_pipe_is_no_error(finished_campaign: CampaignFolder) -> None:
    command = [*COMMAND, "leaderboard", str(finished_campaign.root), "--format", "json"]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as stdout:
        done = subprocess.run(command, env=environment(), stdout=stdout, stderr=subprocess.PIPE, text=True)
    assert done.stderr == ""


def test_if_no_trial_finished_a_search_reports_why(demo: Path, tmp_path: Path) -> None:
    end = SessionEnd(Standing(failed=2))
    folder = CampaignFolder(tmp_path)
    started = load_campaign(write_campaign(tmp_path / "source", demo))
    folder.campaign.write_text(dump_yaml(started))
    storage = JournalStorage(JournalFileBackend(str(folder.journal)))
    study = optuna.create_study(study_name="small", storage=storage)
    for _ in range(2):
        trial = study.ask()
        trial.set_user_attr("reason", "no GPU")
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    with pytest.raises(UserError, match=r"no trial has finished: 2 failed \(2 × no GPU\)"):
        _print_outcome(end, "recall_mean", folder)


@pytest.mark.parametrize("address", ["http://foo", "foo", "ray://", "host:99999"])
def test_an_address_is_checked_before_any_work(
    crossmodal: CommandLine, demo: Path, tmp_path: Path, address: str
) -> None:
    campaign = write_campaign(tmp_path, demo)
    train = tmp_path / "train.yaml"
    train.write_text(train.read_text().replace(str(demo / "features"), str(tmp_path / "store")))
    search = crossmodal("search", campaign, "--output-dir", tmp_path / "out", "--address", address)
    extract = crossmodal("features", "extract", "--config", train, "--address", address)
    assert search.code == extract.code == 2
    assert search.err == extract.err
    assert "--address" in search.err
    assert len(search.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "store").exists()


@pytest.fixture
def copied(finished_campaign: CampaignFolder, tmp_path: Path) -> CampaignFolder:
    ignored = shutil.ignore_patterns("wandb", "sessions")
    return CampaignFolder(shutil.copytree(finished_campaign.root, tmp_path / "small", ignore=ignored))


def test_limits_are_changed_and_shown(crossmodal: CommandLine, copied: CampaignFolder) -> None:
    assert crossmodal("limits", copied.root).out == "limits: 5 trials\n"
    changed = crossmodal("limits", copied.root, "--trials", 300, "--hours", 20)
    assert changed.out == "limits before: 5 trials\nlimits now: 300 trials, 20 hours; driver: none\n"
    assert "limits 300 trials, 20 hours" in crossmodal("status", copied.root).out
    assert crossmodal("limits", copied.root, "--trials", 300).out == "limits: 300 trials, 20 hours\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [(("--gpu-hours", 3), "resources.gpu is 0"), (("--hours", 0), "limits.hours"), (("--trials", 10**7), "limits.tr")],
)
def test_an_impossible_limit_is_one_line(
    crossmodal: CommandLine, copied: CampaignFolder, options: tuple[object, ...], message: str
) -> None:
    outcome = crossmodal("limits", copied.root, *options)
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
    assert not copied.limits.exists()


def test_limits_of_a_foreign_folder_are_one_line(crossmodal: CommandLine, tmp_path: Path) -> None:
    outcome = crossmodal("limits", tmp_path, "--trials", 3)
    assert outcome.code == 2
    assert "holds no campaign" in outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sampler: {kind: cmaes}", "sampler.kind: cmaes needs cmaes, which is not installed"),
        ("warm_start: [./nowhere]", "nowhere: holds no campaign"),
    ],
)
def test_what_a_campaign_lacks_is_one_line_before_anything_is_extracted(
    crossmodal: CommandLine, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, message: str
) -> None:
    monkeypatch.setitem(sys.modules, "cmaes", None)
    path = write_campaign(tmp_path, demo, f"{CAMPAIGN}{line}\n")
    train = tmp_path / "train.yaml"
    train.write_text(train.read_text().replace(str(demo / "features"), str(tmp_path / "store")))
    outcome = crossmodal("search", path, "--output-dir", tmp_path / "out")
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "store").exists()
