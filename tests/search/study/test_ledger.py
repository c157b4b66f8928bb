import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from core.campaign.campaign import Campaign
from core.config import TrainConfig, config_hash, dump_yaml
from core.errors import UserError
from core.files.folders import CampaignFolder
from search.study.ledger import Counts, Ledger, PlannedTrial, TrialOutcome

CampaignOf = Callable[..., Campaign]


@pytest.fixture
def folder(tmp_path: Path) -> CampaignFolder:
    return CampaignFolder(tmp_path / "campaign")


def open_ledger(campaign: Campaign, folder: CampaignFolder, **binding: Any) -> Ledger:
    folder.root.mkdir(exist_ok=True)
    return Ledger(campaign, folder, **{"identity": "id", "fingerprints": ["f"], **binding})


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
        assert ledger.counts() == Counts(complete=6, pruned=0, failed=0, running=0)
        assert ledger.best() == (5, 0.5)
        assert ledger.baseline_value() == 0.0


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
        assert ledger.gpu_hours == 1.0
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
        assert ledger.gpu_hours == 0.5
        assert ledger.counts().ended == 0


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
        "ledger = Ledger(load_campaign(Path(sys.argv[1])), CampaignFolder(Path(sys.argv[2])), 'id', ['f']).__enter__();"
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
        assert ledger.counts() == Counts(complete=4, pruned=0, failed=0, running=0)
        assert ledger.baseline_value() == 0.7


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_value_that_is_no_number_is_a_failure_with_a_reason(
    campaign_of: CampaignOf, folder: CampaignFolder, value: float | None
) -> None:
    with open_ledger(campaign_of(), folder) as ledger:
        assert ledger.ask() is not None
        ledger.tell(0, TrialOutcome("complete", value, None, None, 0.1))
        assert ledger.counts() == Counts(complete=0, pruned=0, failed=1, running=0)
        assert ledger.best() is None


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


def test_a_bad_trial_is_given_up_but_never_the_baseline(campaign_of: CampaignOf, folder: CampaignFolder) -> None:
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
        assert ledger.counts() == Counts(complete=0, pruned=1, failed=0, running=1)


def test_the_study_of_another_campaign_is_refused(campaign_of: CampaignOf, folder: CampaignFolder) -> None:
    with open_ledger(campaign_of(), folder) as ledger:
        run_all(ledger)
    with (
        pytest.raises(UserError, match="the study test belongs to another campaign"),
        open_ledger(campaign_of(), folder, identity="another"),
    ):
        pass
    for changed in ({"fingerprints": ["g"]}, {}):
        campaign = campaign_of() if changed else campaign_of(sampler={"seed": 9})
        with (
            pytest.raises(UserError, match="started with other settings or features"),
            open_ledger(campaign, folder, **changed),
        ):
            pass
    with open_ledger(campaign_of(limits={"trials": 9}), folder) as ledger:
        assert ledger.counts().complete == 4


def test_a_study_that_another_program_made_is_refused(campaign_of: CampaignOf, folder: CampaignFolder) -> None:
    folder.root.mkdir()
    study = optuna.create_study(storage=JournalStorage(JournalFileBackend(str(folder.journal))), study_name="test")
    study.enqueue_trial({"x": 1})
    with pytest.raises(UserError, match="another program"), open_ledger(campaign_of(), folder):
        pass
    assert [trial.params for trial in study.trials] == [{}]


def test_a_study_begun_anew_does_not_write_over_the_trials_of_the_old_one(
    campaign_of: CampaignOf, folder: CampaignFolder
) -> None:
    folder.trial(3).root.mkdir(parents=True)
    (folder.trial(3).root.parent / "0003-backup").mkdir()
    with pytest.raises(UserError, match="the study knows 0 trials, but the folder holds 0003"):
        open_ledger(campaign_of(), folder).__enter__()
    assert not folder.journal.exists()
    folder.journal.touch()
    with pytest.raises(UserError, match="the study knows 0 trials"):
        open_ledger(campaign_of(), folder).__enter__()
    assert folder.journal.read_bytes() == b""


@pytest.mark.parametrize("line", ["garbage", '{"op_code": 99}', "[]", "3", '{"op_code": 4, "trial_id": 77}', "{}"])
def test_a_garbage_line_of_the_journal_is_one_line(campaign_of: CampaignOf, folder: CampaignFolder, line: str) -> None:
    with open_ledger(campaign_of(), folder) as ledger:
        run_all(ledger)
    lines = folder.journal.read_text().splitlines()
    content = "\n".join([*lines[:5], line, *lines[5:]]) + "\n"
    folder.journal.write_text(content)
    with pytest.raises(UserError, match=r"study\.journal") as refused:
        open_ledger(campaign_of(), folder).__enter__()
    assert len(str(refused.value).splitlines()) == 1
    assert folder.journal.read_text() == content


def interrupt(ledger: Ledger) -> PlannedTrial:
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
        assert ledger.baseline_value() == 0.0
        assert ledger.best() == (5, 0.25)


def test_a_value_of_zero_is_a_value(campaign_of: CampaignOf, folder: CampaignFolder) -> None:
    with open_ledger(campaign_of(limits={"trials": 1}), folder) as ledger:
        run_all(ledger)
        assert ledger.best() == (0, 0.0)
