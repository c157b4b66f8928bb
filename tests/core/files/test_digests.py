"""Tests of core.files.digests."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from core.errors import UserError
from core.files import digests
from core.files.digests import file_digests
from core.files.sealed import read_sealed, write_sealed


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.jpeg" for number in range(5)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 1000)
    return paths


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "memory"


def remembered(memory: Path) -> Path:
    (path,) = (path for path in memory.glob("*.json") if path.name != "identity.json")
    return path


def replace_unseen(path: Path, memory: Path) -> None:
    """New content, and a cache that contains its size and times: as if the clock had been set back."""
    path.write_bytes(b"x" * path.stat().st_size)
    stat = path.stat()
    content = read_sealed(remembered(memory))
    content["files"][str(path)][:3] = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    write_sealed(remembered(memory), content)


def test_equal_content_has_equal_digests_under_any_name(files: list[Path], memory: Path) -> None:
    files[1].write_bytes(files[0].read_bytes())
    found = file_digests(files, memory)
    assert found[0] == found[1]
    assert len(set(found)) == 4


def test_a_file_is_not_read_twice_beyond_a_sample(
    files: list[Path], memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = file_digests(files, memory)
    monkeypatch.setattr(digests, "SAMPLED_PIECES", 0)
    monkeypatch.setattr(digests, "_piece_digest", None)
    assert file_digests(files, memory) == first


def test_a_replaced_file_of_equal_size_and_time_is_read(
    files: list[Path], memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "SAMPLED_PIECES", 0)
    before, stat = file_digests(files, memory), files[2].stat()
    files[2].write_bytes(b"y" * stat.st_size)
    os.utime(files[2], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = file_digests(files, memory)
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, True, False, True, True]


def test_the_sample_finds_a_change_that_no_time_shows(files: list[Path], memory: Path) -> None:
    before = file_digests(files, memory)
    replace_unseen(files[3], memory)
    assert file_digests(files, memory)[3] != before[3]


def test_verifying_reads_what_the_sample_left_out(
    files: list[Path], memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "SAMPLED_PIECES", 0)
    before = file_digests(files, memory)
    replace_unseen(files[3], memory)
    assert file_digests(files, memory) == before
    verified = file_digests(files, memory, verify=True)
    assert verified[3] != before[3]
    assert file_digests(files, memory) == verified, "it is remembered, too"


def test_every_piece_of_a_big_file_counts(tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "PIECE_BYTES", 100)
    path = tmp_path / "weights"
    seen = set()
    for place in (None, 0, 99, 100, 555, 949):
        content = bytearray(950)
        if place is not None:
            content[place] = 1
        path.write_bytes(content)
        seen.add(file_digests([path], memory)[0])
    assert len(seen) == 6


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"{}", b'{"files": 3}', b"\x00" * 500])
def test_a_torn_cache_is_ignored(files: list[Path], memory: Path, raw: bytes) -> None:
    before = file_digests(files, memory)
    remembered(memory).write_bytes(raw)
    assert file_digests(files, memory) == before


def test_an_edited_cache_is_ignored(files: list[Path], memory: Path) -> None:
    before = file_digests(files, memory)
    content = json.loads(remembered(memory).read_text())
    content["files"][str(files[0])][3] = "0" * 64
    remembered(memory).write_text(json.dumps(content))
    assert file_digests(files, memory) == before


def test_a_foreign_folder_is_not_used_as_a_cache(files: list[Path], memory: Path) -> None:
    memory.mkdir()
    (memory / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds notes\.txt, which crossmodal did not write"):
        file_digests(files, memory)
    assert [path.name for path in memory.iterdir()] == ["notes.txt"]


def test_a_named_list_reads_only_the_files_that_joined_it(
    files: list[Path], memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = file_digests(files[:3], memory, name="pictures")
    read: list[Path] = []
    real = digests._read

    def counted(paths: Sequence[Path], stamps: Mapping[Path, tuple[int, int, int]]) -> "dict[Path, digests._Known]":
        read.extend(paths)
        return real(paths, stamps)

    monkeypatch.setattr(digests, "_read", counted)
    assert file_digests(files[1:], memory, name="pictures")[:2] == first[1:]
    assert read == files[3:]
