from pathlib import Path

import pytest
from PIL import Image

from analysis.retrieval_page import Answer, Answers, facts_of, write_retrieval_page


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (40, 20), "black").save(tmp_path / "a.png")
    return tmp_path / "a.png"


def answer(path: Path | None, text: str | None = None) -> Answer:
    return Answer(path, text, 0.25, (0.1, 0.1, 0.5, 0.5), "left", 0.5)


def page(folder: Path, answers: Answers) -> str:
    write_retrieval_page(folder / "page.html", answers)
    return (folder / "page.html").read_text()


def test_the_page_holds_the_pictures_and_what_is_known_of_them(picture: Path, tmp_path: Path) -> None:
    html = page(tmp_path, Answers("a <b>dome</b>", None, "2 pictures", [answer(picture)] * 2, ["a note"]))
    assert html.count('<img src="data:image/jpeg;base64,') == 2
    assert "<h1>a &lt;b&gt;dome&lt;/b&gt;</h1>" in html
    assert f"2. {picture}<small>similarity 0.250, match 50.0%, relation left</small>" in html
    assert "a note" in html
    assert "http" not in html.replace("http-equiv", "")


def test_texts_are_shown_with_the_picture_that_asked(picture: Path, tmp_path: Path) -> None:
    html = page(tmp_path, Answers(str(picture), picture, "1 text", [answer(None, "a dome")]))
    assert "1. a dome<small>" in html
    assert html.count("<img") == 1


def test_a_lost_picture_leaves_its_line(tmp_path: Path) -> None:
    html = page(tmp_path, Answers("a dome", None, "1 picture", [answer(tmp_path / "gone.png")]))
    assert "gone.png" in html
    assert "<img" not in html


def test_only_what_is_known_is_said() -> None:
    assert facts_of(Answer(None, "a", 0.5, None, None, None)) == ["similarity 0.500"]
