import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score
from torch import Tensor

from core.evaluation.metrics import (
    box_scores,
    chance_recall,
    chunked_ranks,
    first_relevant_ranks,
    group_bootstrap,
    median_rank,
    members_by_group,
    members_of_pairs,
    official_group_indices,
    rank_bounds,
    recall_at,
    relation_scores,
)
from core.evaluation.metrics import confusion_matrix as our_confusion
from tests.strategies import ScoreTable, score_tables


def slow_ranks(table: ScoreTable) -> list[int]:
    """By sorting each query's gallery, the irrelevant first among equals."""
    ranks = []
    for scores, group in zip(table.scores.tolist(), table.query_groups.tolist(), strict=True):
        relevant = [other == group for other in table.gallery_groups.tolist()]
        order = sorted(range(len(scores)), key=lambda item: (-scores[item], relevant[item]))
        ranks.append(1 + next(place for place, item in enumerate(order) if relevant[item]))
    return ranks


@given(score_tables())
def test_ranks_equal_a_slow_sort(table: ScoreTable) -> None:
    assert first_relevant_ranks(table.scores, table.query_groups, table.gallery_groups).tolist() == slow_ranks(table)


@given(score_tables())
def test_ranks_do_not_depend_on_gallery_order(table: ScoreTable) -> None:
    order = table.permutation
    shuffled = first_relevant_ranks(table.scores[:, order], table.query_groups, table.gallery_groups[order])
    assert shuffled.tolist() == first_relevant_ranks(table.scores, table.query_groups, table.gallery_groups).tolist()


@given(score_tables(), st.integers(1, 200))
def test_chunked_ranks_equal_the_direct_way_for_any_chunk(table: ScoreTable, score_bytes: int) -> None:
    queries, gallery = table.scores, torch.eye(table.scores.shape[1])  # dot products give the scores back
    chunked = chunked_ranks(queries, gallery, table.query_groups, table.gallery_groups, score_bytes=score_bytes)
    assert chunked.tolist() == slow_ranks(table)


@given(score_tables(), st.integers(1, 200))
def test_ties_for_a_query_rank_it_as_a_sort_with_the_relevant_first(table: ScoreTable, score_bytes: int) -> None:
    members = members_by_group(table.query_groups, table.gallery_groups)
    gallery = torch.eye(table.scores.shape[1])
    against, favourable = rank_bounds(table.scores, gallery, members, score_bytes=score_bytes)
    assert against.tolist() == slow_ranks(table)
    expected = first_relevant_ranks(table.scores + 1e-3 * relevance(table), table.query_groups, table.gallery_groups)
    assert favourable.tolist() == expected.tolist()
    assert (favourable <= against).all()


@given(score_tables())
def test_without_ties_both_ways_of_counting_them_agree(table: ScoreTable) -> None:
    scores = table.scores.flatten().argsort().argsort().view_as(table.scores).float()  # no two alike
    members = members_by_group(table.query_groups, table.gallery_groups)
    against, favourable = rank_bounds(scores, torch.eye(scores.shape[1]), members)
    assert against.tolist() == favourable.tolist()


@given(score_tables())
def test_members_of_pairs_are_those_of_groups_where_pairs_are_groups(table: ScoreTable) -> None:
    pairs = relevance(table).nonzero()
    listed = members_of_pairs(pairs[:, 0].repeat(2), pairs[:, 1].repeat(2))  # repeated pairs count once
    grouped, gallery = members_by_group(table.query_groups, table.gallery_groups), torch.eye(table.scores.shape[1])
    for ours, theirs in zip(*(rank_bounds(table.scores, gallery, each) for each in (listed, grouped)), strict=True):
        assert ours.tolist() == theirs.tolist()
    size = len(gallery)
    assert chance_recall(listed, size, 2) == pytest.approx(chance_recall(grouped, size, 2))


def relevance(table: ScoreTable) -> Tensor:
    """[Q, G] bool"""
    return table.query_groups[:, None] == table.gallery_groups


def test_a_constant_model_ranks_last() -> None:
    ranks = first_relevant_ranks(torch.zeros(2, 5), torch.tensor([0, 3]), torch.arange(5))
    assert ranks.tolist() == [5, 5]


def test_a_hand_worked_case_with_ties_and_several_relevant_items() -> None:
    scores = torch.tensor([[0.9, 0.8, 0.8, 0.1], [0.2, 0.2, 0.5, 0.2]])
    ranks = first_relevant_ranks(scores, torch.tensor([1, 0]), torch.tensor([0, 1, 2, 1]))
    assert ranks.tolist() == [3, 4]  # 0.8 ties with another group's; 0.2 ties with two of group 1


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_an_error(score: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        first_relevant_ranks(torch.tensor([[score, 0.0]]), torch.tensor([0]), torch.tensor([0, 1]))


def test_a_query_without_anything_relevant_is_an_error() -> None:
    with pytest.raises(ValueError, match="no relevant item"):
        first_relevant_ranks(torch.zeros(1, 2), torch.tensor([7]), torch.tensor([0, 1]))


def test_recall_and_median_of_known_ranks() -> None:
    ranks = torch.tensor([1, 2, 6, 11])
    assert [recall_at(ranks, k) for k in (1, 5, 10)] == [0.25, 0.5, 0.75]
    assert median_rank(ranks) == 4.0


def test_chance_is_what_random_scores_reach() -> None:
    gallery = torch.tensor([0] * 1 + [1] * 3 + [2] * 6)
    queries = torch.tensor([0, 1, 2, 2])
    generator = torch.Generator().manual_seed(0)
    for k in (1, 5):
        reached = [
            recall_at(first_relevant_ranks(torch.rand(4, 10, generator=generator), queries, gallery), k)
            for _ in range(4000)
        ]
        assert chance_recall(members_by_group(queries, gallery), len(gallery), k) == pytest.approx(
            float(np.mean(reached)), abs=0.01
        )
    assert chance_recall(members_by_group(queries, gallery), len(gallery), 1) == pytest.approx(
        (0.1 + 0.3 + 0.6 + 0.6) / 4
    )
    assert chance_recall(members_by_group(queries, gallery), len(gallery), 100) == 1.0


def test_the_official_script_is_off_by_one_at_every_new_building() -> None:
    assert official_group_indices(torch.tensor([5, 5, 7, 7, 7, 9])).tolist() == [5, 5, 5, 7, 7, 7]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=40))
def test_relation_scores_equal_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    predicted, target = [p for p, _ in pairs], [t for _, t in pairs]
    scores = relation_scores(torch.tensor(predicted), torch.tensor(target))
    assert scores["relation_accuracy"] == pytest.approx(accuracy_score(target, predicted))
    assert scores["relation_f1"] == pytest.approx(f1_score(target, predicted, average="macro", zero_division=0.0))
    theirs = confusion_matrix(target, predicted, labels=range(6))
    assert our_confusion(torch.tensor(predicted), torch.tensor(target)).tolist() == theirs.tolist()


def test_box_scores_of_hand_worked_boxes() -> None:
    predicted = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 1.0, 1.0]])
    target = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]])
    scores = box_scores(predicted, target)
    assert scores["box_iou"] == pytest.approx((1 + 0.25) / 2)
    assert scores["box_l1"] == pytest.approx((0 + 0.25) / 2)
    assert scores["box_acc50"] == 0.5


def test_the_bootstrap_resamples_groups_not_rows() -> None:
    values = np.repeat([0.0, 1.0], 500)
    rows, groups = np.arange(1000), np.repeat([0, 1], 500)
    by_rows, by_groups = group_bootstrap(values, rows), group_bootstrap(values, groups)
    assert by_rows.value == by_groups.value == 0.5
    assert by_rows.high - by_rows.low < 0.08
    assert (by_groups.low, by_groups.high) == (0.0, 1.0)


def test_the_bootstrap_of_a_constant_has_no_width() -> None:
    interval = group_bootstrap(np.full(10, 0.3), np.arange(10) // 2)
    assert (interval.low, interval.high) == pytest.approx((0.3, 0.3))
