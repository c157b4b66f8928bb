import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from core import RetrievalModel, load_model
from core.errors import UserError
from core.evaluation.read_count import TEST_READS, counted_read
from core.files.json_files import read_json
from core.inference.exported import CARD, SETTINGS, WEIGHTS, digest_of, read_export, write_export
from core.inference.loading import read_model


@pytest.fixture
def exported(trained: Path, tmp_path: Path) -> Path:
    path = trained / "checkpoint_best.pth"
    write_export(tmp_path / "exported", read_model(path), "# A card\n", source=path)
    return tmp_path / "exported"


def test_an_export_reads_back_as_the_same_model(exported: Path, model: RetrievalModel, demo: Path) -> None:
    again = load_model(exported)
    assert np.array_equal(again.embed_texts(["a pool"]), model.embed_texts(["a pool"]))
    ours, theirs = model.checkpoint, again.checkpoint
    assert all(torch.equal(theirs.weights[name], value) for name, value in ours.weights.items())
    assert (theirs.history, theirs.receipt, theirs.epoch) == (ours.history, ours.receipt, ours.epoch)
    assert theirs.config.model == ours.config.model
    assert read_export(exported).test_digest == digest_of(demo / "test.json")
    assert (exported / CARD).read_text() == "# A card\n"


def test_no_path_of_the_data_is_exported(exported: Path, demo: Path) -> None:
    settings = (exported / SETTINGS).read_text()
    assert str(demo / "images") not in settings
    assert str(demo / "features") not in settings
    assert json.loads(settings)["config"]["features"]["backbone"] == str(demo / "tiny-internvl")


def test_reads_of_the_test_split_stay_counted(trained: Path, tmp_path: Path) -> None:
    final, path = tmp_path / "final", tmp_path / "final" / "checkpoint_best.pth"
    final.mkdir()
    shutil.copy(trained / "checkpoint_best.pth", path)
    with counted_read(final, again=False):
        pass
    write_export(tmp_path / "exported", read_model(path), "", source=path)
    assert read_json(tmp_path / "exported" / TEST_READS) == read_json(final / TEST_READS)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda folder: (folder / WEIGHTS).write_bytes(b"1234"), "cannot be read as weights"),
        (lambda folder: (folder / SETTINGS).write_text("{"), "is not valid JSON"),
        (lambda folder: (folder / SETTINGS).write_text("[]"), "holds no exported model of crossmodal-search"),
        (lambda folder: edit(folder, format=7), "was exported by another version"),
        (lambda folder: edit(folder, epoch="last"), "is damaged, or not a checkpoint"),
        (lambda folder: edit(folder, verdicts=3), "does not say whether boxes are grounded"),
    ],
)
def test_a_damaged_export_is_one_clear_line(exported: Path, damage: object, problem: str) -> None:
    damage(exported)  # type: ignore[operator]
    with pytest.raises(UserError, match=problem):
        load_model(exported)


def edit(folder: Path, **changes: object) -> None:
    (folder / SETTINGS).write_text(json.dumps(json.loads((folder / SETTINGS).read_text()) | changes))


def test_a_foreign_file_is_not_overwritten(trained: Path, tmp_path: Path) -> None:
    (tmp_path / CARD).write_text("mine")
    path = trained / "checkpoint_best.pth"
    with pytest.raises(UserError, match=r"holds README\.md, which crossmodal did not write"):
        write_export(tmp_path, read_model(path), "", source=path)
    assert [entry.name for entry in tmp_path.iterdir()] == [CARD]
