import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from core.campaign.campaign import Campaign
from core.config import TrainConfig, config_hash
from core.files.folders import CampaignFolder
from core.sections import dump_yaml
from search.study.ledger import AskedTrial, Ledger, TrialOutcome
from search.study.proposals import SearchProposals
from tests.conftest import epoch_metrics

CampaignOf = Callable[..., Campaign]


@pytest.fixture
def folder(tmp_path: Path) -> CampaignFolder:
    return CampaignFolder(tmp_path / "campaign")


def open_ledger(campaign: Campaign, folder: CampaignFolder, **binding: Any) -> Ledger:
    folder.root.mkdir(exist_ok=True)
    return Ledger(SearchProposals(campaign), folder, **{"identity": "id", "fingerprints": ["f"], **binding})


def counts(ledger: Ledger) -> tuple[int, int, int, int]:
    """Complete, pruned, failed, running."""
    standing = ledger.standing()
    return standing.complete, standing.pruned, standing.failed, standing.running


def complete(value: float) -> TrialOutcome:
    return TrialOutcome("complete", value, None, None, 0.5)


def run_all(ledger: Ledger, value: Callable[[int], float] = lambda number: number / 10) -> list[TrainConfig]:
    configs = []
    while planned := ledger.ask():
        ledger.record(planned.number, 0, value(planned.number))
        ledger.tell(planned.number, complete(value(planned.number)))
        configs.append(planned.config)
    return configs


def test_the_first_trial_is_the_baseline(campaign_of: CampaignOf, folder: CampaignFolder, base: TrainConfig) -> None:
    with open_ledger(campaign_of(), folder) as ledger:
        planned = ledger.ask()
        assert planned is not None
        assert (planned.number, config_hash(planned.config)) == (0, config_hash(base))


def test_a_campaign_ends_at_its_limit_and_is_extended_by_a_larger_one(
    campaign_of: CampaignOf, folder: CampaignFolder
) -> None:
    with open_ledger(campaign_of(), folder) as ledger:
        assert len(run_all(ledger)) == 4
        assert ledger.ask() is None
    with open_ledger(campaign_of(limits={"trials": 6}), folder) as ledger:
        assert len(run_all(ledger)) == 2
        assert counts(ledger) == (6, 0, 0, 0)
        assert ledger.standing().best == (5, 0.5)
        assert ledger.standing().baseline == 0.0


def test_running_trials_count_against_the_limit(campaign_of: CampaignOf, folder: CampaignFolder) -> None:
    with open_ledger(campaign_of(limits={"trials": 2}), folder) as ledger:
        assert ledger.ask() is not None
        assert ledger.ask() is not None
        assert ledger.ask() is None


def test_hours_are_a_limit_over_all_sessions(campaign_of: CampaignOf, folder: CampaignFolder) -> None:
    with open_ledger(campaign_of(limits={"trials": 9, "hours": 1e-9}), folder) as ledger:
        assert ledger.ask() is None
    with open_ledger(campaign_of(limits={"trials": 9, "hours": 1.0}), folder) as ledger:
        assert ledger.ask() is not None


def test_gpu_hours_are_kept_by_starting_nothing_that_would_go_beyond(
    campaign_of: CampaignOf, folder: CampaignFolder
) -> None:
    def spend_an_hour(ledger: Ledger) -> None:
        planned = ledger.ask()
        assert planned is not None
        ledger.tell(planned.number, TrialOutcome("complete", 0.1, None, None, 3600.0))

    limited = campaign_of(limits={"trials": 9, "gpu_hours": 1.6}, resources={"gpu": 0.5})
    with open_ledger(limited, folder) as ledger:
        spend_an_hour(ledger)
        spend_an_hour(ledger)
        assert ledger.spent().gpu_hours == 1.0
        assert ledger.ask() is not None  # 1.5 when it ends
        assert ledger.ask() is None  # 2.0 with another one beside it
    more = campaign_of(limits={"trials": 9, "gpu_hours": 2.1}, resources={"gpu": 0.5})
    with open_ledger(more, folder) as ledger:
        ledger.reconcile()
        spend_an_hour(ledger)
        assert ledger.ask() is not None


def test_the_time_of_an_interrupted_trial_counts(campaign_of: CampaignOf, folder: CampaignFolder) -> None:
    with open_ledger(campaign_of(limits={"trials": 9, "gpu_hours": 9.0}, resources={"gpu": 1}), folder) as ledger:
        planned = ledger.ask()
        assert planned is not None
        ledger.interrupt(planned.number, seconds=1800.0)
        assert ledger.spent().gpu_hours == 0.5
        assert ledger.standing().ended == 0


def test_a_new_session_does_not_repeat_the_first_draws(campaign_of: CampaignOf, folder: CampaignFolder) -> None:
    with open_ledger(campaign_of(), folder) as ledger:
        first = run_all(ledger)
    with open_ledger(campaign_of(limits={"trials": 8}), folder) as ledger:
        second = run_all(ledger)
    hashes = [config_hash(config) for config in [*first, *second]]
    assert len(set(hashes)) == 8


def test_equal_seeds_propose_equal_trials(campaign_of: CampaignOf, tmp_path: Path) -> None:
    proposals = []
    for name in ("a", "b"):
        with open_ledger(campaign_of(), CampaignFolder(tmp_path / name)) as ledger:
            proposals.append([config_hash(config) for config in run_all(ledger)])
    assert proposals[0] == proposals[1]


def test_trials_of_a_driver_that_was_killed_are_retried_once_and_count_once(
    campaign_of: CampaignOf, folder: CampaignFolder, tmp_path: Path
) -> None:
    campaign = campaign_of()
    (tmp_path / "campaign.yaml").write_text(dump_yaml(campaign))
    script = (
        "import os, sys; from pathlib import Path; from core.files.folders import CampaignFolder;"
        "from core.campaign.campaign import load_campaign; from search.study.ledger import Ledger;"
        "from search.study.proposals import SearchProposals; campaign = load_campaign(Path(sys.argv[1]));"
        "ledger = Ledger(SearchProposals(campaign), CampaignFolder(Path(sys.argv[2])), 'id', ['f']).__enter__();"
        "ledger.ask(); ledger.ask(); os._exit(9)"
    )
    folder.root.mkdir()
    command = [sys.executable, "-c", script, str(tmp_path / "campaign.yaml"), str(folder.root)]
    assert subprocess.run(command, check=False).returncode == 9
    with open_ledger(campaign, folder) as ledger:
        assert ledger.reconcile() == [0, 1]
        assert ledger.reconcile() == []
        retried = ledger.ask()
        assert retried is not None
        assert (retried.number, retried.lineage) == (2, [0])
        assert config_hash(retried.config) == config_hash(campaign.base)
        ledger.tell(2, complete(0.7))
        run_all(ledger)
        assert counts(ledger) == (4, 0, 0, 0)
        assert ledger.standing().baseline == 0.7


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_value_that_is_no_number_is_a_failure_with_a_reason(
    campaign_of: CampaignOf, folder: CampaignFolder, value: float | None
) -> None:
    with open_ledger(campaign_of(), folder) as ledger:
        assert ledger.ask() is not None
        ledger.tell(0, TrialOutcome("complete", value, None, None, 0.1))
        assert counts(ledger) == (0, 0, 1, 0)
        assert ledger.standing().best is None


def test_failures_in_a_row_stop_the_campaign_with_their_reasons(
    campaign_of: CampaignOf, folder: CampaignFolder
) -> None:
    with open_ledger(campaign_of(limits={"trials": 9}, max_failed_trials=3), folder) as ledger:
        for reason in ("out of memory", "diverged", "out of memory"):
            planned = ledger.ask()
            assert planned is not None
            ledger.tell(planned.number, TrialOutcome("failed", None, None, reason, 0.1))
        assert ledger.ask() is None
        assert ledger.stop_reason == "3 trials failed in a row (2 × out of memory; 1 × diverged)"


def test_a_bad_trial_is_pruned_but_never_the_baseline(campaign_of: CampaignOf, folder: CampaignFolder) -> None:
    pruner = {"kind": "asha", "min_epochs": 1, "reduction_factor": 2, "bootstrap": 1}
    with open_ledger(campaign_of(pruner=pruner), folder) as ledger:
        for expected, value in ((False, 0.9), (True, 0.1)):
            planned = ledger.ask()
            assert planned is not None
            ledger.record(planned.number, 0, value)
            assert ledger.should_stop(planned.number) == expected
        ledger.tell(1, TrialOutcome("pruned", 0.1, None, None, 0.1))
        ledger.record(0, 1, 0.0)
        assert not ledger.should_stop(0)
        assert counts(ledger) == (0, 1, 0, 1)


def interrupt(ledger: Ledger) -> AskedTrial:
    planned = ledger.ask()
    assert planned is not None
    ledger.interrupt(planned.number, seconds=1.0)
    return planned


def test_the_baseline_is_the_baseline_through_any_number_of_retries(
    campaign_of: CampaignOf, folder: CampaignFolder
) -> None:
    with open_ledger(campaign_of(), folder) as ledger:
        assert [interrupt(ledger).lineage for _ in range(4)] == [[], [0], [1, 0], [2, 1, 0]]
        planned = ledger.ask()
        assert planned is not None
        assert planned.lineage == [3, 2, 1, 0]
        ledger.record(planned.number, 0, 0.0)
        assert not ledger.should_stop(planned.number)
        ledger.tell(planned.number, complete(0.0))
        run_all(ledger, lambda number: 0.25)
        assert ledger.standing().baseline == 0.0
        assert ledger.standing().best == (5, 0.25)


def test_a_value_of_zero_is_a_value(campaign_of: CampaignOf, folder: CampaignFolder) -> None:
    with open_ledger(campaign_of(limits={"trials": 1}), folder) as ledger:
        run_all(ledger)
        assert ledger.standing().best == (0, 0.0)


def left_running(campaign: Campaign, folder: CampaignFolder) -> None:
    """What a driver leaves if it is killed while its first trial runs."""
    with open_ledger(campaign, folder) as ledger:
        assert ledger.ask() is not None


@pytest.mark.parametrize("write", ["enqueue_trial", "tell"])
def test_a_kill_between_any_two_writes_of_a_retry_loses_nothing_and_runs_nothing_twice(
    campaign_of: CampaignOf, folder: CampaignFolder, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise MemoryError

    left_running(campaign_of(), folder)
    with monkeypatch.context() as killed, open_ledger(campaign_of(), folder) as ledger:
        killed.setattr(ledger._study, write, fail)
        with pytest.raises(MemoryError):
            ledger.reconcile()
        assert ledger.standing().ended == 0
    with open_ledger(campaign_of(), folder) as ledger:
        assert ledger.reconcile() == [0]
        assert (ledger.standing().interrupted, ledger.standing().waiting) == (1, 1)
        configs = run_all(ledger)
        assert config_hash(configs[0]) == config_hash(campaign_of().base)
        assert len({config_hash(config) for config in configs}) == 4
        assert ledger.standing().baseline is not None


def test_a_baseline_whose_driver_died_before_it_was_drawn_stays_the_baseline(
    campaign_of: CampaignOf, folder: CampaignFolder
) -> None:
    with open_ledger(campaign_of(), folder) as ledger:
        ledger._study.ask()
    with open_ledger(campaign_of(), folder) as ledger:
        ledger.reconcile()
        planned = ledger.ask()
        assert planned is not None
        assert (planned.lineage, config_hash(planned.config)) == ([0], config_hash(campaign_of().base))


def test_a_trial_that_breaks_a_constraint_is_never_the_best(campaign_of: CampaignOf, folder: CampaignFolder) -> None:
    campaign = campaign_of(constraints={"box_iou": {"at_least": "baseline - 0.01"}}, limits={"trials": 3})
    boxes = [0.5, 0.3, 0.6]
    with open_ledger(campaign, folder) as ledger:
        while asked := ledger.ask():
            value = [0.2, 0.9, 0.4][asked.number]
            best = epoch_metrics(recall_mean=value, box_iou=boxes[asked.number])
            ledger.tell(asked.number, TrialOutcome("complete", value, best, None, 0.5))
        assert ledger.standing().best == (2, 0.4)
        assert [trial.broken for trial in ledger.trials()] == [(), ("box_iou",), ()]


def test_the_sampler_turns_to_settings_that_keep_the_constraints(
    campaign_of: CampaignOf, folder: CampaignFolder
) -> None:
    """The objective grows with dropout, and above 0.25 the boxes are lost: proposals gather below it."""
    proposed = {}
    for name, constraints in (("free", {}), ("bound", {"box_iou": {"at_least": 0.5}})):
        campaign = campaign_of(name=name, constraints=constraints, limits={"trials": 40})
        with open_ledger(campaign, CampaignFolder(folder.root.with_name(name))) as ledger:
            while asked := ledger.ask():
                dropout = asked.config.model.dropout
                best = epoch_metrics(recall_mean=dropout, box_iou=1.0 if dropout < 0.25 else 0.0)
                ledger.tell(asked.number, TrialOutcome("complete", dropout, best, None, 0.5))
            late = [float(trial.parameters["model.dropout"]) for trial in ledger.trials()[20:]]
            proposed[name] = sum(value < 0.25 for value in late) / len(late)
    assert proposed["bound"] > proposed["free"] + 0.25


def test_several_objectives_are_pruned_by_the_first_and_leave_a_front(
    campaign_of: CampaignOf, folder: CampaignFolder
) -> None:
    """Recall and box IoU of five trials; the fourth is worse in both, the last one better in boxes alone."""
    campaign = campaign_of(
        objectives=["recall_mean", {"box_iou": "max"}],
        limits={"trials": 5},
        pruner={"min_epochs": 1, "reduction_factor": 2, "bootstrap": 2},
    )
    figures = [(0.5, 0.5), (0.6, 0.4), (0.7, 0.3), (0.1, 0.2), (0.1, 0.9)]
    with open_ledger(campaign, folder) as ledger:
        while asked := ledger.ask():
            recall, boxes = figures[asked.number]
            ledger.record(asked.number, 0, recall, boxes)
            state: Literal["pruned", "complete"] = "pruned" if ledger.should_stop(asked.number) else "complete"
            best = epoch_metrics(recall_mean=recall, box_iou=boxes)
            ledger.tell(asked.number, TrialOutcome(state, recall, best, None, 0.5))
    with open_ledger(campaign, folder) as ledger:
        trials = ledger.trials()
        assert [trial.state for trial in trials] == ["complete", "complete", "complete", "pruned", "complete"]
        assert [trial.number for trial in trials if trial.on_front] == [0, 1, 2, 4]
        assert trials[3].reports == {1: (0.1, 0.2)}
        assert ledger.standing().best == (2, 0.7)


def test_a_goal_that_the_data_cannot_measure_fails_the_trial(campaign_of: CampaignOf, folder: CampaignFolder) -> None:
    campaign = campaign_of(objectives=["recall_mean", {"box_iou": "max"}], limits={"trials": 1})
    with open_ledger(campaign, folder) as ledger:
        assert ledger.ask() is not None
        best = epoch_metrics(recall_mean=0.5, box_iou=None)
        ledger.tell(0, TrialOutcome("complete", 0.5, best, None, 0.5))
        assert [(trial.state, trial.reason) for trial in ledger.trials()] == [("failed", "box_iou was not measured")]
