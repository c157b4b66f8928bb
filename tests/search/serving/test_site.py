import io
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from core import ImageIndex
from core.errors import UserError
from search.serving.site import LONGEST_QUERY, MOST_ANSWERS, Site
from tests.search.serving.conftest import TEXTS


def test_answers_name_pictures_by_row_and_below_the_folder(site: Site, index: ImageIndex, demo: Path) -> None:
    answers = site.search_pictures("  a red\n dome ", 5)
    assert len(answers) == 5
    for answer in answers:
        assert demo / "images" / "test" / answer["name"] == index.paths[answer["picture"]]
        assert len(answer["box"]) == 4
        assert str(demo) not in str(answer)


def test_questions_at_the_same_time_get_their_own_answers(site: Site) -> None:
    sentences = [*TEXTS, *reversed(TEXTS)] * 2
    alone = {sentence: site.search_pictures(sentence, 3) for sentence in TEXTS}
    with ThreadPoolExecutor(6) as pool:
        for sentence, answers in zip(sentences, pool.map(lambda s: site.search_pictures(s, 3), sentences), strict=True):
            assert answers == alone[sentence]


@pytest.mark.parametrize(
    ("sentence", "top", "message"),
    [
        (" \n ", 3, "no sentence"),
        ("a" * (LONGEST_QUERY + 1), 3, "is too long"),
        ("a dome", 0, "0 answers"),
        ("a dome", MOST_ANSWERS + 1, "ask for 1 to"),
    ],
)
def test_questions_that_are_not_answered(site: Site, sentence: str, top: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        site.search_pictures(sentence, top)


def test_an_uploaded_picture_gets_every_text_once(site: Site, index: ImageIndex) -> None:
    answers = site.search_texts(index.paths[0])
    assert {answer["text"] for answer in answers} == set(TEXTS)


def test_what_is_no_picture_is_refused_without_its_path(site: Site, wordless: Site, tmp_path: Path) -> None:
    (tmp_path / "picture").write_text("<html></html>")
    with pytest.raises(UserError, match="an HTML page") as refused:
        site.search_texts(tmp_path / "picture")
    assert str(tmp_path) not in str(refused.value)
    with pytest.raises(UserError, match="--texts"):
        wordless.search_texts(tmp_path / "picture")


def test_a_small_file_of_very_many_pixels_is_refused_before_it_is_decoded(site: Site, tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 8000, 8000, 8, 0, 0, 0, 0)
    (tmp_path / "picture").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"torn"))
    with pytest.raises(UserError, match=r"64 million pixels is too large; at most 50"):
        site.search_texts(tmp_path / "picture")


def test_pictures_are_sent_as_moderate_jpegs(site: Site, index: ImageIndex) -> None:
    with Image.open(io.BytesIO(site.show_picture(0))) as sent, Image.open(index.paths[0]) as own:
        assert (sent.format, sent.size) == ("JPEG", own.size)
    for row in (-1, len(index)):
        with pytest.raises(UserError, match="no such picture"):
            site.show_picture(row)


def test_a_picture_that_is_gone_is_an_answer_without_its_path(model: object, tmp_path: Path, demo: Path) -> None:
    source = next((demo / "images" / "test").rglob("*.jpeg"))
    os.link(source, tmp_path / "a.jpeg")
    index = ImageIndex.open(model, tmp_path, cache=tmp_path / "cache")  # type: ignore[arg-type]
    shown = Site(model, index, None, title="demo", folder=tmp_path)  # type: ignore[arg-type]
    (tmp_path / "a.jpeg").unlink()
    with pytest.raises(UserError, match="the picture is missing") as refused:
        shown.show_picture(0)
    assert str(tmp_path) not in str(refused.value)
