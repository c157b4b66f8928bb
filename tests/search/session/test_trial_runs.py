from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from core.campaign.campaign import Campaign
from core.campaign.trials import STALE, TrialRecord
from core.config import TrainConfig
from core.features.store import Features
from core.files.folders import CampaignFolder
from core.records import EpochMetrics
from core.tracked_runs import NoTracker, RunEnd, RunStart, Shown, ShownTable
from core.training.train import train
from search.session.trial_runs import track_leaderboard, trial_end, trial_start


@pytest.fixture
def metrics(planted_features: Features, small_config: TrainConfig) -> EpochMetrics:
    return train(small_config.with_overrides({"recipe.epochs": 1}), planted_features).history[0]


def test_a_trial_is_a_run_of_its_kind(small_config: TrainConfig) -> None:
    searched = trial_start("demo", TrialRecord(12, "running", 3, retry_of=3), small_config)
    assert (searched.name, searched.job) == ("trial-0012", "search")
    assert (searched.config["campaign"], searched.config["trial"], searched.config["retry_of"]) == ("demo", 12, 3)
    assert "confirms" not in searched.config
    assert "baseline" not in searched.tags
    repeat = trial_start("demo", TrialRecord(3, "running", 3, confirms=12, seed=2), small_config)
    assert (repeat.name, repeat.job) == ("confirm-0003-trial-0012-seed-2", "confirm")
    assert repeat.config["confirms"] == 12


@pytest.mark.parametrize(
    "trial",
    [
        TrialRecord(0, "running", 0),
        TrialRecord(9, "running", 0, retry_of=0),
        TrialRecord(9, "running", 9, confirms=0, seed=2),
    ],
)
def test_the_baseline_is_tagged(trial: TrialRecord, small_config: TrainConfig) -> None:
    assert "baseline" in trial_start("demo", trial, small_config).tags


def test_what_confirms_another_trial_first_is_no_baseline(small_config: TrainConfig) -> None:
    assert "baseline" not in trial_start("demo", TrialRecord(0, "running", 0, confirms=7, seed=1), small_config).tags


def test_complete_and_pruned_trials_have_the_figures_of_their_best_epoch(metrics: EpochMetrics) -> None:
    best = replace(metrics, epoch=3, recall_mean=0.5)
    trials = [
        TrialRecord(0, "complete", 0, value=0.25, best=metrics),
        TrialRecord(
            1, "pruned", 1, value=0.5, best=best, reports=dict.fromkeys(range(1, 6), (0.5,)), seconds=2.0, session=1
        ),
    ]
    end = trial_end(trials, trials[1], parameters=1234)
    assert (end.state, end.failed) == ("pruned", False)
    expected = {"recall_mean": 0.5, "best_value": 0.5, "best_epoch": 3, "gain_over_baseline": 0.25, "epochs": 5}
    assert {name: end.summary[name] for name in expected} == expected
    assert (end.summary["parameters"], end.summary["seconds"]) == (1234, 2.0)


@pytest.mark.parametrize(("reason", "state"), [("no memory", "failed"), (STALE, "interrupted")])
def test_a_failed_or_interrupted_trial_has_no_figures_to_be_sorted_by(
    metrics: EpochMetrics, reason: str, state: str
) -> None:
    trial = TrialRecord(0, "failed", 0, value=0.9, best=metrics, reason=reason)
    end = trial_end([trial], trial, parameters=None)
    assert (end.state, end.failed, end.summary["reason"]) == (state, True, reason)
    assert not {"recall_mean", "best_value", "gain_over_baseline"} & end.summary.keys()


def test_a_trial_pruned_before_its_joint_stage_has_no_figures() -> None:
    trial = TrialRecord(0, "pruned", 0, reports={1: (0.1,), 2: (0.1,)})
    assert "recall_mean" not in trial_end([trial], trial, parameters=None).summary


class Board(NoTracker):
    """Keeps the table that is shown; holds runs of some names."""

    def __init__(self, held: str = "") -> None:
        self.held = held
        self.started: list[RunStart] = []
        self.tables: list[ShownTable] = []
        self.ends: list[RunEnd] = []

    def holds(self, name: str) -> bool:
        return name == self.held

    def start(self, run: RunStart) -> None:
        self.started.append(run)

    def show(self, name: str, title: str, shown: Shown) -> None:
        assert isinstance(shown, ShownTable)
        self.tables.append(shown)

    def finish(self, name: str, end: RunEnd) -> None:
        self.ends.append(end)


def ranked(metrics: EpochMetrics) -> list[TrialRecord]:
    return [
        TrialRecord(
            0, "complete", 0, value=0.25, best=replace(metrics, recall_mean=0.25), parameters={"loss.itm": 1.0}
        ),
        TrialRecord(1, "complete", 1, value=1 / 3, best=replace(metrics, recall_mean=1 / 3), parameters={"seed": 1}),
        TrialRecord(2, "pruned", 2, value=0.9, best=replace(metrics, recall_mean=0.9)),
        TrialRecord(3, "failed", 3, reason="no memory"),
        TrialRecord(4, "running", 4),
    ]


def test_the_leaderboard_is_named_by_the_trials_that_it_ranks(
    campaign_of: Callable[..., Campaign], metrics: EpochMetrics, folder_of: Path
) -> None:
    board, campaign = Board(), campaign_of()
    assert track_leaderboard(board, campaign, CampaignFolder(folder_of), ranked(metrics))
    (start,), (table,), (end,) = board.started, board.tables, board.ends
    assert (start.name, start.job) == ("leaderboard-0004-trials", "leaderboard")
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [row["run"] for row in rows] == ["trial-0001", "trial-0000", "trial-0002"]
    assert [row["rank"] for row in rows] == [1, 2, None]
    assert [row["recall_mean"] for row in rows] == [1 / 3, 0.25, 0.9]
    assert [row["loss.itm"] for row in rows] == [None, 1.0, None]
    assert (end.summary["best_value"], end.summary["gain_over_baseline"]) == (1 / 3, 1 / 3 - 0.25)


def test_a_ranking_is_written_once_and_only_if_there_is_one(
    campaign_of: Callable[..., Campaign], metrics: EpochMetrics, folder_of: Path
) -> None:
    folder = CampaignFolder(folder_of)
    assert not track_leaderboard(Board("leaderboard-0004-trials"), campaign_of(), folder, ranked(metrics))
    assert track_leaderboard(Board("leaderboard-0003-trials"), campaign_of(), folder, ranked(metrics))
    board = Board()
    assert not track_leaderboard(board, campaign_of(), folder, [TrialRecord(0, "failed", 0, reason="no memory")])
    assert not board.started
