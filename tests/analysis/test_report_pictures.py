import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from analysis.report_pictures import PICTURE, THUMBNAIL, boxed_picture, region_picture, thumbnail
from core.errors import UserError
from core.records import RegionExample


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.new("RGB", (400, 200), "black").save(path)
    return path


def shown(source: str) -> Image.Image:
    """What a browser makes of the source of an `<img>`."""
    kind, _, content = source.partition(";base64,")
    assert kind == "data:image/jpeg"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def region(image: Path, *, relation: str | None = "left") -> RegionExample:
    return RegionExample(
        image=image, sentence="a pool", box=(0.1, 0.2, 0.4, 0.8), predicted_box=(0.5, 0.2, 0.4, 1.0), iou=0.0,
        relation=relation, predicted_relation="right", reference_sentence="a hall", reference_box=(0.6, 0.1, 0.9, 0.9),
    )  # fmt: skip


def test_a_thumbnail_is_small_and_keeps_its_shape(photograph: Path) -> None:
    assert shown(thumbnail(photograph)).size == (THUMBNAIL, THUMBNAIL // 2)


@pytest.mark.parametrize(("relation", "has_blue"), [("left", True), (None, False)])
def test_boxes_are_drawn_in_their_colours_and_places(photograph: Path, relation: str | None, has_blue: bool) -> None:
    image = shown(region_picture(region(photograph, relation=relation)))
    width, height = image.size
    assert width == PICTURE
    red, green, blue = image.getpixel((round(0.1 * width) + 1, round(0.5 * height)))  # type: ignore[misc]
    assert green > 120 > max(red, blue)
    edges = [image.getpixel((round(0.9 * (width - 1)), y)) for y in range(height // 4, height // 2)]
    assert any(b > 100 for _, _, b in edges) == has_blue  # type: ignore[misc]


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.png.*is missing"):
        thumbnail(tmp_path / "gone.png")


def test_a_predicted_box_is_drawn_and_without_one_the_picture_is_as_it_is(photograph: Path) -> None:
    plain, boxed = (shown(boxed_picture(photograph, box)).convert("RGB") for box in (None, (0.25, 0.25, 0.75, 0.75)))
    assert plain.size == boxed.size == (PICTURE, PICTURE // 2)
    assert max(plain.getpixel((80, 80))) < 20  # type: ignore[arg-type]
    assert max(boxed.getpixel((80, 80))) > 100  # type: ignore[arg-type]
