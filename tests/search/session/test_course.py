"""The course of a session around Ray, which runs for real in tests/end_to_end."""

from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from core.campaign.campaign import Campaign
from core.errors import UserError
from core.files.folders import CampaignFolder
from search.campaign import CampaignFeatures, Cluster, Listeners
from search.session.course import clear_storage, run_trials
from search.study.ledger import Ledger
from search.study.proposals import SearchProposals

Build = Callable[..., Campaign]


def made(root: Path) -> CampaignFolder:
    root.mkdir()
    return CampaignFolder(root)


def test_a_storage_that_cannot_be_written_is_refused_before_any_trial(
    campaign_of: Build, folder_of: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
    (tmp_path / "file").write_text("no folder")
    folder = made(folder_of)
    with Ledger(SearchProposals(campaign_of(storage=str(tmp_path / "file"))), folder, "id", ["f"]) as ledger:
        with pytest.raises(UserError, match="cannot be written"):
            run_trials(ledger, folder, CampaignFeatures({}, ()), Cluster(), Listeners())
        assert [trial.state for trial in ledger.trials()] == ["waiting"]


def test_only_the_sessions_of_the_ledger_are_cleared(campaign_of: Build, folder_of: Path) -> None:
    folder = made(folder_of)
    with Ledger(SearchProposals(campaign_of()), folder, "id", ["f"]) as ledger:
        place = folder.sessions / "test-id"
        for name in (*ledger.sessions, "theirs"):
            (place / name).mkdir(parents=True)
        clear_storage(ledger, folder)
        assert [path.name for path in place.iterdir()] == ["theirs"]
