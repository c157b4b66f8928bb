from pathlib import Path

from core.config import TrainConfig
from core.sections import dump_yaml
from tests.commands import run


def test_features_are_extracted_once_and_then_described(demo_config: TrainConfig, tmp_path: Path) -> None:
    config = tmp_path / "train.yaml"
    config.write_text(dump_yaml(demo_config.with_overrides({"features.store": str(tmp_path / "features")})))
    first, again, info = (
        run("features", command, "--config", config, cwd=tmp_path) for command in ("extract", "extract", "info")
    )
    assert [done.code for done in (first, again, info)] == [0, 0, 0], first.err + again.err + info.err
    assert "extracting features" in first.out
    assert "extracting features" not in again.out
    assert "trainable in all" in info.out
