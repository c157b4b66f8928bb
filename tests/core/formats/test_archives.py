import io
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UserError
from core.formats.archives import is_zip, members, tar_members
from core.formats.records import Findings


def tar(path: Path, files: dict[str, bytes], mode: Any = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


FILES = {"a/b.txt": b"one", "a/._b.txt": b"of macOS", "c.txt": b"two"}


def test_files_of_tars_and_zips_are_read_in_their_order(tmp_path: Path) -> None:
    archives = [
        tar(tmp_path / "a.tar", FILES),
        tar(tmp_path / "a.tar.gz", FILES, "w:gz"),
        zipped(tmp_path / "a.zip", FILES),
    ]
    assert [is_zip(path) for path in archives] == [False, False, True]
    for path in archives:
        assert [(name, read()) for name, read in members(path, Findings())] == [("a/b.txt", b"one"), ("c.txt", b"two")]


def test_links_and_devices_of_a_tar_are_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo("passwd")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    assert list(tar_members(tmp_path / "a.tar", Findings())) == []


def test_a_file_that_would_fill_the_memory_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.formats.archives.LARGEST", 2)
    findings = Findings()
    assert list(tar_members(tar(tmp_path / "a.tar", FILES), findings)) == []
    assert findings.dropped == {"file of more than 1 GiB": 3}


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=30), st.sampled_from(["w", "w:gz", "w:xz", "zip"]))
def test_a_damaged_archive_is_one_line(place: int, damage: bytes, kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.tar"
        intact = zipped(path, FILES) if kind == "zip" else tar(path, FILES, kind)
        content = bytearray(intact.read_bytes())
        start = place % len(content)
        content[start : start + len(damage)] = damage
        path.write_bytes(bytes(content))
        try:
            for _, read in members(path, Findings()):
                read()
        except UserError as error:
            assert "is not an intact" in str(error)  # noqa: PT017
