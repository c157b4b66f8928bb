import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.config import Positives, TrainConfig
from core.features.store import FeatureSplit
from core.training.batches import Batch, epoch_batches, steps_per_epoch
from tests.conftest import planted_split


def epoch(
    split: FeatureSplit, batch_size: int, *, positives: Positives = "image", with_regions: bool = True, seed: int = 0
) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    config = TrainConfig().with_overrides({"optimizer.batch_size": batch_size, "loss.positives": positives})
    return list(epoch_batches(split, config, with_regions=with_regions, generator=generator))


@given(st.integers(2, 12), st.integers(2, 50), st.integers(0, 5))
def test_a_caption_is_seen_at_most_once_an_epoch_and_the_rest_is_less_than_a_batch(
    groups: int, batch_size: int, seed: int
) -> None:
    split = planted_split(groups, seed=0)
    batches = epoch(split, batch_size, seed=seed)
    seen = torch.cat([batch.keys for batch in batches])  # image = caption in the planted split
    assert len(seen.unique()) == len(seen)
    assert len(split.caption_text) - len(seen) < batch_size
    assert len(batches) == steps_per_epoch(split, batch_size)


@given(st.integers(1, 12), st.integers(2, 50), st.integers(0, 5))
def test_every_region_is_dealt_exactly_once_and_evenly(groups: int, batch_size: int, seed: int) -> None:
    split = planted_split(groups, seed=0)
    batches = epoch(split, batch_size, seed=seed)
    dealt = torch.cat([batch.boxes for batch in batches])
    assert sorted(dealt.tolist()) == sorted(split.boxes.tolist())
    sizes = {batch.regions for batch in batches}
    assert max(sizes) - min(sizes) <= 1


def test_a_region_keeps_its_image_sentence_box_and_relation() -> None:
    split = planted_split(6, seed=0)
    rows_of = {tuple(box): row for row, box in enumerate(split.boxes.tolist())}
    for batch in epoch(split, 5):
        rows = torch.tensor([rows_of[tuple(box)] for box in batch.boxes.tolist()])
        assert torch.equal(batch.images[batch.pairs :], split.images[split.sentence_image[rows]])
        assert torch.equal(batch.texts[batch.pairs :], split.texts[split.sentence_text[rows]])
        assert torch.equal(batch.relations, split.relations[rows])


def test_the_alignment_stage_sees_no_region() -> None:
    for batch in epoch(planted_split(6, seed=0), 5, with_regions=False):
        assert batch.regions == 0
        assert len(batch.images) == len(batch.texts) == batch.pairs


@pytest.mark.parametrize(("positives", "distinct"), [("image", 18), ("building", 6)])
def test_positives_decide_which_rows_match(positives: Positives, distinct: int) -> None:
    (batch,) = epoch(planted_split(6, seed=0), 18, positives=positives)
    assert len(batch.keys.unique()) == distinct


def test_images_and_captions_of_a_batch_belong_together() -> None:
    split = planted_split(6, seed=0)
    captioned_twice = dataclasses.replace(
        split, caption_text=torch.cat([split.caption_text] * 2), caption_image=torch.cat([split.caption_image] * 2)
    )
    for batch in epoch(captioned_twice, 9):
        assert torch.equal(batch.images[: batch.pairs], split.images[batch.keys])
        assert torch.equal(batch.texts[: batch.pairs], split.texts[batch.keys])


def test_a_split_smaller_than_a_batch_makes_one_step() -> None:
    (batch,) = epoch(planted_split(2, seed=0), 512)
    assert batch.pairs == 6
