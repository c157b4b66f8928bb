from pathlib import Path

import pytest

from core.files.folders import CampaignFolder, cache_folder


def test_trials_lie_under_their_number() -> None:
    assert CampaignFolder(Path("x")).trial(7).config == Path("x/trials/0007/config.yaml")


def test_the_cache_lies_where_the_user_keeps_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder() == Path("/caches/crossmodal-search")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "crossmodal-search"
