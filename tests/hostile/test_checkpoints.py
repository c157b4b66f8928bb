"""Checkpoints of which one thing is broken."""

import io
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from core.config import TrainConfig
from core.features.opening import open_features
from core.files.folders import RunFolder
from core.training.runs import hold_run, run
from tests.commands import CommandLine
from tests.hostile.refusal import assert_refused, write_config


@pytest.fixture(scope="module")
def trained(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainConfig, Path]:
    """A configuration, and the checkpoint of an epoch under it."""
    root = tmp_path_factory.mktemp("trained")
    config = TrainConfig().with_overrides(
        {
            "data.train_annotations": str(demo / "train.json"),
            "data.image_root": str(demo / "images"),
            "features.backbone": str(demo / "tiny-internvl"),
            "features.store": str(root / "store"),
            "features.image_size": 112,
            "device": "cpu",
            "optimizer.batch_size": 16,
            "recipe.epochs": 1,
        }
    )
    with hold_run(root / "run"):
        run(config, open_features(config), RunFolder(root / "run"))
    return config, root / "run" / "checkpoint_best.pth"


def changed(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """Change the content of a checkpoint."""

    def damage(path: Path) -> None:
        content = torch.load(path, weights_only=True)
        change(content)
        torch.save(content, path)

    return damage


def a_flipped_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def a_pickle_that_runs_code(path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (path.with_name("harm"),)

    path.write_bytes(pickle.dumps(Harmful()))


def an_archive_that_runs_code(path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (path.with_name("harm"),)

    torch.save({"config": Harmful()}, path)


def another_archive(path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("thesis.tex", "mine")
    path.write_bytes(stream.getvalue())


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def first_weight(content: dict[str, Any]) -> str:
    return str(next(iter(content["weights"])))


DAMAGED = "is damaged, or not a checkpoint written by crossmodal"
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda path: path.write_bytes(b""), DAMAGED),
    "text": (lambda path: path.write_text("weights"), DAMAGED),
    "half a checkpoint": (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), DAMAGED),
    "another archive": (another_archive, DAMAGED),
    "a pickle that runs code": (a_pickle_that_runs_code, DAMAGED),
    "an archive that runs code": (an_archive_that_runs_code, DAMAGED),
    "bare weights": (lambda path: torch.save({"weight": torch.zeros(3)}, path), DAMAGED),
    "a tensor": (lambda path: torch.save(torch.zeros(3), path), DAMAGED),
    "no weights": (changed(lambda c: c.pop("weights")), DAMAGED),
    "no configuration": (changed(lambda c: c.pop("config")), DAMAGED),
    "an unknown field": (changed(lambda c: c.update(extra=1)), DAMAGED),
    "an epoch that is text": (changed(lambda c: c.update(epoch="3")), DAMAGED),
    "an epoch that it never had": (changed(lambda c: c.update(epoch=7)), DAMAGED),
    "a weight that is a list": (changed(lambda c: c["weights"].update({first_weight(c): [1.0]})), DAMAGED),
    "a history that is torn": (changed(lambda c: c.update(history=[])), DAMAGED),
    "a receipt of nothing": (changed(lambda c: c.update(receipt={})), DAMAGED),
    "a setting that no longer exists": (
        changed(lambda c: c["config"]["loss"].update(triplet=1.0)), "loss.triplet is not a setting",
    ),
    "a weight that is NaN": (
        changed(lambda c: c["weights"][first_weight(c)].fill_(float("nan"))), "holds weights that are not finite",
    ),
    "a weight of another shape": (
        changed(lambda c: [c[part].update(log_temperature=torch.zeros(3)) for part in ("weights", "best_weights")]),
        "log_temperature",
    ),
    "a weight too few": (
        changed(lambda c: [c[part].pop("log_temperature") for part in ("weights", "best_weights")]), "log_temperature",
    ),
    "a weight too many": (
        changed(lambda c: [c[part].update(other=torch.zeros(3)) for part in ("weights", "best_weights")]), "other",
    ),
    "features of another store": (changed(lambda c: c.update(fingerprint="0" * 16)), "was trained on features 0000"),
    "a file that is not there": (lambda path: path.unlink(), "there is no such checkpoint"),
    "a folder": (a_folder, "is a folder, not a checkpoint"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "expected"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_checkpoint(
    crossmodal: CommandLine,
    trained: tuple[TrainConfig, Path],
    tmp_path: Path,
    damage: Callable[[Path], object],
    expected: str,
) -> None:
    settings, checkpoint = trained
    broken = tmp_path / "broken.pth"
    shutil.copy(checkpoint, broken)
    damage(broken)
    config = write_config(tmp_path, settings)
    arguments = ["--config", config, "--checkpoint", broken, "--output-dir", tmp_path / "out"]
    assert_refused(crossmodal, tmp_path, expected, "train", "--evaluate", *arguments)
    assert not (tmp_path / "harm").exists()


def test_a_flipped_byte_of_a_weight_is_noticed(
    crossmodal: CommandLine, trained: tuple[TrainConfig, Path], tmp_path: Path
) -> None:
    settings, checkpoint = trained
    broken = tmp_path / "broken.pth"
    shutil.copy(checkpoint, broken)
    a_flipped_byte(broken)
    arguments = ["--config", write_config(tmp_path, settings), "--checkpoint", broken, "--output-dir", tmp_path / "out"]
    assert_refused(crossmodal, tmp_path, DAMAGED, "train", "--evaluate", *arguments)
