"""The binding of a study to its campaign, and repair of a journal before it is written to again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from core.campaign.campaign import Campaign
from core.errors import UserError
from core.files.folders import CampaignFolder
from search.study.ledger import Ledger, TrialOutcome
from search.study.proposals import SearchProposals

CampaignOf = Callable[..., Campaign]


@pytest.fixture
def folder(tmp_path: Path) -> CampaignFolder:
    return CampaignFolder(tmp_path / "campaign")


def open_ledger(campaign: Campaign, folder: CampaignFolder, **binding: Any) -> Ledger:
    folder.root.mkdir(exist_ok=True)
    return Ledger(SearchProposals(campaign), folder, **{"identity": "id", "fingerprints": ["f"], **binding})


def run_all(ledger: Ledger) -> None:
    while planned := ledger.ask():
        ledger.record(planned.number, 0, 0.1)
        ledger.tell(planned.number, TrialOutcome("complete", 0.1, None, None, 0.5))


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
            pytest.raises(UserError, match="started with settings or features other than"),
            open_ledger(campaign, folder, **changed),
        ):
            pass
    with open_ledger(campaign_of(limits={"trials": 9}), folder) as ledger:
        assert ledger.standing().complete == 4


def test_a_study_that_another_program_made_is_refused(campaign_of: CampaignOf, folder: CampaignFolder) -> None:
    folder.root.mkdir()
    study = optuna.create_study(storage=JournalStorage(JournalFileBackend(str(folder.journal))), study_name="test")
    study.enqueue_trial({"x": 1})
    with pytest.raises(UserError, match="another program"), open_ledger(campaign_of(), folder):
        pass
    assert [trial.params for trial in study.trials] == [{}]


def test_a_new_study_does_not_overwrite_the_trials_of_a_lost_one(
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
