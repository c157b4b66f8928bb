from pathlib import Path

import pytest

from analysis.campaign import read_campaign
from core.errors import UserError
from core.files.folders import CampaignFolder


def test_what_tables_need_is_read_from_the_resolved_file(finished_campaign: CampaignFolder) -> None:
    campaign = read_campaign(finished_campaign)
    assert (campaign.name, campaign.objective, campaign.limits.trials) == ("small", "recall_mean", 5)
    assert campaign.train["recipe"]["epochs"] == 3


@pytest.mark.parametrize("content", ["", "[]", "3", "name: small", "name: [a]\nobjective: recall_mean", "a: {b: "])
def test_a_damaged_file_is_one_line_that_names_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "campaign.yaml").write_text(content)
    with pytest.raises(UserError, match=r"campaign\.yaml") as refused:
        read_campaign(CampaignFolder(tmp_path))
    assert len(str(refused.value).splitlines()) == 1


def test_a_folder_without_a_campaign_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no campaign"):
        read_campaign(CampaignFolder(tmp_path))
