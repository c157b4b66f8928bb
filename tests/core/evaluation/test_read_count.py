from pathlib import Path

import pytest

from core.errors import UserError
from core.evaluation.read_count import TEST_READS, counted_read, final_folder, finished_reads
from core.files.json_files import read_json


def read_once(folder: Path, *, again: bool = False) -> int:
    with counted_read(folder, again=again) as count:
        return count


def test_a_read_is_recorded_before_it_begins(tmp_path: Path) -> None:
    with counted_read(tmp_path, again=False) as count:
        (recorded,) = read_json(tmp_path / TEST_READS)
        assert (count, recorded["finished"]) == (1, False)
    assert [read.finished for read in finished_reads(tmp_path)] == [True]


def test_the_split_is_read_again_only_when_asked_and_counted_then(tmp_path: Path) -> None:
    assert read_once(tmp_path) == 1
    with pytest.raises(UserError, match=r"read for this model once, the last time on 2.*; --again reads it once more"):
        read_once(tmp_path)
    assert read_once(tmp_path, again=True) == 2
    with pytest.raises(UserError, match="was read for this model 2 times"):
        read_once(tmp_path)
    assert len(finished_reads(tmp_path)) == 2


def test_an_interrupted_read_is_continued_and_counted_once(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), counted_read(tmp_path, again=False):
        raise KeyboardInterrupt
    assert finished_reads(tmp_path) == []
    assert read_once(tmp_path) == 1
    with pytest.raises(KeyboardInterrupt), counted_read(tmp_path, again=True):
        raise KeyboardInterrupt
    assert read_once(tmp_path, again=True) == 2


def test_checkpoints_of_a_final_model_lead_to_its_folder(tmp_path: Path) -> None:
    single, second = tmp_path / "checkpoint_best.pth", tmp_path / "stage2" / "checkpoint_best.pth"
    assert final_folder(single) is final_folder(second) is None
    read_once(tmp_path)
    assert final_folder(single) == final_folder(second) == tmp_path
    assert final_folder(tmp_path / "a" / "b" / "checkpoint_best.pth") is None


@pytest.mark.parametrize("content", ["{}]", "{}", '{"a": 1}', '["x"]', '[{"began": 3}]'])
def test_a_damaged_record_is_one_line_and_does_not_pass_for_none(tmp_path: Path, content: str) -> None:
    (tmp_path / TEST_READS).write_text(content)
    with pytest.raises(UserError, match=TEST_READS) as caught:
        read_once(tmp_path, again=True)
    assert "\n" not in str(caught.value)
    assert (tmp_path / TEST_READS).read_text() == content
