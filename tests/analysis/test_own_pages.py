from pathlib import Path

import pytest

from analysis.own_pages import require_free_page, write_page
from core.errors import UserError


def test_a_page_of_ours_is_overwritten_and_any_other_file_is_kept(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    for searched in ("2 pictures", "3 pictures"):
        write_page(page, "retrieval.html", {"title": "a dome", "searched": searched, "notes": [], "cards": []})
        assert searched in page.read_text()
    page.write_text("<html>mine</html>")
    with pytest.raises(UserError, match="was not written by crossmodal, and is kept; name another file"):
        write_page(page, "retrieval.html", {})
    assert page.read_text() == "<html>mine</html>"


def test_where_no_page_can_be_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "folder.html").mkdir()
    for name, problem in (
        ("page", "is not the name of a page; let it end in .html"),
        ("folder.html", "is a folder"),
        ("gone/page.html", "there is no such folder"),
    ):
        with pytest.raises(UserError, match=problem):
            require_free_page(tmp_path / name)
