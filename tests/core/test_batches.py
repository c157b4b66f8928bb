import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.batches import pair_batches, region_batches, steps_per_epoch
from core.config import Positives
from tests.conftest import planted_split


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.integers(2, 12), st.integers(2, 50), st.integers(0, 5))
def test_a_caption_is_seen_at_most_once_an_epoch_and_the_rest_is_less_than_a_batch(
    groups: int, batch_size: int, seed: int
) -> None:
    split = planted_split(groups, seed=0)
    batches = list(pair_batches(split, batch_size=batch_size, positives="image", generator=seeded(seed)))
    seen = torch.cat([batch.keys for batch in batches])  # image = caption in the planted split
    assert len(seen.unique()) == len(seen)
    assert len(split.caption_text) - len(seen) < batch_size
    assert len(batches) == steps_per_epoch(split, batch_size)


@given(st.integers(1, 12), st.integers(1, 9), st.integers(0, 5))
def test_every_region_is_dealt_exactly_once(groups: int, steps: int, seed: int) -> None:
    split = planted_split(groups, seed=0)
    batches = list(region_batches(split, steps=steps, generator=seeded(seed)))
    assert len(batches) == steps
    dealt = torch.cat([batch.boxes for batch in batches])
    assert sorted(dealt.tolist()) == sorted(split.boxes.tolist())


@pytest.mark.parametrize(("positives", "distinct"), [("image", 18), ("building", 6)])
def test_positives_decide_which_rows_match(positives: Positives, distinct: int) -> None:
    (batch,) = pair_batches(planted_split(6, seed=0), batch_size=18, positives=positives, generator=seeded(0))
    assert len(batch.keys.unique()) == distinct


def test_images_and_captions_of_a_batch_belong_together() -> None:
    split = planted_split(6, seed=0)
    captioned_twice = dataclasses.replace(
        split, caption_text=torch.cat([split.caption_text] * 2), caption_image=torch.cat([split.caption_image] * 2)
    )
    for batch in pair_batches(captioned_twice, batch_size=9, positives="image", generator=seeded(0)):
        assert torch.equal(batch.images, split.images[batch.keys])
        assert torch.equal(batch.captions, split.texts[batch.keys])


def test_a_split_smaller_than_a_batch_makes_one_step() -> None:
    (batch,) = pair_batches(planted_split(2, seed=0), batch_size=512, positives="image", generator=seeded(0))
    assert len(batch.images) == 6
