import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from core.config import Fusion, LossConfig, ModelConfig
from core.features.store import Widths
from core.model.losses import (
    Losses,
    Negatives,
    box_loss,
    contrastive_logits,
    hard_negatives,
    itc_loss,
    itm_loss,
    overlapping_itc_loss,
    random_negatives,
    relation_loss,
    sigmoid_loss,
    weighted_sum,
)
from core.model.model import CrossModalModel
from core.model.views import ImageView, TextView

ONE = torch.tensor(1.0)


def same_group(groups: Tensor) -> Tensor:
    return groups[:, None] == groups


def unit(rows: int, seed: int, width: int = 5) -> Tensor:
    return functional.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_itc_of_a_constant_model_is_the_logarithm_of_the_batch() -> None:
    same = unit(1, 0).expand(8, -1)
    logits = contrastive_logits(same, same, torch.tensor(0.07))
    assert itc_loss(logits, torch.eye(8).bool()).item() == pytest.approx(math.log(8), abs=1e-5)


def test_itc_of_two_orthogonal_pairs_by_hand() -> None:
    rows = torch.eye(2)
    loss = itc_loss(contrastive_logits(rows, rows, ONE), torch.eye(2).bool())
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)), abs=1e-6)


def slow_itc(logits: Tensor, groups: list[int]) -> Tensor:
    """Cross-entropy with equal shares of all positives, pair by pair."""
    total = torch.zeros((), dtype=logits.dtype)
    for scores in (logits, logits.T):
        for row, group in enumerate(groups):
            positives = [column for column, other in enumerate(groups) if other == group]
            total = total - scores[row].log_softmax(0)[positives].mean()
    return total / (2 * len(groups))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.integers(0, 100), st.sampled_from([0.001, 0.07, 1.0]))
def test_itc_and_its_gradient_equal_a_slow_sum_over_positives(groups: list[int], seed: int, temperature: float) -> None:
    logits = contrastive_logits(unit(len(groups), seed), unit(len(groups), seed + 1), torch.tensor(temperature))
    ours, reference = logits.clone().requires_grad_(), logits.double().requires_grad_()
    same = same_group(torch.tensor(groups))
    loss, slowly = itc_loss(ours, same), slow_itc(reference, groups)
    torch.testing.assert_close(overlapping_itc_loss(logits, same), loss.detach(), atol=1e-4, rtol=1e-4)
    assert loss.item() == pytest.approx(slowly.item(), rel=1e-4, abs=1e-4)
    (3 * loss).backward()
    (3 * slowly).backward()
    rounding = 1e-6 + 1e-7 / temperature  # of float32 at the size of a logit
    torch.testing.assert_close(ours.grad, reference.grad, atol=rounding, rtol=0, check_dtype=False)


@given(st.permutations(range(6)), st.integers(0, 100))
def test_itc_does_not_depend_on_the_order_of_a_batch(order: list[int], seed: int) -> None:
    logits = contrastive_logits(unit(6, seed), unit(6, seed + 1), ONE)
    same = same_group(torch.tensor([0, 0, 1, 2, 2, 3]))
    for loss in (itc_loss, overlapping_itc_loss, sigmoid_loss):
        shuffled = loss(logits[order][:, order], same[order][:, order])
        torch.testing.assert_close(shuffled, loss(logits, same))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.integers(0, 100), st.sampled_from([0.01, 1.0, 1000.0]))
def test_a_negative_is_never_of_the_same_group(groups: list[int], seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(groups), len(groups), generator=generator) * scale
    same = same_group(torch.tensor(groups))
    for drawn in (*hard_negatives(logits, same, generator), random_negatives(same, generator)):
        for own, other in enumerate(drawn.tolist()):
            if len(set(groups)) == 1:
                assert other == -1
            else:
                assert groups[other] != groups[own]


def test_hard_negatives_are_drawn_in_proportion_to_the_softmax_of_rows_and_of_columns() -> None:
    logits = torch.tensor([[9.0, 1.0, 0.0, -1.0], [3.0, 9.0, 0.0, 0.0], [2.0, 0.0, 9.0, 0.0], [1.0, 0.0, 0.0, 9.0]])
    generator = torch.Generator().manual_seed(0)
    draws = [hard_negatives(logits, torch.eye(4).bool(), generator) for _ in range(4000)]
    for drawn, of_others in zip(zip(*draws, strict=True), (logits[0, 1:], logits[1:, 0]), strict=True):
        shares = torch.bincount(torch.stack(drawn)[:, 0], minlength=4) / 4000
        torch.testing.assert_close(shares, torch.tensor([0.0, *of_others.softmax(0).tolist()]), atol=0.03, rtol=0)


def test_random_negatives_are_drawn_with_equal_chances() -> None:
    same = same_group(torch.tensor([0, 0, 1, 2, 3]))
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([random_negatives(same, generator) for _ in range(4000)])
    shares = torch.stack([torch.bincount(column, minlength=5) / 4000 for column in draws.T])
    expected = (~same).float() / (~same).sum(dim=1, keepdim=True)
    torch.testing.assert_close(shares, expected, atol=0.03, rtol=0)


def symmetric(size: int, seed: int) -> Tensor:
    """Any symmetric relation that holds of everything with itself; most are not transitive."""
    drawn = torch.rand(size, size, generator=torch.Generator().manual_seed(seed)) < 0.3
    return drawn | drawn.T | torch.eye(size).bool()


@given(st.integers(1, 9), st.integers(0, 10_000))
def test_a_negative_matches_in_no_way_even_where_matching_is_not_transitive(size: int, seed: int) -> None:
    same, generator = symmetric(size, seed), torch.Generator().manual_seed(seed)
    drawn = (*hard_negatives(torch.randn(size, size, generator=generator), same, generator),)
    for rows in (*drawn, random_negatives(same, generator)):
        for own, other in enumerate(rows.tolist()):
            assert same[own].all() if other == -1 else not same[own, other]


@given(st.integers(1, 9), st.integers(0, 10_000))
def test_the_losses_of_a_relation_equal_a_slow_sum(size: int, seed: int) -> None:
    same = symmetric(size, seed)
    logits = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    to_texts, to_images = logits.log_softmax(dim=1), logits.log_softmax(dim=0)
    contrastive = sigmoid = 0.0
    for row in range(size):
        positives = same[row].nonzero().flatten()
        contrastive -= float(to_texts[row, positives].mean() + to_images[positives, row].mean())
        for column in range(size):
            sign = 1.0 if same[row, column] else -1.0
            sigmoid += math.log1p(math.exp(-sign * float(logits[row, column])))
    assert float(overlapping_itc_loss(logits, same)) == pytest.approx(contrastive / (2 * size))
    assert float(sigmoid_loss(logits, same)) == pytest.approx(sigmoid / size)


def test_sigmoid_loss_by_hand_at_the_start_of_siglip() -> None:
    """Orthogonal pairs, a temperature of 0.1 and a bias of -10: positives cost ln 2, the rest next to nothing."""
    logits = contrastive_logits(torch.eye(2), torch.eye(2), torch.tensor(0.1)) - 10
    expected = math.log(2) + math.log1p(math.exp(-10))
    assert sigmoid_loss(logits, torch.eye(2).bool()).item() == pytest.approx(expected, abs=1e-6)


def test_itm_of_a_head_that_knows_only_the_prior_is_its_entropy() -> None:
    prior = torch.full((3, 6), -math.log(2.0))  # two mismatched pairs for each matched one
    others = torch.arange(6).roll(1)
    loss = itm_loss(prior, Negatives(others[None], others))
    assert loss.item() == pytest.approx(-(1 / 3 * math.log(1 / 3) + 2 / 3 * math.log(2 / 3)), abs=1e-6)


def test_itm_without_any_negative_counts_the_matched_pairs_alone() -> None:
    none = torch.full((4,), -1)
    sure = torch.full((3, 4), 40.0)
    assert itm_loss(sure, Negatives(none[None], none)).item() == pytest.approx(0.0, abs=1e-6)


def test_itm_shows_each_pair_beside_its_hard_negatives() -> None:
    shown: list[tuple[Tensor, Tensor]] = []

    def match(images: ImageView, texts: TextView) -> Tensor:
        shown.append((images.embedded, texts.embedded))
        return (images.embedded * texts.embedded).sum(dim=1)

    image, text = unit(3, 0), unit(3, 1)
    negatives = Negatives(torch.tensor([[1, 2, -1]]), torch.tensor([2, -1, 0]))
    model = CrossModalModel(Widths(4, 4), ModelConfig(adapter_width=4, embed_dim=5))
    model.match_odds = match  # type: ignore[method-assign]
    loss = itm_loss(model.odds_with_negatives(ImageView(image), TextView(text), negatives), negatives)
    odds = image @ text.T
    expected = [-odds[0, 0], -odds[1, 1], -odds[2, 2], odds[0, 1], odds[1, 2], odds[2, 0], odds[0, 2]]
    assert loss.item() == pytest.approx(functional.softplus(torch.stack(expected)).mean().item(), abs=1e-6)
    assert [tuple(given.shape) for given in shown[0]] == [(9, 5), (9, 5)]


@pytest.mark.parametrize(("fusion", "learns"), [("concat", False), ("interaction", True)])
def test_an_additive_head_cannot_match_but_one_with_interactions_can(fusion: Fusion, learns: bool) -> None:
    """Pairs match when their codes agree; mismatched pairs are re-pairings, so both classes have the same marginals."""
    torch.manual_seed(0)
    codes = functional.normalize(torch.eye(8) - 1 / 8, dim=1)
    model = CrossModalModel(Widths(8, 8), ModelConfig(adapter_width=8, embed_dim=8, dropout=0.0, fusion=fusion))
    optimizer = torch.optim.Adam(model.match_head.parameters(), lr=0.05)
    image = codes.repeat(2, 1)
    text = torch.cat([codes, codes.roll(1, dims=0)])
    target = torch.cat([torch.ones(8, dtype=torch.long), torch.zeros(8, dtype=torch.long)])
    for _ in range(300):
        loss = functional.cross_entropy(model.match(ImageView(image), TextView(text)), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if learns:
        assert loss.item() < 0.1
    else:
        assert loss.item() >= math.log(2) - 1e-4


def test_box_loss_by_hand() -> None:
    predicted, target = torch.tensor([[0.0, 0.0, 0.5, 1.0]]), torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    assert box_loss(predicted, target, giou=0.0).item() == pytest.approx(0.125)
    assert box_loss(predicted, target, giou=2.0).item() == pytest.approx(0.125 + 2 * 0.5)


def test_losses_without_anything_to_learn_are_zero_and_differentiable() -> None:
    head = nn.Linear(3, 6)
    none = relation_loss(head(torch.randn(2, 3)), torch.tensor([-1, -1]))
    empty = box_loss(head(torch.randn(0, 3))[:, :4], torch.zeros(0, 4), giou=1.0)
    (none + empty).backward()
    assert none.item() == empty.item() == 0.0


def test_relation_loss_leaves_absent_relations_out() -> None:
    logits = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    with_absent = relation_loss(logits, torch.tensor([2, -1, 5]))
    torch.testing.assert_close(with_absent, functional.cross_entropy(logits[[0, 2]], torch.tensor([2, 5])))


def test_the_gradient_of_matching_adds_up_in_the_same_order_with_several_threads() -> None:
    """Many pairs share a hard negative, and floats do not add up alike in every order."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        gradients = [_matching_gradient() for _ in range(10)]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)


def _matching_gradient() -> Tensor:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    image = functional.normalize(torch.randn(512, 64, generator=generator), dim=1).requires_grad_()
    text = functional.normalize(torch.randn(512, 64, generator=generator), dim=1)
    model = CrossModalModel(Widths(4, 4), ModelConfig(adapter_width=4, embed_dim=64, fusion="concat"))
    logits = contrastive_logits(image, text, torch.tensor(0.01))
    texts, images = hard_negatives(logits.detach(), torch.eye(512).bool(), generator)
    negatives = Negatives(texts[None], images)
    loss = itm_loss(model.odds_with_negatives(ImageView(image), TextView(text), negatives), negatives)
    (gradient,) = torch.autograd.grad(loss, image)
    return gradient


def test_numbers_and_tensors_are_weighted_alike() -> None:
    weights = LossConfig(itc=2.0, itm=0.5, box=0.0, spatial=0.25)
    assert weighted_sum(Losses(1.0, 2.0, 3.0, 4.0), weights) == 4.0
    assert weighted_sum(Losses(*torch.tensor([1.0, 2.0, 3.0, 4.0])), weights) == torch.tensor(4.0)
