"""Tests of core.backbone.hub."""

from pathlib import Path

import pytest

from core.backbone.hub import checkpoint_folder
from core.errors import UserError


def test_a_missing_backbone_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such backbone folder"):
        checkpoint_folder(str(tmp_path / "nowhere"))
