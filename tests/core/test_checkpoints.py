from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.checkpoints import ZIP_MAGIC, load_checkpoint, parse_checkpoint, save_checkpoint
from core.config import TrainConfig
from core.errors import UserError
from core.features import Features
from core.training import train


def test_a_checkpoint_reads_back_and_continues_bit_equal(
    tmp_path: Path, planted_features: Features, small_config: TrainConfig
) -> None:
    def keep(metrics: object, checkpoint: object) -> None:
        if not path.exists():
            save_checkpoint(path, checkpoint)  # type: ignore[arg-type]

    path = tmp_path / "checkpoint_0.pth"
    whole = train(small_config, planted_features, keep)
    continued = train(small_config, planted_features, resume_from=load_checkpoint(path, fingerprint="planted"))
    assert all(torch.equal(whole.last.weights[name], value) for name, value in continued.last.weights.items())


def test_the_best_epoch_is_kept_apart_from_the_last(planted_features: Features, small_config: TrainConfig) -> None:
    result = train(small_config, planted_features)
    best = max(result.history, key=lambda metrics: metrics.recall_mean)
    assert result.best.epoch == best.epoch
    assert result.best.optimizer is None


@pytest.mark.parametrize("damage", ["truncated", "garbage", "pickle", "empty"])
def test_a_damaged_file_is_one_clear_line(
    tmp_path: Path, planted_features: Features, small_config: TrainConfig, damage: str
) -> None:
    path = tmp_path / "checkpoint_best.pth"
    save_checkpoint(path, train(small_config, planted_features).best)
    content = path.read_bytes()
    match damage:
        case "truncated":
            path.write_bytes(content[: len(content) // 2])
        case "garbage":
            path.write_bytes(b"not a checkpoint at all")
        case "pickle":
            torch.save({"config": Path("/etc/passwd")}, path)  # a class that weights_only must refuse
        case "empty":
            path.write_bytes(b"")
    with pytest.raises(UserError, match=r"checkpoint_best\.pth: is damaged, or no checkpoint") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_other_features_is_refused(
    tmp_path: Path, planted_features: Features, small_config: TrainConfig
) -> None:
    path = tmp_path / "checkpoint_best.pth"
    save_checkpoint(path, train(small_config, planted_features).best)
    with pytest.raises(UserError, match="was trained on features planted, not on others"):
        load_checkpoint(path, fingerprint="others")


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.pth: there is no such checkpoint"):
        load_checkpoint(tmp_path / "nowhere.pth")


@given(st.binary(max_size=200))
def test_bytes_that_are_no_checkpoint_are_refused_in_one_line(data: bytes) -> None:
    for content in (data, ZIP_MAGIC + data):
        with pytest.raises(UserError, match=r"x\.pth: is damaged"):
            parse_checkpoint(content, where="x.pth")


def test_a_checkpoint_cut_anywhere_is_refused(
    planted_features: Features, small_config: TrainConfig, tmp_path: Path
) -> None:
    last = train(small_config.with_overrides({"recipe.epochs": 1}), planted_features).last
    save_checkpoint(tmp_path / "a.pth", last)
    data = (tmp_path / "a.pth").read_bytes()
    for share in (0.01, 0.3, 0.6, 0.9, 0.999):
        with pytest.raises(UserError, match="is damaged"):
            parse_checkpoint(data[: int(share * len(data))], where="a.pth")
