from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data.annotations import AnnotatedImage
from core.data.splits import Split, split_by_group
from core.errors import UserError


def records(groups: list[int]) -> list[AnnotatedImage]:
    return [AnnotatedImage(Path(f"{i}"), f"{g}/{i}", str(g), ("text",), ()) for i, g in enumerate(groups)]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(0, 5), st.floats(0.05, 0.95))
def test_no_building_straddles_and_no_image_is_lost(groups: list[int], seed: int, fraction: float) -> None:
    members = records(groups)
    fractions: dict[Split, float] = {"train": 1 - fraction, "validation": fraction}
    if len(set(groups)) < 2:
        with pytest.raises(UserError, match="cannot be split"):
            split_by_group(members, fractions, seed)
        return
    splits = split_by_group(members, fractions, seed)
    train = {record.group for record in splits["train"]}
    validation = {record.group for record in splits["validation"]}
    assert train
    assert validation
    assert not train & validation
    assert sorted(r.image_id for split in splits.values() for r in split) == sorted(r.image_id for r in members)
    shuffled = split_by_group(members[::-1], fractions, seed)
    assert {record.group for record in shuffled["train"]} == train
