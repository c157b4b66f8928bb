import csv
import io
import json
import shutil
from pathlib import Path

import pytest

from core.files import CampaignFolder
from tests.commands import CommandLine


@pytest.fixture
def campaign(finished_campaign: CampaignFolder, tmp_path: Path) -> CampaignFolder:
    shutil.copytree(finished_campaign.root, tmp_path / "c", ignore=shutil.ignore_patterns("wandb", "sessions"))
    return CampaignFolder(tmp_path / "c")


def test_the_leaderboard_is_printed_and_written(crossmodal: CommandLine, campaign: CampaignFolder) -> None:
    outcome = crossmodal("leaderboard", campaign.root)
    assert outcome.code == 0, outcome.err
    assert "relevance by building" in " ".join(outcome.out.split())
    assert max(map(len, outcome.out.splitlines()[:10])) <= 80
    with (campaign.root / "leaderboard.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 5
    assert (campaign.root / "leaderboard.md").read_text().count("\n| ") == 5 + 2


@pytest.mark.parametrize("format", ["csv", "md", "latex", "json"])
def test_a_format_is_printed_alone(crossmodal: CommandLine, campaign: CampaignFolder, format: str) -> None:
    outcome = crossmodal("leaderboard", campaign.root, "--format", format)
    assert outcome.code == 0, outcome.err
    match format:
        case "csv":
            assert len(list(csv.DictReader(io.StringIO(outcome.out)))) == 5
        case "json":
            assert len(json.loads(outcome.out)) == 5
        case "md":
            assert outcome.out.startswith("Validation split")
        case "latex":
            assert r"\end{tabular}" in outcome.out
    assert not (campaign.root / "leaderboard.csv").exists()


def test_ranking_by_another_metric(crossmodal: CommandLine, campaign: CampaignFolder) -> None:
    rows = json.loads(crossmodal("leaderboard", campaign.root, "--format", "json", "--by", "i2t_r10").out)
    assert [row["i2t_r10"] for row in rows] == sorted((row["i2t_r10"] for row in rows), reverse=True)
