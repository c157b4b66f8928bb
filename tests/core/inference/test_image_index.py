import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL.Image import Image
from torch import Tensor

from core import ImageIndex, RetrievalModel
from core.errors import UserError
from core.inference import image_index
from core.inference.encoding import Encoder


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of pictures that are really encoded, pass by pass."""
    passes: list[int] = []
    encode = Encoder.encode_opened

    def counted(self: Encoder, images: Sequence[Image]) -> tuple[Tensor, Tensor | None]:
        passes.append(len(images))
        return encode(self, images)

    monkeypatch.setattr(Encoder, "encode_opened", counted)
    return passes


@pytest.fixture
def folder(pictures: Path, tmp_path: Path) -> Path:
    copied = tmp_path / "pictures"
    shutil.copytree(pictures, copied)
    return copied


def test_every_picture_is_there_in_the_order_of_names(index: ImageIndex, model: RetrievalModel, pictures: Path) -> None:
    assert index.paths == sorted(pictures.rglob("*.jpeg"))
    assert index.problems == []
    scores, rows = index.search(model.embed_images(index.paths), top=1)
    assert rows[:, 0].tolist() == list(range(len(index)))
    assert scores == pytest.approx(1, abs=1e-5)


def test_only_what_is_new_or_changed_is_encoded(
    model: RetrievalModel, folder: Path, tmp_path: Path, encoded: list[int]
) -> None:
    first = ImageIndex.open(model, folder, cache=tmp_path / "cache")
    assert sum(encoded) == len(first)
    encoded.clear()
    moved, changed = first.paths[0], first.paths[1]
    (folder / "elsewhere").mkdir()
    moved.rename(folder / "elsewhere" / "new-name.jpeg")
    shutil.copy(first.paths[2], folder / "copy.jpeg")
    changed.write_bytes(first.paths[3].read_bytes() + b"\0")
    second = ImageIndex.open(model, folder, cache=tmp_path / "cache")
    assert encoded == [1]
    assert len(second) == len(first) + 1
    assert {path.name for path in second.paths} >= {"new-name.jpeg", "copy.jpeg"}
    before, after = first.search(model.embed_texts(["a dome"]), 99), second.search(model.embed_texts(["a dome"]), 99)
    assert np.isin(after[0], before[0]).sum() >= len(first) - 1


def test_an_interrupted_index_continues(
    model: RetrievalModel, folder: Path, tmp_path: Path, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_index, "SHARD", 4)
    monkeypatch.setattr(model.encoder.backbone, "micro_batch", 4)
    seen: list[tuple[int, int]] = []

    def interrupt(done: int, total: int) -> None:
        seen.append((done, total))
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ImageIndex.open(model, folder, cache=tmp_path / "cache", on_progress=interrupt)
    total = seen[0][1]
    assert seen == [(0, total), (4, total), (8, total)]
    encoded.clear()
    assert len(ImageIndex.open(model, folder, cache=tmp_path / "cache")) == total
    assert sum(encoded) == total - 8


def test_pictures_that_cannot_be_read_are_skipped_and_counted(
    model: RetrievalModel, folder: Path, tmp_path: Path
) -> None:
    (folder / "page.png").write_text("<html>")
    (folder / "gone.png").symlink_to(folder / "nothing.png")
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_text("no picture")
    index = ImageIndex.open(model, folder, cache=tmp_path / "cache")
    assert sorted(line.partition(": ")[0] for line in index.problems) == [
        str(folder / "gone.png"),
        str(folder / "page.png"),
    ]
    assert not {path.name for path in index.paths} & {"page.png", "gone.png", "notes.txt", ".hidden.png"}


def test_a_folder_without_pictures_is_one_clear_line(model: RetrievalModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder of pictures"):
        ImageIndex.open(model, tmp_path / "gone", cache=tmp_path / "cache")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no pictures"):
        ImageIndex.open(model, tmp_path / "empty", cache=tmp_path / "cache")
    (tmp_path / "empty" / "a.png").write_text("")
    with pytest.raises(UserError, match="the index is empty"):
        model.search("a dome", ImageIndex.open(model, tmp_path / "empty", cache=tmp_path / "cache"))


def test_nothing_is_written_into_the_folder(model: RetrievalModel, folder: Path, tmp_path: Path) -> None:
    def files() -> Iterator[Path]:
        return folder.rglob("*")

    before = sorted(files())
    ImageIndex.open(model, folder, cache=tmp_path / "cache")
    assert sorted(files()) == before


def test_a_model_has_its_own_embeddings(
    model: RetrievalModel, attending_model: RetrievalModel, pictures: Path, cache: Path, encoded: list[int]
) -> None:
    ImageIndex.open(model, pictures, cache=cache)
    encoded.clear()
    ImageIndex.open(model, pictures, cache=cache)
    assert encoded == []
    assert len(ImageIndex.open(attending_model, pictures, cache=cache)) == sum(encoded) > 0
