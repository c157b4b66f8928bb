"""Opening images: whatever Pillow reads becomes upright 8-bit RGB; repairs are reported.

A valid image opens as it is displayed. A damaged one is repaired if that has one obvious result, otherwise refused with
the reason; no file makes this module hang or raise anything but UserError.
"""

import math
import re
import stat
import struct
import threading
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

from core.errors import UserError, shown
from core.files.json_files import GIT_LFS_POINTER

ORIENTATION = 0x0112
"""Tag of EXIF, TIFF and XMP: 1 is upright, 2 to 8 are not."""
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Orientation → transposition that makes the image upright."""
VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
"""Type of an EXIF entry → size of one value in bytes."""
DEPTHS = (8, 10, 12, 14, 16)
"""Bit depths that cameras and scanners use within 16 bits."""
TOO_DARK = 1 / 16
"""Fraction of white; if no pixel reaches it, the scale must be another one."""
NOT_MEASURED = 3e38
"""Floats from this size on mark pixels without data."""
NOT_IMAGES = (
    (re.compile(rb"\s*(<!doctype html|<html)", re.IGNORECASE), "an HTML page"),
    (re.compile(rb"[^\0]*<svg", re.IGNORECASE), "an SVG drawing"),
    (re.compile(rb"%PDF"), "a PDF document"),
    (re.compile(rb"....ftyp(heic|heix|mif1)", re.DOTALL), "HEIC, which Pillow does not read"),
)
HEAD_BYTES = 1024
PHOTOMETRIC, WHITE_IS_ZERO = 0x0106, 0
SAMPLE_FORMAT, UNSIGNED = 0x0153, (1,)
"""TIFF tags, and their values that Pillow ignores."""
_TRUNCATION_LOCK = threading.Lock()


def open_image(path: Path) -> tuple[Image.Image, list[str]]:
    """Open the first frame of an image as upright 8-bit RGB, with transparency on white; also returns the repairs made.

    An image with more than 8 bits per channel is scaled: integers by the fewest of 8, 10, 12, 14 or 16 bits that hold
    the brightest pixel, floats within 0..1 by 255, any other by its darkest and brightest pixel.

    Raises:
        UserError: the file is missing, is not an image, has too many pixels, or has pixels without a value.
    """
    if problem := file_problem(path):
        raise UserError(f"the image {problem}", where=path)
    for category in (UserWarning, Image.DecompressionBombWarning):  # relevant problems are counted or refused here
        warnings.filterwarnings("ignore", category=category, module=r"PIL\.")  # for all threads
    try:
        image, truncated = _decode(path)
        orientation, damaged = _orientation(image)
        rgb = _to_rgb(image)
    except Exception as error:  # what Pillow's parsers raise on damaged bytes has no common type
        raise UserError(f"cannot be read as an image ({_reason(path, error)})", where=path) from None
    applies = {
        "image is truncated": truncated,
        "EXIF is damaged": damaged,
        "image is rotated by EXIF": orientation in UPRIGHT,
        f"image is {image.mode}": image.mode != "RGB",
    }
    upright = rgb.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else rgb
    return upright, [repair for repair, needed in applies.items() if needed]


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height of an image as `open_image` opens it, without decoding its pixels.

    Raises:
        UserError: the file is missing or is not an image.
    """
    if problem := file_problem(path):
        raise UserError(f"the image {problem}", where=path)
    for category in (UserWarning, Image.DecompressionBombWarning):
        warnings.filterwarnings("ignore", category=category, module=r"PIL\.")
    try:
        with Image.open(path) as image:
            width, height = image.size
            lies = _orientation(image)[0] >= 5
    except Exception as error:  # as in open_image
        raise UserError(f"cannot be read as an image ({_reason(path, error)})", where=path) from None
    return (height, width) if lies else (width, height)


def as_displayed(image: Image.Image) -> Image.Image:
    """An image that is open already as `open_image` gives it: upright 8-bit RGB.

    Raises:
        UserError: its pixels cannot be read.
    """
    try:
        orientation, _ = _orientation(image)
        rgb = _to_rgb(image)
    except Exception as error:  # as in open_image
        raise UserError(f"the image cannot be read ({type(error).__name__})") from None
    return rgb.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else rgb


def file_problem(path: Path) -> str | None:
    """Reason why there is no regular file to open, such as 'is missing'; None if there is one.

    The file is not opened: reading from a pipe or a device could block forever.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except OSError as error:
        return f"cannot be reached ({error.strerror})"
    except ValueError as error:  # a NUL, or half a surrogate pair
        return f"has a name that no file can have ({error})"
    if stat.S_ISDIR(mode):
        return "is a folder"
    return None if stat.S_ISREG(mode) else "is not a regular file"


def _decode(path: Path) -> tuple[Image.Image, bool]:
    """The decoded image, and whether its file is truncated."""
    try:
        return _load(path), False
    except UnidentifiedImageError:
        raise
    except OSError:  # from Pillow, for missing or broken pixels
        with _TRUNCATION_LOCK:  # its switch is global; only this rare path turns it on
            ImageFile.LOAD_TRUNCATED_IMAGES = True
            try:
                return _load(path), True
            finally:
                ImageFile.LOAD_TRUNCATED_IMAGES = False


def _load(path: Path) -> Image.Image:
    with Image.open(path) as image:
        high_bytes_only = ";16" in str(image.tile) and image.mode in ("RGB", "RGBA", "LA")
        image.load()
    if high_bytes_only and np.asarray(image)[..., : len(image.mode.rstrip("A"))].max() < 255 * TOO_DARK:
        raise ValueError("its 16-bit colours are too dark to keep any detail in 8 bits; save it as 8-bit")
    return image


def _orientation(image: Image.Image) -> tuple[int, bool]:
    """EXIF orientation (1 to 8), and whether EXIF is damaged; 1 if it cannot be read."""
    damaged = not _is_whole(image.info.get("exif", b""))
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # on damaged bytes Pillow may raise anything; the pixels are intact
        return 1, True
    if not isinstance(value, int) or not 1 <= value <= 8:
        return 1, True
    return value, damaged


def _is_whole(exif: bytes) -> bool:
    """Whether the first directory of an EXIF block and everything it points to are inside the block."""
    block = re.sub(rb"^(Exif\0\0)+", b"", exif)
    if not block:
        return True
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return False
    try:
        magic, start = struct.unpack_from(f"{order}HL", block, 2)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        entries = [struct.unpack_from(f"{order}HHLL", block, start + 2 + 12 * number) for number in range(count)]
    except struct.error:
        return False
    ends = [
        place + values * VALUE_BYTES[kind] if values * VALUE_BYTES[kind] > 4 else 0
        for _, kind, values, place in entries
        if kind in VALUE_BYTES
    ]
    return magic == 42 and len(ends) == count and max(ends, default=0) <= len(block)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_scaled(image)).convert("RGB")
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None, "None is returned in place only"
        return converted
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        layers = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), layers).convert("RGB")
    return image.convert("RGB")


def _scaled(image: Image.Image) -> NDArray[np.uint8]:
    """[H, W] levels of an image with one band of more than 8 bits."""
    tags = getattr(image, "tag_v2", {})
    pixels = np.asarray(image)
    if image.mode == "I" and tags.get(SAMPLE_FORMAT) == UNSIGNED:
        pixels = pixels.view(np.uint32)  # Pillow has no such mode, and reads the brighter half as negative
    values = pixels.astype(np.float64)
    black, white = _scale(float(values.min()), float(values.max()), whole=image.mode != "F")
    levels = np.rint((values - black) / (white - black) * 255).astype(np.uint8)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        levels = 255 - levels
    return np.where(values == image.info.get("transparency", math.nan), 255, levels).astype(np.uint8)


def _scale(darkest: float, brightest: float, *, whole: bool) -> tuple[float, float]:
    """Values mapped to black and white; `whole` numbers are scaled by their bit depth."""
    if not (abs(darkest) < NOT_MEASURED and abs(brightest) < NOT_MEASURED):
        raise ValueError("it has pixels that are not finite numbers")
    if whole and darkest >= 0 and brightest < 2 ** DEPTHS[-1]:
        return 0, next(2**bits - 1 for bits in DEPTHS if brightest < 2**bits)
    if not whole and darkest >= 0 and TOO_DARK <= brightest <= 1:
        return 0, 1
    return (darkest, brightest) if darkest < brightest else (darkest - 1, darkest + 1)


def _reason(path: Path, error: Exception) -> str:
    match error:
        case UnidentifiedImageError():
            return _told_by_its_beginning(path)
        case Image.DecompressionBombError():
            return str(error).split(",")[0]  # "Image size (400000000 pixels) exceeds limit of 178956970 pixels"
        case MemoryError():
            return "there is not enough memory for it"
        case OSError(strerror=str(reason)):
            return reason
    return shown(str(error)) or type(error).__name__


def _told_by_its_beginning(path: Path) -> str:
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    if not head:
        return "it is empty"
    if head.startswith(GIT_LFS_POINTER):
        return "it is a Git LFS pointer, not the image itself; run git lfs pull"
    known = (name for pattern, name in NOT_IMAGES if pattern.match(head))
    return f"it is {next(known, 'of no format or layout that Pillow reads')}"
