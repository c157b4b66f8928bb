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


@given(st.lists(st.integers(0, 4), min_size=18, max_size=18), st.integers(0, 5))
def test_pairs_match_by_image_or_by_caption(captions: list[int], seed: int) -> None:
    """18 captions of 18 images, of which some are the same text."""
    split = dataclasses.replace(planted_split(6, seed=0), caption_text=torch.tensor(captions))
    (batch,) = epoch(split, 18, positives="text", seed=seed)
    assert batch.caption_keys is not None
    same = batch.same()
    for one, (image, text) in enumerate(zip(batch.keys.tolist(), batch.caption_keys.tolist(), strict=True)):
        assert captions[image] == text  # caption i is of image i
        for other in range(18):
            matches = image == int(batch.keys[other]) or text == int(batch.caption_keys[other])
            assert bool(same[one, other]) is bool(same[other, one]) is matches


def test_pairs_that_match_by_image_or_by_caption_need_not_match_each_other() -> None:
    """Captions 0 and 1 are of one image, 1 and 2 are one text."""
    split = dataclasses.replace(
        planted_split(1, seed=0), caption_image=torch.tensor([0, 0, 1]), caption_text=torch.tensor([0, 1, 1])
    )
    (batch,) = epoch(split, 3, positives="text")
    order = torch.argsort(batch.keys * 10 + batch.caption_keys)  # type: ignore[operator]
    assert batch.same()[order][:, order].tolist() == [[True, True, False], [True, True, True], [False, True, True]]


@pytest.mark.parametrize("changes", [{"fusion": "attention"}, {"image_pooling": "attention"}, {}])
def test_a_batch_holds_grids_and_references_where_the_model_looks_at_them(changes: dict[str, str]) -> None:
    split = planted_split(6, seed=0, side=5)
    first = torch.arange(18) // 3 * 3
    split = dataclasses.replace(split, first_region=first, sentence_text=torch.arange(18).flip(0))
    rows_of = {tuple(box): row for row, box in enumerate(split.boxes.tolist())}
    config = TrainConfig().with_overrides(
        {"optimizer.batch_size": 5} | {f"model.{key}": value for key, value in changes.items()}
    )
    for batch in epoch_batches(split, config, with_regions=True, generator=torch.Generator().manual_seed(0)):
        assert (batch.grid is None) is not config.model.uses_grid
        assert (batch.references is None) is (config.model.fusion != "attention")
        rows = torch.tensor([rows_of[tuple(box)] for box in batch.boxes.tolist()])
        pair_images = (batch.images[:, None] == split.images[:]).all(dim=2).int().argmax(dim=1)
        if batch.grid is not None:
            images = torch.cat([pair_images[: batch.pairs], split.sentence_image[rows]])
            assert torch.equal(batch.grid, split.grid[images])  # type: ignore[index]
        if batch.references is not None:
            assert torch.equal(batch.references, split.texts[split.sentence_text[first[rows]]])


@pytest.mark.parametrize("fusion", ["interaction", "attention"])
def test_a_copied_batch_lies_in_memory_of_its_own(fusion: str) -> None:
    config = TrainConfig().with_overrides(
        {
            "optimizer.batch_size": 6,
            "model.fusion": fusion,
            "loss.positives": "text" if fusion == "attention" else "image",
        }
    )
    split, generator = planted_split(6, seed=0, side=5), torch.Generator().manual_seed(0)
    first, second, *_ = epoch_batches(split, config, with_regions=True, generator=generator)
    held = first.clone()
    held.copy_(second)
    for field in dataclasses.fields(Batch):
        value, copied = getattr(second, field.name), getattr(held, field.name)
        assert (value is None) is (copied is None) is (getattr(first, field.name) is None)
        if value is not None:
            assert torch.equal(value, copied)
            assert value.data_ptr() != copied.data_ptr()


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
