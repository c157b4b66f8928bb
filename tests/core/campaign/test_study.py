"""Trials through Optuna and back; campaigns on disk are read in tests/analysis."""

import dataclasses
import json
from pathlib import Path
from typing import get_args

import optuna
import pytest
from optuna.trial import Trial, TrialState

from core.campaign.campaign import read_campaign
from core.campaign.study import (
    STATES,
    Notes,
    note,
    open_database,
    open_journal,
    read_importance,
    read_records,
    read_trials,
)
from core.campaign.trials import STALE, State, TrialRecord
from core.errors import UserError
from core.files.folders import CampaignFolder
from core.records import EpochMetrics


def epoch() -> EpochMetrics:
    return EpochMetrics(**{field.name: 1 for field in dataclasses.fields(EpochMetrics)})


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return optuna.create_study(study_name="test", storage=open_journal(tmp_path / "study.journal"))


def test_all_that_is_noted_of_a_trial_comes_back(study: optuna.Study) -> None:
    trial = study.ask()
    trial.suggest_float("x", 0.0, 1.0)
    note(trial, Notes(session=2, config_hash="abc"))
    trial.report(0.5, step=1)
    note(trial, Notes(best_value=0.0, best=epoch(), seconds=0.0))
    study.tell(trial, 0.0)
    (record,) = read_records(study)
    assert record == TrialRecord(
        number=0, state="complete", origin=0, value=0.0, best=epoch(), reports={1: (0.5,)}, seconds=0.0, session=2,
        config_hash="abc", parameters=trial.params, ended_at=study.trials[0].datetime_complete,
    )  # fmt: skip


def test_every_state_of_optuna_has_a_word() -> None:
    assert set(STATES) == set(TrialState)
    assert {*STATES.values(), "imported"} == set(get_args(State))


def test_a_trial_is_stale_exactly_if_another_one_retries_it(study: optuna.Study) -> None:
    study.ask()
    earlier = read_records(study)
    assert [trial.reason for trial in earlier] == [None]
    study.enqueue_trial({}, user_attrs=Notes(retry_of=0, origin=0).attributes())
    for state in ("running", "failed"):
        died, retry = read_records(study, earlier)
        assert (died.state, died.reason) == (state, STALE)
        assert (retry.state, retry.origin, retry.retry_of, retry.reason) == ("waiting", 0, 0, None)
        if state == "running":
            study.tell(0, state=TrialState.FAIL)
    assert read_records(study, read_records(study)) == read_records(study)


def test_trials_that_had_ended_are_not_read_again(study: optuna.Study) -> None:
    study.tell(study.ask(), 0.1)
    study.ask()
    before = read_records(study)
    study.tell(1, 0.2)
    after = read_records(study, before)
    assert after[0] is before[0]
    assert [trial.state for trial in after] == ["complete", "complete"]


@pytest.mark.parametrize(("name", "value"), [("best", {"epoch": 1}), ("seconds", "long"), ("mood", "good")])
def test_what_we_did_not_note_is_one_line_that_names_the_trial(study: optuna.Study, name: str, value: object) -> None:
    study.ask().set_user_attr(name, value)
    with pytest.raises(UserError, match="study test: the attributes of trial 0 cannot be read") as refused:
        read_records(study)
    assert len(str(refused.value).splitlines()) == 1
    assert name in str(refused.value)


def test_notes_of_what_is_not_known_are_not_written() -> None:
    assert Notes().attributes() == {}
    assert Notes(retry_of=0, best_value=0.0).attributes() == {"retry_of": 0, "best_value": 0.0}


def test_a_campaign_is_read_from_its_folder(finished_campaign: CampaignFolder) -> None:
    trials = read_trials(finished_campaign)
    assert [trial.number for trial in trials] == [0, 1, 2, 3, 4]
    assert all(trial.best is not None and trial.best.recall_mean == trial.value for trial in trials)
    assert all(set(trial.parameters) >= {"optimizer.learning_rate"} for trial in trials)


@pytest.fixture
def planned(finished_campaign: CampaignFolder, tmp_path: Path) -> CampaignFolder:
    """A campaign whose study is still empty."""
    folder = CampaignFolder(tmp_path / "planned")
    folder.root.mkdir()
    folder.campaign.write_text(finished_campaign.campaign.read_text())
    return folder


def optimise(folder: CampaignFolder, trials: int) -> None:
    """Random trials: one setting decides, another one too where it is drawn, and a third does nothing."""
    name, storage = read_campaign(folder).name, open_journal(folder.journal)
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(study_name=name, storage=storage, direction="maximize", sampler=sampler)

    def objective(trial: Trial) -> float:
        trial.suggest_float("idle", 0.0, 1.0)
        value = trial.suggest_float("decides", 0.0, 1.0)
        return float(value + (0.5 * trial.suggest_float("sometimes", 0.0, 1.0) if trial.number % 2 else 0.0))

    study.optimize(objective, n_trials=trials)


def test_importance_is_a_share_of_one_and_the_largest_first(planned: CampaignFolder) -> None:
    optimise(planned, 80)
    shares = read_importance(planned)
    assert set(shares) == {"decides", "sometimes", "idle"}
    assert next(iter(shares)) == "decides"
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert sum(shares.values()) == pytest.approx(1)
    assert read_importance(planned) == shares


@pytest.mark.parametrize("trials", [0, 1])
def test_importance_of_too_few_trials_is_unknown(planned: CampaignFolder, trials: int) -> None:
    optimise(planned, trials)
    assert read_importance(planned) == {}


def test_importance_of_very_few_trials_comes_without_warnings(planned: CampaignFolder) -> None:
    optimise(planned, 2)
    assert sum(read_importance(planned).values()) == pytest.approx(1)


def test_a_study_of_another_name_is_reported_as_missing(finished_campaign: CampaignFolder, tmp_path: Path) -> None:
    folder = CampaignFolder(tmp_path)
    content = finished_campaign.campaign.read_text().replace(
        f"name: {read_campaign(finished_campaign).name}", "name: b"
    )
    folder.campaign.write_text(content)
    folder.journal.write_bytes(finished_campaign.journal.read_bytes())
    with pytest.raises(UserError, match="holds no study b"):
        read_trials(folder)


def test_a_damaged_line_of_a_journal_is_named(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    path.write_text(json.dumps({"op_code": 99}) + "\n")
    with pytest.raises(UserError, match="cannot be read as a study"):
        open_journal(path)
    path.write_text("no JSON\n")
    with pytest.raises(UserError, match="line 1 is not valid JSON"):
        open_journal(path)


@pytest.mark.parametrize("url", [None, "nonsense", "postgresql://user:secret@127.0.0.1:1/none"])
def test_a_database_that_cannot_be_used_is_one_line_without_its_url(
    monkeypatch: pytest.MonkeyPatch, url: str | None
) -> None:
    if url is not None:
        monkeypatch.setenv("STUDY_URL", url)
    with pytest.raises(UserError, match="STUDY_URL") as refused:
        open_database("STUDY_URL")
    assert "secret" not in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
