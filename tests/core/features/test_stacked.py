import pytest
import torch

from core.features.stacked import StackedTable, stack_splits, train_on_all
from core.features.store import Features, gather
from tests.conftest import planted_split


@pytest.mark.parametrize(
    "rows",
    [slice(0, 5), slice(1, 2), slice(2, 4), slice(3, 9), slice(None), [4, 0, 2, 2, 3], [1, 0], [3], []],
    ids=str,
)
def test_rows_are_those_of_both_tables_one_above_the_other(rows: slice | list[int]) -> None:
    upper, lower = torch.arange(6.0).view(3, 2), 10 + torch.arange(4.0).view(2, 2)
    stacked, whole = StackedTable(upper, lower), torch.cat([upper, lower])
    wanted = rows if isinstance(rows, slice) else torch.tensor(rows, dtype=torch.int64)
    assert torch.equal(stacked[wanted], whole[wanted])
    assert torch.equal(stacked.to(torch.device("cpu"))[wanted], whole[wanted])
    assert (len(stacked), tuple(stacked.shape)) == (5, (5, 2))


def test_every_caption_and_region_keeps_its_own_image_text_and_reference() -> None:
    upper, lower = planted_split(4, seed=0, side=3), planted_split(3, seed=1, side=3)
    whole = stack_splits(upper, lower)
    images, regions = len(upper.groups), len(upper.boxes)
    for number in range(len(lower.caption_image)):
        row, own = torch.tensor([len(upper.caption_image) + number]), torch.tensor([number])
        for table, index in (("images", "caption_image"), ("texts", "caption_text"), ("grid", "caption_image")):
            found = gather(getattr(whole, table), getattr(whole, index)[row])
            assert torch.equal(found, gather(getattr(lower, table), getattr(lower, index)[own]))
    assert torch.equal(whole.sentence_image[regions:] - images, lower.sentence_image)
    assert torch.equal(whole.first_region[regions:] - regions, lower.first_region)
    assert torch.equal(whole.sentence_text[:regions], upper.sentence_text)
    assert torch.equal(whole.boxes, torch.cat([upper.boxes, lower.boxes]))
    assert torch.equal(whole.groups, torch.cat([upper.groups, lower.groups]))


def test_only_the_training_split_grows(planted_features: Features) -> None:
    both = train_on_all(planted_features)
    assert len(both.train.images) == len(planted_features.train.images) + len(planted_features.validation.images)
    assert both.validation is planted_features.validation
    assert both.statistics is planted_features.statistics
    assert both.fingerprint == planted_features.fingerprint
