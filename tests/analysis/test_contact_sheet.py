import re
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.contact_sheet import IMAGES, SheetImage, SheetRegion, chosen_rows, write_sheet
from tests.browser import browser, find_browser

BROWSER = find_browser()
WIDE = "document.documentElement.scrollWidth - innerWidth"
PICTURES = "[...document.images].map(image => image.complete && image.naturalWidth > 0)"


@pytest.fixture
def files(demo: Path) -> dict[str, list[SheetImage]]:
    first, second = SheetRegion("a red roof", (0, 0, 1, 0.5), None), SheetRegion("a pool", (0.9, 0.9, 1, 1), "below")
    return {
        split: [
            SheetImage(path, path.name, path.parent.name, [f"caption of {path.name}"], [first, second])
            for path in sorted((demo / "images" / split).rglob("*.jpeg"))
        ]
        for split in ("train", "test")
    }


def test_rows_are_at_equal_distances_and_always_the_same() -> None:
    assert chosen_rows(100, 4) == [0, 25, 50, 75]
    assert chosen_rows(3, 24) == [0, 1, 2]
    assert chosen_rows(0, 24) == []


def test_the_sheet_shows_images_with_captions_and_sentences(files: dict[str, list[SheetImage]], tmp_path: Path) -> None:
    write_sheet(tmp_path / "sheet.html", files)
    text = (tmp_path / "sheet.html").read_text()
    assert text.count("data:image/jpeg") == IMAGES
    assert "24 of 36 images" in text
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    first = files["train"][0]
    for expected in (*first.captions, "a red roof", "(reference region)", "a pool", "(below)"):
        assert expected in text
    before = text
    write_sheet(tmp_path / "sheet.html", files)  # its own page is overwritten
    assert (tmp_path / "sheet.html").read_text() == before


def test_texts_are_escaped(files: dict[str, list[SheetImage]], tmp_path: Path) -> None:
    (image, *_) = files["train"]
    shown = replace(image, captions=["<script>x</script>"])
    write_sheet(tmp_path / "sheet.html", {"<b>.json": [shown], "empty.json": []})
    text = (tmp_path / "sheet.html").read_text()
    assert "<script>" not in text
    assert "&lt;b&gt;.json" in text


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
@pytest.mark.parametrize("width", [400, 1400])
def test_a_browser_shows_the_sheet_without_errors_at_any_width(
    files: dict[str, list[SheetImage]], tmp_path: Path, width: int
) -> None:
    assert BROWSER is not None
    write_sheet(tmp_path / "sheet.html", files)
    with browser(BROWSER) as opened:
        opened.open(tmp_path / "sheet.html", width=width)
        assert opened.evaluate(WIDE) <= 0, "something runs off the right edge"
        pictures = opened.evaluate(PICTURES)
        assert len(pictures) == IMAGES
        assert all(pictures)
        assert (opened.errors, opened.requests) == ([], [])
