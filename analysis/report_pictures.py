"""Pictures of a report: small JPEGs inside the page, and boxes drawn on images."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from core.data.images import open_image
from core.records import Corners, RegionExample

THUMBNAIL, PICTURE = 132, 320
"""Longest side in pixels: of the images that a query found, and of an image with boxes."""
QUALITY = 80
TRUE, PREDICTED, REFERENCE = "#00C853", "#FF6D00", "#29B6F6"
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#FFFFFF")
"""Of boxes of one image (Okabe and Ito)."""
DASH = 5


def thumbnail(path: Path) -> str:
    """An image as the source of an `<img>`.

    Raises:
        UserError: the image is missing or damaged.
    """
    image, _ = open_image(path)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return _as_source(image)


def region_picture(example: RegionExample) -> str:
    """An image as the source of an `<img>`, with the boxes of a region: annotated, predicted, and of its reference.

    Raises:
        UserError: the image is missing or damaged.
    """
    image = _enlarged(example.image)
    draw = ImageDraw.Draw(image)
    if example.relation is not None:
        draw.rectangle(_pixels(example.reference_box, image.size), outline=REFERENCE, width=2)
    draw.rectangle(_pixels(example.box, image.size), outline=TRUE, width=3)
    _draw_dashed(draw, _pixels(example.predicted_box, image.size), PREDICTED)
    return _as_source(image)


def boxed_picture(path: Path, box: Corners | None) -> str:
    """An image as the source of an `<img>`, with a predicted box if there is one.

    Raises:
        UserError: the image is missing or damaged.
    """
    image = _enlarged(path)
    if box is not None:
        ImageDraw.Draw(image).rectangle(_pixels(box, image.size), outline=PREDICTED, width=3)
    return _as_source(image)


def numbered_picture(path: Path, boxes: Sequence[Corners]) -> str:
    """An image as the source of an `<img>`, with numbered boxes in the colours of `box_colour`.

    Raises:
        UserError: the image is missing or damaged.
    """
    image = _enlarged(path)
    draw = ImageDraw.Draw(image)
    for number, box in enumerate(boxes):
        x, y, right, bottom = _pixels(box, image.size)
        draw.rectangle((x, y, right, bottom), outline=box_colour(number), width=3)
        place = min(x, image.width - 6.0 - 7 * len(str(number + 1))), min(y, image.height - 13.0)
        draw.rectangle(draw.textbbox(place, f" {number + 1} "), fill=box_colour(number))
        draw.text(place, f" {number + 1} ", fill="black")
    return _as_source(image)


def box_colour(number: int) -> str:
    """Colour of a box of an image, from 0; they repeat after eight."""
    return COLOURS[number % len(COLOURS)]


def _enlarged(path: Path) -> Image.Image:
    image, _ = open_image(path)
    scale = PICTURE / max(image.size)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def _pixels(box: Corners, size: Sequence[int]) -> tuple[float, float, float, float]:
    """Corners in pixels that Pillow accepts: ordered, and within the image."""
    x1, y1, x2, y2 = box
    width, height = size[0] - 1, size[1] - 1
    return min(x1, x2) * width, min(y1, y2) * height, max(x1, x2) * width, max(y1, y2) * height


def _draw_dashed(draw: ImageDraw.ImageDraw, corners: tuple[float, float, float, float], colour: str) -> None:
    x1, y1, x2, y2 = map(round, corners)
    for start in range(x1, x2, 2 * DASH):
        for y in (y1, y2):
            draw.line((start, y, min(start + DASH, x2), y), fill=colour, width=3)
    for start in range(y1, y2, 2 * DASH):
        for x in (x1, x2):
            draw.line((x, start, x, min(start + DASH, y2)), fill=colour, width=3)


def _as_source(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
