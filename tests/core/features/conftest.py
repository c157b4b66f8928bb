import shutil
from pathlib import Path

import pytest

from core.config import TrainConfig


@pytest.fixture
def copy(demo: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo, tmp_path / "copy", ignore=shutil.ignore_patterns("features")))


@pytest.fixture
def moved(copy: Path, demo_config: TrainConfig) -> TrainConfig:
    """Reads a copy of the small data set, which a test may change."""
    return demo_config.with_overrides(
        {
            "data.train_annotations": str(copy / "train.json"),
            "data.test_annotations": str(copy / "test.json"),
            "data.image_root": str(copy / "images"),
            "features.backbone": str(copy / "tiny-internvl"),
        }
    )
