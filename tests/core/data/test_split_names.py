from pathlib import PurePath

import pytest

from core.data.split_names import split_called, split_in_name


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("captions_val2017.json", "validation"),
        ("rsicd_train.json", "train"),
        ("RSITMD_test.json", "test"),
        ("flickr-test-000001.tar", "test"),
        ("test/00000.tar", "test"),
        ("latest.csv", "train"),
        ("contest/all.csv", "train"),
        ("my test data/all.csv", "train"),
    ],
)
def test_a_file_is_of_the_split_that_its_name_or_folder_has_as_a_word(path: str, split: str) -> None:
    assert split_in_name(PurePath(path)) == split


def test_karpathys_restval_is_trained_on_and_other_words_are_no_split() -> None:
    assert [split_called(name) for name in ("restval", "VAL", " test ", "holdout")] == [
        "train",
        "validation",
        "test",
        None,
    ]
