from pathlib import Path

import pytest

from core.errors import UserError
from core.files.text_files import read_text


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("müde", encoding="utf-8-sig")
    assert read_text(path) == "müde"


def test_other_encodings_are_named_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("müde", encoding="latin-1")
    with pytest.raises(UserError, match=r"names\.txt: is not UTF-8 text \(byte 1\); save it as UTF-8"):
        read_text(path)
