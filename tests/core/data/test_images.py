import os
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from core.data.images import as_displayed, open_image
from core.errors import UserError

RAMP = np.linspace(0.0, 1.0, 64).reshape(8, 8)
LEVELS = np.rint(RAMP * 255)
COLOURS = Image.fromarray(np.stack([LEVELS, LEVELS[::-1], LEVELS.T], axis=-1).astype(np.uint8))


def levels(path: Path) -> NDArray[np.int64]:
    """[H, W, 3]"""
    return np.asarray(open_image(path)[0]).astype(np.int64)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        open_image(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def retag(path: Path, tag: int, value: int) -> None:
    """Change one short value of a little-endian TIFF."""
    content = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<L", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    for place in range(start + 2, start + 2 + 12 * count, 12):
        if struct.unpack_from("<H", content, place) == (tag,):
            struct.pack_into("<H", content, place + 8, value)
    path.write_bytes(content)


DEEP: dict[str, tuple[NDArray[Any], str]] = {
    "PNG of 16 bits": ((RAMP * 65535).astype(np.uint16), "PNG"),
    "PNG of 12 of 16 bits": ((RAMP * 4095).astype(np.uint16), "PNG"),
    "TIFF of 16 bits": ((RAMP * 65535).astype(np.uint16), "TIFF"),
    "TIFF of 16 bits, big-endian": ((RAMP * 65535).astype(">u2"), "TIFF"),
    "TIFF of 10 of 16 bits": ((RAMP * 1023).astype(np.uint16), "TIFF"),
    "TIFF of 32 bits with 8-bit levels": ((RAMP * 255).astype(np.int32), "TIFF"),
    "TIFF of 32 bits, all of them": ((RAMP * (2**32 - 1) - 2**31).astype(np.int32), "TIFF"),
    "floats of 0..1": (RAMP.astype(np.float32), "TIFF"),
    "floats of 0..255": ((RAMP * 255).astype(np.float32), "TIFF"),
    "floats around 0": ((RAMP * 4 - 2).astype(np.float32), "TIFF"),
    "floats close to 0": ((RAMP / 1000).astype(np.float32), "TIFF"),
}


def test_no_value_is_transparent_unless_the_image_says_so(tmp_path: Path) -> None:
    Image.fromarray(np.array([[-2, -1, 2]], dtype=np.float32)).save(tmp_path / "image", "TIFF")
    assert np.asarray(open_image(tmp_path / "image")[0])[0, :, 0].tolist() == [0, 64, 255]


@pytest.mark.parametrize(("pixels", "file_format"), DEEP.values(), ids=DEEP.keys())
def test_more_than_eight_bits_are_scaled_and_reported(tmp_path: Path, pixels: NDArray[Any], file_format: str) -> None:
    Image.fromarray(pixels).save(tmp_path / "image", file_format)
    image, repairs = open_image(tmp_path / "image")
    assert (image.mode, len(repairs)) == ("RGB", 1)
    assert repairs[0].startswith(("image is I", "image is F"))
    assert np.abs(np.asarray(image) - LEVELS[..., None]).max() <= 1


@pytest.mark.parametrize(("value", "level"), [(0, 0), (32896, 128), (65535, 255)])
def test_an_even_image_of_16_bits_keeps_its_level(tmp_path: Path, value: int, level: int) -> None:
    Image.fromarray(np.full((4, 4), value, dtype=np.uint16)).save(tmp_path / "a.png")
    assert (levels(tmp_path / "a.png") == level).all()


def test_unsigned_32_bits_and_white_as_zero_are_respected(tmp_path: Path) -> None:
    unsigned = (RAMP * (2**32 - 1)).astype(np.uint32)
    Image.fromarray(unsigned.view(np.int32)).save(tmp_path / "a.tif")
    retag(tmp_path / "a.tif", 339, 1)
    assert np.abs(levels(tmp_path / "a.tif") - LEVELS[..., None]).max() <= 1
    Image.fromarray((RAMP * 65535).astype(np.uint16)).save(tmp_path / "b.tif")
    retag(tmp_path / "b.tif", 262, 0)
    assert np.abs(255 - levels(tmp_path / "b.tif") - LEVELS[..., None]).max() <= 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, np.finfo(np.float32).min])
def test_pixels_without_a_value_are_refused(tmp_path: Path, value: float) -> None:
    pixels = RAMP.astype(np.float32)
    pixels[2, 3] = value
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    assert "it has pixels that are not finite numbers" in refusal(tmp_path / "a.tif")


def rgb_tiff_of_16_bits(path: Path, pixels: NDArray[np.uint16]) -> None:
    """Pillow reads them but does not write them."""
    height, width, _ = pixels.shape
    data = pixels.astype("<u2").tobytes()
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2)]
    entries += [(273, 4, 1, 14), (277, 3, 1, 3), (278, 4, 1, height), (279, 4, 1, len(data))]
    directory = b"".join(struct.pack("<HHLL", *entry) for entry in entries)
    header = b"II*\0" + struct.pack("<LHHH", 14 + len(data), 16, 16, 16)
    path.write_bytes(header + data + struct.pack("<H", len(entries)) + directory + bytes(4))


def test_colours_of_16_bits_are_scaled_unless_only_the_low_bits_are_used(tmp_path: Path) -> None:
    colours = np.asarray(COLOURS).astype(np.uint16)
    rgb_tiff_of_16_bits(tmp_path / "a.tif", colours * 257)
    assert (levels(tmp_path / "a.tif") == np.asarray(COLOURS)).all()
    rgb_tiff_of_16_bits(tmp_path / "b.tif", colours * 16)
    assert "16-bit colours are too dark" in refusal(tmp_path / "b.tif")


def _lab() -> Image.Image:
    profiles = (ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"))
    converted = ImageCms.profileToProfile(COLOURS, *profiles, outputMode="LAB")
    assert converted is not None
    return converted


COLOUR_MODES: dict[str, tuple[Callable[[], Image.Image], str]] = {
    "LAB": (_lab, "TIFF"),
    "CMYK": (lambda: COLOURS.convert("CMYK"), "TIFF"),
    "YCbCr": (lambda: COLOURS.convert("YCbCr"), "TIFF"),
    "RGBA": (lambda: COLOURS.convert("RGBA"), "PNG"),
    "P": (lambda: COLOURS.quantize(64, dither=Image.Dither.NONE), "PNG"),
    "PA": (lambda: COLOURS.quantize(64, dither=Image.Dither.NONE).convert("PA"), "TIFF"),
}


@pytest.mark.parametrize("mode", COLOUR_MODES)
def test_every_colour_mode_keeps_its_colours(tmp_path: Path, mode: str) -> None:
    made, file_format = COLOUR_MODES[mode]
    made().save(tmp_path / "image", file_format)
    assert open_image(tmp_path / "image")[1] == [f"image is {mode}"]
    assert np.abs(levels(tmp_path / "image") - np.asarray(COLOURS)).mean() < 5


def _rgba(path: Path) -> None:
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(path, format="PNG")


def _grey_and_alpha(path: Path) -> None:
    Image.new("LA", (8, 8), (0, 0)).save(path, format="PNG")


def _palette(path: Path) -> None:
    Image.new("P", (8, 8), 3).save(path, format="GIF", transparency=3)


def _grey(path: Path) -> None:
    Image.new("L", (8, 8), 255).save(path, format="JPEG")


def _bits(path: Path) -> None:
    Image.new("1", (8, 8), 1).save(path, format="PNG")


def _cmyk(path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 0, 0, 0)).save(path, format="JPEG")  # stored inverted, as Adobe does


@pytest.mark.parametrize(
    ("save", "mode"),
    [(_rgba, "RGBA"), (_grey_and_alpha, "LA"), (_palette, "P"), (_grey, "L"), (_bits, "1"), (_cmyk, "CMYK")],
)
def test_other_colour_modes_become_rgb(tmp_path: Path, save: Callable[[Path], None], mode: str) -> None:
    save(tmp_path / "image")
    image, repairs = open_image(tmp_path / "image")
    assert (image.mode, repairs) == ("RGB", [f"image is {mode}"])
    assert np.asarray(image).min() >= 250, "white, and white behind what is transparent"


@pytest.mark.parametrize("file_format", ["GIF", "TIFF", "PNG", "WEBP"])
def test_the_first_of_several_images_is_taken(tmp_path: Path, file_format: str) -> None:
    first, second = (Image.new("RGB", (8, 8), (level, 0, 0)) for level in (250, 20))
    first.save(tmp_path / "image", file_format, save_all=True, append_images=[second])
    assert levels(tmp_path / "image")[..., 0].min() > 200


def jpeg_with_exif(path: Path, exif: bytes) -> None:
    Image.new("RGB", (20, 10)).save(path, "JPEG", exif=exif)


def exif_entry(kind: int, count: int, value: bytes, *, entries: int = 1) -> bytes:
    entry = struct.pack("<HHL", 0x0112, kind, count) + value.ljust(4, b"\0")
    return b"Exif\0\0II*\0" + struct.pack("<LH", 8, entries) + entry + bytes(4)


@pytest.mark.parametrize(
    ("orientation", "size"),
    [(1, (20, 10)), (2, (20, 10)), (3, (20, 10)), (4, (20, 10)), (5, (10, 20)), (6, (10, 20)), (7, (10, 20))],
)
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int, size: tuple[int, int]) -> None:
    jpeg_with_exif(tmp_path / "a.jpeg", exif_entry(3, 1, struct.pack("<H", orientation)))
    image, repairs = open_image(tmp_path / "a.jpeg")
    assert (image.size, repairs) == (size, ["image is rotated by EXIF"] if orientation > 1 else [])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_turns_upright_as_in_pillow(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "a.png"
    COLOURS.resize((8, 4)).save(path, exif=exif_entry(3, 1, struct.pack("<H", orientation)))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert (levels(path) == expected).all()


DAMAGED_EXIF = {
    "orientation 0": exif_entry(3, 1, struct.pack("<H", 0)),
    "orientation 9": exif_entry(3, 1, struct.pack("<H", 9)),
    "a huge orientation": exif_entry(4, 1, struct.pack("<L", 2**32 - 1)),
    "an orientation in words": exif_entry(2, 4, b"six\0"),
    "a float": exif_entry(11, 1, struct.pack("<f", float("nan"))),
    "a fraction of nothing": exif_entry(5, 1, struct.pack("<L", 8)),
    "an unknown type": exif_entry(77, 1, b"\6"),
    "a value beyond the end": exif_entry(3, 9000, struct.pack("<L", 2**31)),
    "more entries than there are": exif_entry(2, 4, b"abc\0", entries=500),
    "a directory beyond the end": b"Exif\0\0II*\0" + struct.pack("<L", 2**32 - 1),
    "another magic number": b"Exif\0\0II\0\0" + struct.pack("<LH", 8, 0),
    "no byte order": b"Exif\0\0nonsense, and more of it",
    "a torn header": b"Exif\0\0II",
}


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", DAMAGED_EXIF.values(), ids=DAMAGED_EXIF.keys())
def test_an_image_with_damaged_exif_is_used_as_it_is(tmp_path: Path, exif: bytes, file_format: str) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "image", file_format, exif=exif)
    image, repairs = open_image(tmp_path / "image")
    assert (image.size, repairs) == ((20, 10), ["EXIF is damaged"])


def test_damage_elsewhere_in_exif_leaves_the_rotation(tmp_path: Path) -> None:
    broken = struct.pack("<HHLL", 0x010E, 2, 5000, 5000)
    exif = exif_entry(3, 1, struct.pack("<H", 6), entries=2)
    jpeg_with_exif(tmp_path / "a.jpeg", exif[:-4] + broken + bytes(4))
    image, repairs = open_image(tmp_path / "a.jpeg")
    assert (image.size, set(repairs)) == ((10, 20), {"EXIF is damaged", "image is rotated by EXIF"})


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


@given(st.sampled_from(list(DAMAGED_EXIF.values())), st.binary(max_size=40), st.integers(6, 40))
def test_no_bytes_in_exif_keep_an_image_from_being_read(scratch: Path, exif: bytes, noise: bytes, at: int) -> None:
    jpeg_with_exif(scratch / "a.jpeg", exif[:at] + noise + exif[at + len(noise) :])
    assert sorted(open_image(scratch / "a.jpeg")[0].size) == [10, 20]


@pytest.fixture(scope="module", params=["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000"])
def encoded(request: pytest.FixtureRequest, scratch: Path) -> bytes:
    COLOURS.save(scratch / "whole", request.param)
    return (scratch / "whole").read_bytes()


@given(st.data())
def test_damaged_bytes_give_an_image_or_one_line(scratch: Path, encoded: bytes, data: st.DataObject) -> None:
    content = bytearray(encoded[: data.draw(st.integers(0, len(encoded)))])
    for place in data.draw(st.lists(st.integers(0, max(len(content) - 1, 0)), max_size=4)) if content else ():
        content[place] = data.draw(st.integers(0, 255))
    (scratch / "damaged").write_bytes(content)
    with suppress(UserError):
        assert open_image(scratch / "damaged")[0].mode == "RGB"


def test_a_truncated_jpeg_is_repaired_and_reported(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpeg")
    content = (tmp_path / "a.jpeg").read_bytes()
    (tmp_path / "a.jpeg").write_bytes(content[: len(content) // 2])
    image, repairs = open_image(tmp_path / "a.jpeg")
    assert (image.size, repairs) == ((64, 64), ["image is truncated"])


NOT_IMAGES = {
    "text": (b"text", "of no format or layout that Pillow reads"),
    "nothing": (b"", "it is empty"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer, not the image itself"),
    "HTML": (b"\n<!DOCTYPE html><html>404</html>", "it is an HTML page"),
    "SVG": (b'<?xml version="1.0"?>\n<svg width="9"></svg>', "it is an SVG drawing"),
    "PDF": (b"%PDF-1.7 ...", "it is a PDF document"),
    "half a header": (b"\x89PNG\r\n\x1a\n\0\0", "cannot be read as an image ("),
}


@pytest.mark.parametrize(("content", "reason"), NOT_IMAGES.values(), ids=NOT_IMAGES.keys())
def test_a_file_that_is_no_image_is_named_with_the_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.jpeg").write_bytes(content)
    message = refusal(tmp_path / "a.jpeg")
    assert message.startswith(f"{tmp_path / 'a.jpeg'}: cannot be read as an image (")
    assert reason in message


def test_too_many_pixels_are_detected_from_the_header_alone(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "a.bmp")
    content = bytearray((tmp_path / "a.bmp").read_bytes())
    struct.pack_into("<ii", content, 18, 20_000, 20_000)
    (tmp_path / "a.bmp").write_bytes(content)
    assert "400000000 pixels" in refusal(tmp_path / "a.bmp")


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    assert "is not a regular file" in refusal(tmp_path / "pipe")
    assert "is not a regular file" in refusal(Path("/dev/zero"))
    assert "is a folder" in refusal(tmp_path)
    assert "is missing" in refusal(tmp_path / "gone.png")
    assert "symbolic links" in refusal(tmp_path / "loop")
    assert "File name too long" in refusal(tmp_path / ("x" * 300))
    assert "no file can have" in refusal(tmp_path / "nul\0")


def test_an_open_image_becomes_what_its_file_becomes(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    COLOURS.resize((16, 8)).save(tmp_path / "a.png", exif=exif)
    COLOURS.convert("RGBA").save(tmp_path / "b.png")
    Image.fromarray((RAMP * 65535).astype(np.uint16)).save(tmp_path / "c.png")
    for path in sorted(tmp_path.iterdir()):
        with Image.open(path) as image:
            assert np.array_equal(np.asarray(as_displayed(image)), levels(path))
    content = (tmp_path / "b.png").read_bytes()
    (tmp_path / "b.png").write_bytes(content[: content.index(b"IDAT") + 20])
    with Image.open(tmp_path / "b.png") as torn, pytest.raises(UserError, match="the image cannot be read"):
        as_displayed(torn)
