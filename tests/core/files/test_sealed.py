"""Tests of core.files.sealed."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.files.sealed import read_sealed, write_sealed

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
CONTENTS = st.dictionaries(st.text().filter(lambda name: name != "seal"), VALUES, max_size=4)
ON_ONE_FILE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@ON_ONE_FILE
@given(CONTENTS)
def test_what_was_written_is_read(tmp_path: Path, content: dict[str, object]) -> None:
    write_sealed(tmp_path / "a.json", content)
    assert read_sealed(tmp_path / "a.json") == content


@ON_ONE_FILE
@given(CONTENTS, VALUES, st.data())
def test_no_other_content_passes(
    tmp_path: Path, content: dict[str, object], other: object, data: st.DataObject
) -> None:
    path = tmp_path / "a.json"
    write_sealed(path, content)
    whole = json.loads(path.read_text())
    edited = {**whole, data.draw(st.sampled_from(sorted(whole))): other}
    path.write_text(json.dumps(edited))
    if json.dumps(edited, sort_keys=True) == json.dumps(whole, sort_keys=True):
        assert read_sealed(path) == content
    else:
        with pytest.raises(ValueError, match="has no valid seal"):
            read_sealed(path)


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b"null", b"\xff\xfe", b"[" * 100_000, b'{"seal": "0"}', b"1" * 5000]
)
def test_what_was_not_written_here_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "a.json").write_bytes(raw)
    with pytest.raises(ValueError):  # noqa: PT011
        read_sealed(tmp_path / "a.json")
