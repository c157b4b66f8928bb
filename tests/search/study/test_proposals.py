from collections.abc import Callable
from pathlib import Path

import pytest

from core.campaign.campaign import Campaign
from core.campaign.trials import TrialRecord
from core.config import TrainConfig
from core.files.folders import CampaignFolder
from search.study.ledger import AskedTrial, Ledger, TrialOutcome
from search.study.proposals import ConfirmationProposals, SearchProposals


@pytest.fixture
def campaign(campaign_of: Callable[..., Campaign]) -> Campaign:
    return campaign_of()


@pytest.fixture
def searched(campaign: Campaign, tmp_path: Path) -> list[TrialRecord]:
    """The trials of a search of four."""
    (tmp_path / "search").mkdir()
    with Ledger(SearchProposals(campaign), CampaignFolder(tmp_path / "search"), "id", ["f"]) as ledger:
        end_all(ledger)
        return ledger.trials()


def end_all(ledger: Ledger) -> list[AskedTrial]:
    ended = []
    while asked := ledger.ask():
        ledger.tell(asked.number, TrialOutcome("complete", asked.number / 10, None, None, 0.5))
        ended.append(asked)
    return ended


def open_confirmation(
    campaign: Campaign, searched: list[TrialRecord], folder: Path, *, parents: list[int], seeds: range
) -> Ledger:
    folder.mkdir(exist_ok=True)
    proposals = ConfirmationProposals(campaign, searched, parents, seeds)
    return Ledger(proposals, CampaignFolder(folder), "id", ["f"])


def test_every_parent_is_repeated_with_every_seed_and_nothing_else_changes(
    campaign: Campaign, searched: list[TrialRecord], base: TrainConfig, tmp_path: Path
) -> None:
    with open_confirmation(campaign, searched, tmp_path / "c", parents=[0, 2], seeds=range(1, 4)) as ledger:
        asked = end_all(ledger)
        pairs = [(trial.confirms, trial.seed) for trial in ledger.trials()]
    assert pairs == [(0, 1), (2, 1), (0, 2), (2, 2), (0, 3), (2, 3)]
    assert [each.config.seed for each in asked] == [1, 1, 2, 2, 3, 3]
    assert {each.config.with_overrides({"seed": base.seed}) for each in asked if "trial-0000" in each.name} == {base}
    assert [each.name for each in asked][:2] == ["confirm-0000-trial-0000-seed-1", "confirm-0001-trial-0002-seed-1"]


def test_later_only_what_is_missing_is_added(campaign: Campaign, searched: list[TrialRecord], tmp_path: Path) -> None:
    with open_confirmation(campaign, searched, tmp_path / "c", parents=[0], seeds=range(1, 3)) as ledger:
        end_all(ledger)
    with open_confirmation(campaign, searched, tmp_path / "c", parents=[0, 1], seeds=range(1, 4)) as ledger:
        assert len(end_all(ledger)) == 4
        assert len({(trial.confirms, trial.seed) for trial in ledger.trials()}) == 6


def test_a_repeat_that_died_is_retried_with_its_seed(
    campaign: Campaign, searched: list[TrialRecord], tmp_path: Path
) -> None:
    with open_confirmation(campaign, searched, tmp_path / "c", parents=[3], seeds=range(1, 2)) as ledger:
        assert ledger.ask() is not None
    with open_confirmation(campaign, searched, tmp_path / "c", parents=[3], seeds=range(1, 2)) as ledger:
        assert ledger.reconcile() == [0]
        (retried,) = end_all(ledger)
        assert (retried.number, retried.config.seed, retried.lineage) == (1, 1, [0])
        assert ledger.trials()[1].confirms == 3
        assert ledger.trials()[1].parameters == searched[3].parameters


def test_no_repeat_is_stopped_early(campaign: Campaign, searched: list[TrialRecord], tmp_path: Path) -> None:
    with open_confirmation(campaign, searched, tmp_path / "c", parents=[0, 1, 2], seeds=range(1, 9)) as ledger:
        for value in (0.9,) * 20 + (0.1,):
            asked = ledger.ask()
            assert asked is not None
            ledger.record(asked.number, 0, value)
            assert not ledger.should_stop(asked.number)
            ledger.tell(asked.number, TrialOutcome("complete", value, None, None, 0.5))


def test_a_search_of_the_same_campaign_does_not_see_the_repeats(
    campaign: Campaign, searched: list[TrialRecord], tmp_path: Path
) -> None:
    with open_confirmation(campaign, searched, tmp_path / "c", parents=[0], seeds=range(1, 3)) as ledger:
        end_all(ledger)
    with Ledger(SearchProposals(campaign), CampaignFolder(tmp_path / "search"), "id", ["f"]) as ledger:
        assert ledger.trials() == searched
        assert ledger.ask() is None
