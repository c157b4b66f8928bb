"""Runs of a real campaign, rebuilt from its files and compared with those that were written while it ran."""

import shutil
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from core.campaign.study import read_trials
from core.campaign.trials import TrialRecord
from core.features.opening import open_features
from core.files.folders import CampaignFolder
from core.files.ownership import claim_folder, hold_folder
from core.records import best_epoch
from core.tracked_runs import Tracker
from core.tracking import build_tracker
from core.training.train import train
from search.campaign import claim
from search.confirm import propose_confirmation
from search.session.trial_log import TrialLog
from search.study.ledger import Ledger, TrialOutcome
from search.track import OpenTracker, Rebuilt, rebuild_runs
from tests.commands import CommandLine, run
from tests.wandb_files import read_runs

RUNS = ["leaderboard-0005-trials", *(f"trial-{number:04d}" for number in range(5))]


@pytest.fixture
def untracked(finished_campaign: CampaignFolder, tmp_path: Path) -> CampaignFolder:
    """A copy of a campaign that has no runs."""
    shutil.copytree(finished_campaign.root, tmp_path / "copy", ignore=shutil.ignore_patterns("wandb", "sessions"))
    return CampaignFolder(tmp_path / "copy")


def offline(project: str = "crossmodal-search") -> OpenTracker:
    return lambda root, identity: build_tracker(
        project=project, group="small", mode="offline", folder=root, identity=identity
    )


def rebuild(folder: CampaignFolder, project: str = "crossmodal-search") -> Rebuilt:
    rebuilt = rebuild_runs(folder, offline(project))
    assert rebuilt.problems == 0
    return rebuilt


def without_times(run: dict[str, Any]) -> dict[str, Any]:
    """What was written about a run, without W&B's own clock and versions, and the places of its tables."""
    times = ("_runtime", "_timestamp", "_wandb", "_wandb.runtime")
    kept = {name: value for name, value in run.items() if name not in ("artifacts", "config", "rows", "summary")}
    config = {name: value for name, value in run["config"].items() if name not in times}
    summary = {name: value for name, value in run["summary"].items() if name not in times}
    if run["job_type"] == "leaderboard":
        return {**kept, "config": config}
    rows = [{name: value for name, value in row.items() if name not in times} for row in run["rows"]]
    return {**kept, "config": config, "rows": rows, "summary": summary}


def test_rebuilt_runs_are_those_that_were_written_while_the_campaign_ran(
    finished_campaign: CampaignFolder, untracked: CampaignFolder
) -> None:
    rebuilt = rebuild(untracked)
    assert (rebuilt.written, rebuilt.known, rebuilt.notes) == (6, 0, [])
    live, after = read_runs(finished_campaign.root), read_runs(untracked.root)
    assert sorted(after) == sorted(live) == RUNS
    for name in RUNS:
        assert without_times(after[name]) == without_times(live[name])


def confirm(folder: CampaignFolder, tracker: Tracker) -> None:
    """Run a confirmation of the best trial and the baseline with two seeds, as the driver does but without Ray."""
    proposals, files = propose_confirmation(folder, top=1, seeds=2), folder.confirmation
    with hold_folder(files.root, files.NAMES) as identity:
        claim(proposals.campaign, files)
        with Ledger(proposals, files, identity, ["f"]) as ledger, closing(TrialLog(ledger, files, tracker)) as log:
            while asked := ledger.ask():
                log.begin(asked)
                result = train(asked.config, open_features(asked.config))
                for metrics in result.history:
                    log.epoch(asked.number, metrics, [metrics.recall_mean])
                best = best_epoch(result.history, "recall_mean")
                outcome = TrialOutcome("complete", best.recall_mean, best, None, 1.0)
                log.end(asked.number, outcome, result.receipt, result.last)


def test_a_confirmation_is_rebuilt_as_it_was_written(untracked: CampaignFolder) -> None:
    root = untracked.confirmation.root
    identity = claim_folder(root, untracked.NAMES)
    with closing(offline()(root, identity)) as tracker:
        confirm(untracked, tracker)
    live = read_runs(root)
    shutil.rmtree(root / "wandb")
    rebuilt = rebuild(untracked)
    assert (rebuilt.written, rebuilt.notes) == (6 + len(live), [])
    after = read_runs(root)
    assert {name: without_times(found) for name, found in after.items()} == {
        name: without_times(found) for name, found in live.items()
    }
    assert {found["job_type"] for found in after.values()} == {"confirm"}
    value = {(found["config"]["confirms"], found["config"]["seed"]): found for found in after.values()}
    for (parent, seed), found in value.items():
        baseline = value[0, seed]["summary"]["best_value"]
        assert found["summary"]["gain_over_baseline"] == found["summary"]["best_value"] - baseline
        assert ("baseline" in found["tags"]) == (parent == 0)
    assert sorted(seed for _, seed in value) == sorted([1, 2] * (len(value) // 2))
    assert rebuild(untracked).written == 0


def test_tracking_twice_writes_nothing_twice(untracked: CampaignFolder) -> None:
    rebuild(untracked)
    again = rebuild(untracked)
    assert (again.written, again.known) == (0, 5)
    assert sorted(read_runs(untracked.root)) == RUNS
    elsewhere = rebuild(untracked, "another")
    assert (elsewhere.written, elsewhere.known) == (6, 0)


def test_a_campaign_that_was_tracked_needs_nothing(finished_campaign: CampaignFolder, tmp_path: Path) -> None:
    shutil.copytree(finished_campaign.root, tmp_path / "copy", ignore=shutil.ignore_patterns("sessions"))
    assert rebuild(CampaignFolder(tmp_path / "copy")).written == 0


def test_lost_epochs_are_named_and_the_figures_are_still_the_studys(untracked: CampaignFolder) -> None:
    lost = untracked.trial(3).metrics
    lost.unlink()
    rebuilt = rebuild(untracked)
    assert rebuilt.notes == [f"{lost} lacks 3 of 3 epochs"]
    found = read_runs(untracked.root)["trial-0003"]
    assert found["rows"] == []
    assert found["summary"]["recall_mean"] == trial(untracked, 3).value


def trial(folder: CampaignFolder, number: int) -> TrialRecord:
    return read_trials(folder)[number]


def test_the_command_says_what_it_wrote_and_what_was_there(
    crossmodal: CommandLine, untracked: CampaignFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    first = crossmodal("track", untracked.root)
    assert (first.code, first.out) == (0, "6 runs written to project crossmodal-search, 0 were there before\n")
    again = crossmodal("track", untracked.root)
    assert (again.code, again.out) == (0, "0 runs written to project crossmodal-search, 5 were there before\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--project", "a/b"], "--project: project: must be a name of 1 to 100 characters"),
        (["--to", "tensorboard"], "tensorboard"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    crossmodal: CommandLine, untracked: CampaignFolder, arguments: list[str], message: str
) -> None:
    before = sorted(untracked.root.rglob("*"))
    outcome = crossmodal("track", untracked.root, *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert sorted(untracked.root.rglob("*")) == before


def test_a_folder_without_a_campaign_is_refused(crossmodal: CommandLine, tmp_path: Path) -> None:
    outcome = crossmodal("track", tmp_path)
    assert (outcome.code, len(outcome.err.strip().splitlines())) == (2, 1)
    assert "holds no campaign" in outcome.err


@pytest.mark.parametrize("part", ["small", "confirmation"])
def test_while_a_driver_writes_runs_they_are_not_written_again(
    crossmodal: CommandLine, untracked: CampaignFolder, part: str
) -> None:
    folder = untracked.confirmation if part == "confirmation" else untracked
    with hold_folder(folder.root, folder.NAMES):
        outcome = crossmodal("track", untracked.root)
    assert outcome.code == 2
    assert "is working in this folder" in outcome.err
    assert not (untracked.root / "wandb").exists()


def test_disabled_tracking_is_refused(
    crossmodal: CommandLine, untracked: CampaignFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    outcome = crossmodal("track", untracked.root)
    assert outcome.code == 2
    assert "Weights & Biases is disabled by the environment" in outcome.err


def test_without_mlflow_one_line_says_what_to_install(
    crossmodal: CommandLine, untracked: CampaignFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)  # as if it were not installed
    outcome = crossmodal("track", untracked.root, "--to", "mlflow")
    assert outcome.code == 2
    assert outcome.err == "error: --to mlflow: MLflow is not installed; run pip install mlflow-skinny\n"


def test_a_campaign_goes_to_a_local_mlflow_store_once(
    untracked: CampaignFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="MLflow is not installed (the extra mlflow)")
    from mlflow import MlflowClient

    first = run("track", untracked.root, "--to", "mlflow", cwd=tmp_path)
    assert first.code == 0, first.err
    assert first.out == "6 runs written to project crossmodal-search, 0 were there before\n"
    again = run("track", untracked.root, "--to", "mlflow", cwd=tmp_path)
    assert again.out == "0 runs written to project crossmodal-search, 5 were there before\n"
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # to read it; the command needs nobody to set it
    client = MlflowClient(str(untracked.root / "mlruns"))
    (experiment,) = (each for each in client.search_experiments() if each.name == "crossmodal-search")
    found = {each.info.run_name: each for each in client.search_runs([experiment.experiment_id])}
    assert sorted(found) == RUNS
    for record in read_trials(untracked):
        assert record.best is not None
        assert found[record.name].data.metrics["recall_mean"] == record.best.recall_mean
        assert found[record.name].data.params["optimizer.learning_rate"] == str(
            record.parameters["optimizer.learning_rate"]
        )
