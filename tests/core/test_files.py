import os
import stat
from pathlib import Path

import pytest

from core.errors import UserError
from core.files import CampaignFolder, append_json_line, read_json, read_json_lines, write_atomically, write_json


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]


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


def test_a_missing_log_is_empty(tmp_path: Path) -> None:
    assert read_json_lines(tmp_path / "log.txt") == []


def test_parents_are_made(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b" / "c.txt", "text")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "text"


def test_trials_lie_under_their_number() -> None:
    assert CampaignFolder(Path("x")).trial(7).config == Path("x/trials/0007/config.yaml")


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_the_umask_decides_who_may_read_a_file(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "file", "content")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode
