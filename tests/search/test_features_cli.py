from pathlib import Path

from core.config import TrainConfig, dump_yaml
from tests.commands import COMMAND, run


def test_features_are_extracted_once_and_then_described(demo_config: TrainConfig, tmp_path: Path) -> None:
    config = tmp_path / "train.yaml"
    config.write_text(dump_yaml(demo_config.with_overrides({"features.store": str(tmp_path / "features")})))
    first = run([*COMMAND, "features", "extract", "--config", config], tmp_path)
    again = run([*COMMAND, "features", "extract", "--config", config], tmp_path)
    info = run([*COMMAND, "features", "info", "--config", config], tmp_path)
    assert [done.returncode for done in (first, again, info)] == [0, 0, 0], first.stderr + again.stderr + info.stderr
    assert "extracting features" in first.stdout
    assert "extracting features" not in again.stdout
    assert "trainable in all" in info.stdout
