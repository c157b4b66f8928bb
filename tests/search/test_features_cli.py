from pathlib import Path

from core.config import TrainConfig
from core.sections import dump_yaml
from tests.commands import CommandLine, run
from tests.vector_files import encode


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


def test_imported_vectors_are_described_with_the_configuration_that_reads_them(
    demo: Path, tmp_path: Path, crossmodal: CommandLine
) -> None:
    images, texts = encode(demo, tmp_path)
    named = ("--train", demo / "train.json", "--test", demo / "test.json")
    done = crossmodal("features", "import", tmp_path / "set", images, texts, *named)
    assert done.code == 0, done.err
    for words in ("vectors.cnn", "vectors.clip", "images.npz", "backbone: null", "image: vectors.cnn+vectors.clip"):
        assert words in done.out
    wrong = crossmodal("features", "import", tmp_path / "other", texts, tmp_path / "gone.npy", *named)
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "gone.npy: there is no such file" in wrong.err
    assert not (tmp_path / "other").exists()
