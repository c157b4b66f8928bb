"""Tests of core.files.ownership."""

import multiprocessing
import os
from pathlib import Path

import pytest

from core.errors import UserError
from core.files.ownership import claim_folder, hold_folder, read_holder, scratch_folder


def test_a_claim_makes_the_folder_and_keeps_its_id(tmp_path: Path) -> None:
    first = claim_folder(tmp_path / "new", ["log.txt"])
    assert claim_folder(tmp_path / "new", ["log.txt", "other.txt"]) == first
    assert claim_folder(tmp_path / "another", ["log.txt"]) != first


def test_a_foreign_file_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "checkpoint_3.pth").write_text("mine")
    with pytest.raises(UserError, match=r"holds checkpoint_3.pth, which crossmodal did not write"):
        claim_folder(tmp_path, ["log.txt", "checkpoint_*.pth"])
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_3.pth"]


def test_other_files_of_a_claimed_folder_stay_foreign(tmp_path: Path) -> None:
    claim_folder(tmp_path, ["log.txt"])
    (tmp_path / "metrics.json").write_text("mine")
    with pytest.raises(UserError, match=r"metrics\.json"):
        claim_folder(tmp_path, ["metrics.json"])
    assert (tmp_path / "metrics.json").read_text() == "mine"


def test_a_claimed_name_may_be_written_again(tmp_path: Path) -> None:
    claim_folder(tmp_path, ["log.txt"])
    (tmp_path / "log.txt").write_text("ours")
    claim_folder(tmp_path, ["log.txt"])


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"id": 3, "files": []}', '{"id": "a", "files": [1]}'])
def test_a_damaged_identity_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "identity.json").write_text(content)
    with pytest.raises(UserError, match=r"identity\.json"):
        claim_folder(tmp_path, ["log.txt"])
    assert (tmp_path / "identity.json").read_text() == content


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError, match="is a file"):
        claim_folder(tmp_path / "out", ["log.txt"])


def _hold(root: Path, answer: "multiprocessing.Queue[str]") -> None:
    try:
        with hold_folder(root, ["log.txt"]):
            answer.put("held")
    except UserError as error:
        answer.put(str(error))


def test_a_second_process_is_refused_by_name_while_the_first_holds_the_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answer: multiprocessing.Queue[str] = context.Queue()
    with hold_folder(tmp_path, ["log.txt"]):
        other = context.Process(target=_hold, args=(tmp_path, answer))
        other.start()
        assert f"process {os.getpid()} on" in answer.get()
        other.join()
        assert read_holder(tmp_path) is not None  # the refused process left the file alone
    assert read_holder(tmp_path) is None
    other = context.Process(target=_hold, args=(tmp_path, answer))
    other.start()
    assert answer.get() == "held"
    other.join()


@pytest.mark.parametrize("content", ["[]", "{}", '{"pid": "x", "host": 3}', "{"])
def test_a_damaged_holder_file_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "driver.json").write_text(content)
    with pytest.raises(UserError, match=r"driver\.json"):
        read_holder(tmp_path)


def test_a_scratch_folder_removes_only_itself(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with scratch_folder(tmp_path) as scratch:
        (scratch / "whole").write_text("ours")
        (scratch / "half").write_text("ours")
        (scratch / "whole").rename(tmp_path / "whole")
    with pytest.raises(ZeroDivisionError), scratch_folder(tmp_path) as scratch:
        (scratch / str(1 // 0)).mkdir()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"mine.txt": "mine", "whole": "ours"}
