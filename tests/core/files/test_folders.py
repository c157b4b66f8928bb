from pathlib import Path

from core.files.folders import CampaignFolder


def test_trials_lie_under_their_number() -> None:
    assert CampaignFolder(Path("x")).trial(7).config == Path("x/trials/0007/config.yaml")
