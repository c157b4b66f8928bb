import dataclasses

import pytest
import torch
from torch import Tensor

from core.data.overlap import paired_iou
from core.evaluation import text_only
from core.evaluation.text_only import fit_text_only
from core.features.store import FeatureSplit, Statistics
from core.model.losses import relation_loss
from tests.conftest import planted_split
from tests.core.evaluation.attending import Watched


def telling(seed: int, groups: int = 1000) -> FeatureSplit:
    """Sentences that hold the box and a code of which the relation to the first region of the image follows."""
    split = planted_split(groups, seed)
    regions = len(split.boxes)
    generator = torch.Generator().manual_seed(seed)
    code = torch.randint(0, 6, (regions,), generator=generator)
    first = torch.arange(regions) // 3 * 3
    texts = torch.cat([split.boxes, torch.nn.functional.one_hot(code, 6).float()], dim=1)
    return dataclasses.replace(split, texts=texts, first_region=first, relations=(code + code[first]) % 6)


def statistics(split: FeatureSplit) -> Statistics:
    texts, images = split.texts[:], split.images[:]
    return Statistics(images.mean(0), images.std(0), texts.mean(0), texts.std(0))


def test_it_learns_what_sentences_say_and_holds_for_other_regions() -> None:
    train, other = telling(1), telling(2)
    boxes, relations = fit_text_only(train, statistics(train)).predict(other)
    assert float(paired_iou(boxes, other.boxes).mean()) > 0.8
    assert float((relations.argmax(1) == other.relations).double().mean()) > 0.8  # which takes both sentences


def test_boxes_and_relations_are_each_trained_for_as_long_as_held_out_buildings_favour(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sentences that tell boxes and nothing of relations, which can only be learned by heart."""
    train, other = (
        dataclasses.replace(split, relations=torch.randint(0, 6, (600,), generator=torch.Generator().manual_seed(seed)))
        for seed, split in enumerate((telling(1, groups=200), telling(2, groups=200)))
    )
    iou, surprise = {}, {}
    for epochs in ((1, 60), (1,), (60,)):
        monkeypatch.setattr(text_only, "EPOCHS", epochs)
        monkeypatch.setattr(text_only, "MIN_STEPS", 1)
        boxes, relations = fit_text_only(train, statistics(train)).predict(other)
        iou[epochs] = float(paired_iou(boxes, other.boxes).mean())
        surprise[epochs] = float(relation_loss(relations, other.relations))
    assert iou[1, 60] == iou[60,] > iou[1,]
    assert surprise[1, 60] == surprise[1,] < surprise[60,]


def test_equal_seeds_give_equal_networks() -> None:
    train = telling(1, groups=20)
    one, same, other = (fit_text_only(train, statistics(train), seed=seed).predict(train)[0] for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_the_network_leaves_the_random_state_alone() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    train = telling(1, groups=10)
    fit_text_only(train, statistics(train))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_regions_without_a_relation_are_no_obstacle() -> None:
    train = dataclasses.replace(telling(1, groups=10), relations=torch.full((30,), -1))
    boxes, relations = fit_text_only(train, statistics(train)).predict(train)
    assert boxes.isfinite().all()
    assert relations.isfinite().all()


def test_boxes_are_ordered_and_within_the_image() -> None:
    train = telling(1, groups=10)
    boxes, _ = fit_text_only(train, statistics(train)).predict(far_off(train))
    assert float(boxes.min()) >= 0
    assert float(boxes.max()) <= 1
    assert (boxes[:, 2:] >= boxes[:, :2]).all()


def far_off(split: FeatureSplit) -> FeatureSplit:
    texts: Tensor = 100 * split.texts[:]
    return dataclasses.replace(split, texts=texts)


def test_large_splits_are_read_in_part_and_predicted_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    train = telling(1, groups=100)
    watched = Watched(train.texts[:])
    monkeypatch.setattr(text_only, "MOST_REGIONS", 40)
    network = fit_text_only(dataclasses.replace(train, texts=watched), statistics(train))
    assert 40 <= watched.most <= 80  # regions, and the first ones of their images
    watched.most = 0
    monkeypatch.setattr(text_only, "READ_BYTES", 4 * 2 * 10 * 25)
    boxes, _ = network.predict(dataclasses.replace(train, texts=watched))
    assert watched.most == 25
    torch.testing.assert_close(boxes, network.predict(train)[0])
