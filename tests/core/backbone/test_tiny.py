from pathlib import Path

from safetensors.torch import load_file

from core.backbone.tiny import build_tiny_checkpoint
from core.files.digests import file_digests


def test_a_seed_decides_the_weights_and_the_global_generator_is_left_alone(tmp_path: Path) -> None:
    texts = ["a red building beside a round pool"] * 20
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        build_tiny_checkpoint(tmp_path / name, texts, seed=seed)
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("one", "same", "other")]
    assert all(value.equal(weights[1][name]) for name, value in weights[0].items())
    assert not all(value.equal(weights[2][name]) for name, value in weights[0].items())
    digests = file_digests([tmp_path / name / "tokenizer.json" for name in ("one", "same")], tmp_path / "memory")
    assert digests[0] == digests[1]
