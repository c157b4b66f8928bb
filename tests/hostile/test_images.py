"""Image files of which one is broken; everything around it is intact."""

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from core.config import TrainConfig
from tests.commands import CommandLine
from tests.hostile.refusal import write_config


def encoded(image: Image.Image, form: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form)
    return stream.getvalue()


def picture(size: tuple[int, int] = (64, 64)) -> bytes:
    return encoded(Image.effect_noise(size, 60), "JPEG")


def replaced_by(content: Callable[[], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content())


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def a_link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("gone.jpeg")


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (replaced_by(lambda: b""), "it is empty"),
    "the first bytes of a JPEG": (replaced_by(lambda: picture()[:20]), "image-01.jpeg: "),
    "text": (replaced_by(lambda: b"not an image at all"), "it is of no format or layout that Pillow reads"),
    "a web page": (replaced_by(lambda: b"<!DOCTYPE html><html><body>404</body></html>"), "it is "),
    "a Git LFS pointer": (
        replaced_by(lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        "it is a Git LFS pointer, not the image itself; run git lfs pull",
    ),
    "a ZIP archive": (replaced_by(lambda: b"PK\x03\x04" + b"\0" * 60), "it is "),
    "a PDF": (replaced_by(lambda: b"%PDF-1.7\n" + b"\0" * 60), "it is "),
    "a folder": (a_folder, "is a folder"),
    "a link to itself": (a_link_to_itself, "image-01.jpeg"),
    "a link to nothing": (a_link_to_nothing, "image-01.jpeg"),
    "a pipe": (a_pipe, "image-01.jpeg"),
}


@pytest.mark.parametrize(("damage", "expected"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_image(
    crossmodal: CommandLine,
    demo: Path,
    demo_config: TrainConfig,
    tmp_path: Path,
    damage: Callable[[Path], object],
    expected: str,
) -> None:
    images = tmp_path / "images"
    shutil.copytree(demo / "images", images)
    damage(images / "train" / "0003" / "image-01.jpeg")
    config = write_config(tmp_path, demo_config, lambda content: content["data"].update(image_root=str(images)))
    outcome = crossmodal("features", "extract", "--config", config)
    assert outcome.code == 2
    line = outcome.err.strip()
    assert line.startswith("error: "), line
    assert len(line.splitlines()) == 1, line
    assert expected in line
    assert "image-01.jpeg" in line
    assert not list((tmp_path / "store").glob("*/manifest.json"))
