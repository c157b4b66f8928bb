import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UserError
from core.formats import json_lines
from tests.core.formats.sources import ANYTHING, draw, import_to, read_records, survives

LINES = [
    {"image": "a.jpg", "caption": "one", "split": "train", "sentences": ["this"], "bboxes": [[4, 2, 40, 20]]},
    {"image": "b.jpg", "caption": ["two", "three"], "split": "test"},
]


def test_lines_are_records_and_a_broken_one_is_counted(tmp_path: Path) -> None:
    draw(tmp_path, "a.jpg", "b.jpg")
    source = tmp_path / "all.jsonl"
    source.write_text("\n".join([json.dumps(LINES[0]), "", '{"image": "c.jp', json.dumps(LINES[1])]))
    files, imported = import_to(source, tmp_path / "out")
    assert files["train"] == [
        {
            "image_id": "a/a.jpg",
            "image": "a.jpg",
            "caption": "one",
            "sentences": ["this"],
            "bboxes": [[0.55, 0.55, 0.9, 0.9]],
        }
    ]
    assert files["test"][0]["caption"] == ["two", "three"]
    assert imported.findings.dropped == {"line that is not JSON": 1}
    assert "all.jsonl: line 3: line that is not JSON" in imported.findings.messages[0]


def test_a_git_lfs_pointer_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    with pytest.raises(UserError, match="is a Git LFS pointer, not the file itself; run git lfs pull"):
        read_records(json_lines.read, tmp_path / "a.jsonl")


@settings(max_examples=40)
@given(st.lists(ANYTHING, max_size=3), st.binary(max_size=10))
def test_any_lines_are_a_data_set_or_one_line(values: list[object], rest: bytes) -> None:
    survives("a.jsonl", "\n".join(map(json.dumps, values)).encode() + b"\n" + rest)
