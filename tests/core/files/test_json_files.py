import math
import os
from pathlib import Path

import pytest

from core.errors import UserError
from core.files.atomic import write_atomically
from core.files.json_files import append_json_line, read_json, read_json_lines


def test_a_torn_last_line_is_neither_read_nor_kept(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    append_json_line(path, {"epoch": 0})
    with path.open("a") as stream:
        stream.write('{"epoch": 1, "lo')
    assert read_json_lines(path) == [{"epoch": 0}]
    append_json_line(path, {"epoch": 1})
    assert read_json_lines(path) == [{"epoch": 0}, {"epoch": 1}]


def test_a_broken_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text('{"epoch": 0}\nnonsense\n{"epoch": 2}\n')
    with pytest.raises(UserError, match=r"log\.txt: line 2 is not valid JSON"):
        read_json_lines(path)


def test_malformed_json_names_the_place(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_text('[{"a": 1},\n {"b" 2}]')
    with pytest.raises(UserError, match=r"train\.json: is not valid JSON .* at line 2 column 7"):
        read_json(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\0\0", "is empty"),
        ('[{"image": "a"}]'.encode("utf-16"), "is UTF-16 text, not UTF-8"),
        ('[{"image": "a"}]'.encode("utf-16-be"), "is UTF-16-BE text, not UTF-8"),
        ('[{"image": "a"}]'.encode("utf-32"), "is UTF-32 text, not UTF-8"),
        ('["ä"]'.encode("latin-1"), "is not UTF-8 text (byte 2)"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"a":' * 100_000, "is nested too deeply"),
        (
            b'[{"image": "a", "caption": "one", "caption": "two"}]',
            "the key caption is given twice in {'caption': 'two',",
        ),
        (b'{"\\ud800": 1, "\\ud800": 1}', "the key \\ud800 is given twice"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a Git LFS pointer"),
        (b"\x1f\x8b\x08\0", "is not UTF-8 text (byte 1)"),
    ],
)
def test_a_file_that_is_no_json_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "train.json").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_json(tmp_path / "train.json")
    assert str(caught.value).startswith(f"{tmp_path / 'train.json'}: is ")
    assert message in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": 1}', encoding="utf-8-sig")
    assert read_json(tmp_path / "a.json") == {"a": 1}


def test_a_number_of_more_digits_than_python_reads_is_infinite(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(f"[-{'9' * 5000}, {'9' * 400}]")
    assert read_json(tmp_path / "a.json") == [-math.inf, 10**400 - 1]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    for read in (read_json, read_json_lines):
        with pytest.raises(UserError, match="is not a regular file, not a JSON file"):
            read(tmp_path / "a.json")


@pytest.mark.parametrize("line", ["[1]", "5", "[" * 100_000, '{"a": 1, "a": 2}', "\0", "{'a': 1}"])
def test_a_line_that_is_no_object_is_an_error(tmp_path: Path, line: str) -> None:
    (tmp_path / "log.txt").write_text(f'{{"epoch": 0}}\n{line}\n')
    with pytest.raises(UserError, match=r"log\.txt: line 2 is not"):
        read_json_lines(tmp_path / "log.txt")


def test_a_missing_log_is_empty(tmp_path: Path) -> None:
    assert read_json_lines(tmp_path / "log.txt") == []


def test_parents_are_made(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b" / "c.txt", "text")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "text"
