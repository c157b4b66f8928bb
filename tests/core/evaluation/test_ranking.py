import dataclasses
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core.config import ModelConfig
from core.evaluation import embedding
from core.evaluation.embedding import embed_split
from core.evaluation.metrics import first_relevant_ranks
from core.evaluation.ranking import (
    TIES,
    AnyRelevance,
    Order,
    PairedRelevance,
    RankingRule,
    Relevance,
    Search,
    matching_odds,
    rank_bounds_by_similarity,
    ranks_by_similarity,
    rerank,
    rerank_in_each,
)
from core.evaluation.retrieval import both_directions, relevance_of
from core.features.store import Widths
from core.model.model import CrossModalModel
from core.model.views import ImageView, TextView
from tests.conftest import planted_split
from tests.core.evaluation.attending import CELLS, WIDTH, Attending, with_grid
from tests.strategies import ScoreTable, score_tables


class Told(CrossModalModel):
    """Knows the odds of each pair: an image's embedding is its row of an identity matrix, a text's its odds."""

    def __init__(self) -> None:
        super().__init__(Widths(16, 20), ModelConfig(adapter_width=4, embed_dim=4, dropout=0.0, fusion="concat"))

    def match_odds(self, images: ImageView, texts: TextView) -> Tensor:
        return (images.embedded * texts.embedded).sum(dim=1)


class Case(NamedTuple):
    table: ScoreTable
    odds: Tensor
    """[Q, G]"""
    k: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    table = draw(score_tables())
    queries, gallery = table.scores.shape
    odds = [draw(st.permutations(range(gallery))) for _ in range(queries)]  # no two alike
    return Case(table, torch.tensor(odds, dtype=torch.float32), draw(st.integers(1, gallery + 2)))


def search_of(case: Case) -> Search:
    """Texts over images: similarity and odds are those of the case."""
    gallery = torch.eye(case.table.scores.shape[1])
    return Search(case.table.scores, gallery, ImageView(gallery), TextView(case.odds), texts_ask=True)


def ranks_of(case: Case, weight: float) -> tuple[list[int], list[int]]:
    """By similarity, and re-ranked."""
    search, relevance = search_of(case), Relevance(case.table.query_groups, case.table.gallery_groups)
    first = ranks_by_similarity(search, relevance)
    (final,) = rerank(Told(), search, [relevance], [first], RankingRule(case.k, weight))
    return first.tolist(), final.tolist()


@given(cases())
def test_a_weight_of_0_changes_nothing(case: Case) -> None:
    first, final = ranks_of(case, 0.0)
    assert final == first


@given(cases())
def test_what_was_relevant_among_the_best_stays_there_and_the_rest_below(case: Case) -> None:
    first, final = ranks_of(case, 1.0)
    for before, after in zip(first, final, strict=True):
        assert (after <= case.k) == (before <= case.k)  # so the recall at k is the ceiling of every recall
        assert before <= case.k or after == before


@given(cases())
def test_a_huge_weight_orders_the_whole_gallery_by_odds(case: Case) -> None:
    whole = case._replace(k=case.table.scores.shape[1])
    by_odds = first_relevant_ranks(case.odds, case.table.query_groups, case.table.gallery_groups)
    assert ranks_of(whole, 1e5)[1] == by_odds.tolist()


@given(cases(), st.sampled_from([0.5, 1.0, 8.0]))
def test_candidates_are_ordered_by_similarity_over_temperature_plus_weighted_odds(case: Case, weight: float) -> None:
    whole = case._replace(k=case.table.scores.shape[1])
    scores = case.table.scores / Told().temperature + weight * case.odds
    expected = first_relevant_ranks(scores, case.table.query_groups, case.table.gallery_groups)
    assert ranks_of(whole, weight)[1] == expected.tolist()


@given(cases())
def test_equal_odds_leave_the_order_by_similarity(case: Case) -> None:
    gallery = case.table.scores.shape[1]  # below it, which of equals are candidates is not told
    first, final = ranks_of(case._replace(odds=torch.zeros_like(case.odds), k=gallery), 1.0)
    assert final == first  # ties of similarity are ties of the sum, and count against the query again


@given(cases())
def test_ties_for_the_query_never_rank_it_worse(case: Case) -> None:
    case = case._replace(odds=(case.odds / 2).floor())  # so that sums tie, too
    search, relevance = search_of(case), Relevance(case.table.query_groups, case.table.gallery_groups)
    firsts = list(rank_bounds_by_similarity(search, relevance))
    counted: list[AnyRelevance] = [relevance.counting(ties) for ties in TIES]
    against, favourable = rerank(Told(), search, counted, firsts, RankingRule(case.k))
    assert (favourable <= against).all()
    assert torch.equal(
        against, rerank(Told(), search, [relevance], [ranks_by_similarity(search, relevance)], RankingRule(case.k))[0]
    )


@given(cases())
def test_relevance_by_pairs_is_that_by_keys_where_they_say_the_same(case: Case) -> None:
    search, keys = search_of(case), Relevance(case.table.query_groups, case.table.gallery_groups)
    pairs = PairedRelevance(*(keys.queries[:, None] == keys.gallery).nonzero().T)
    both: list[AnyRelevance] = [keys, pairs]
    firsts = [rank_bounds_by_similarity(search, each)[0] for each in both]
    assert torch.equal(*firsts)
    assert torch.equal(*rerank(Told(), search, both, firsts, RankingRule(case.k)))


def test_a_hand_worked_query() -> None:
    """The temperature is 0.07: 0.9 and 0.8 are 1.43 apart, so an odds of 2 more turns them round, and 1 does not."""
    table = ScoreTable(
        torch.tensor([[0.9, 0.8, 0.1]]), torch.tensor([7]), torch.tensor([1, 7, 2]), torch.tensor([0, 1, 2])
    )
    for odds, weight, rank in ((2.0, 1.0, 1), (1.0, 1.0, 2), (1.0, 2.0, 1)):
        assert ranks_of(Case(table, torch.tensor([[0.0, odds, 9.0]]), 2), weight)[1] == [rank]


def test_one_pass_of_the_head_ranks_under_every_notion_of_relevance() -> None:
    split = planted_split(10, seed=3)
    model = Told()
    search, _ = both_directions(embed_split(model, split))
    relevances = [relevance_of(split, protocol, search) for protocol in ("image", "building")]
    firsts = [ranks_by_similarity(search, relevance) for relevance in relevances]
    rule = RankingRule(5)
    together = rerank(model, search, relevances, firsts, rule)
    for relevance, first, final in zip(relevances, firsts, together, strict=True):
        assert torch.equal(rerank(model, search, [relevance], [first], rule)[0], final)
    assert not torch.equal(*together)


class Counting(Told):
    """Counts the pairs that its matching head is asked for; that head contradicts the similarity."""

    pairs = 0

    def match_odds(self, images: ImageView, texts: TextView) -> Tensor:
        self.pairs += len(texts.embedded)
        return -50 * super().match_odds(images, texts)


def test_several_orders_are_each_as_alone_and_cost_one_pass_of_the_head() -> None:
    split, model = planted_split(10, seed=3), Counting()
    search, _ = both_directions(embed_split(model, split))
    relevance = relevance_of(split, "building", search)
    first = ranks_by_similarity(search, relevance)
    orders = [Order(9, 0.0), Order(3, 1.0), Order(9, 0.5), Order(9, 2.0), Order(500, 0.0)]
    together = rerank_in_each(model, search, [relevance], [first], orders)
    assert model.pairs == 9 * len(split.caption_image)
    for order, (final,) in zip(orders, together, strict=True):
        assert torch.equal(rerank(model, search, [relevance], [first], RankingRule(*order))[0], final)
    assert torch.equal(together[0][0], first)
    assert not torch.equal(together[1][0], together[2][0])


def test_no_weight_asks_the_head_nothing() -> None:
    split, model = planted_split(10, seed=3), Counting()
    search, _ = both_directions(embed_split(model, split))
    relevance = relevance_of(split, "building", search)
    rerank(model, search, [relevance], [ranks_by_similarity(search, relevance)], RankingRule(9, 0.0))
    assert model.pairs == 0


@pytest.mark.parametrize("pairs", [1, 7, 64])
def test_grids_are_gathered_for_one_block_of_pairs_at_a_time(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    split, watched = with_grid(planted_split(10, seed=3))
    model = Attending()
    embedded = dataclasses.replace(embed_split(model, dataclasses.replace(split, grid=None)), split=split)
    embedded = dataclasses.replace(embedded, images=ImageView(embedded.images.embedded, watched))

    def both() -> list[Tensor]:
        finals = []
        for search in both_directions(embedded):
            relevance = relevance_of(split, "image", search)
            finals += rerank(model, search, [relevance], [ranks_by_similarity(search, relevance)], RankingRule(9))
        return finals

    whole = both()
    assert watched.most > len(split.images)
    watched.most = 0
    columns = 8 * 4 + 4 * 20 + 20
    monkeypatch.setattr(embedding, "PAIR_BYTES", 4 * columns * pairs)
    assert [ranks.tolist() for ranks in both()] == [ranks.tolist() for ranks in whole]
    assert watched.most == pairs


@pytest.mark.parametrize("pair_bytes", [1, 4_000, 2**20])
def test_the_grid_of_a_query_is_read_once_for_all_its_texts(pair_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By texts of which only some are seen at once, by single images and by all of them, as pair by pair."""
    torch.manual_seed(0)
    widths = Widths(16, 20, (CELLS, WIDTH))
    model = CrossModalModel(widths, ModelConfig(adapter_width=4, embed_dim=4, fusion="attention")).eval()
    split, watched = with_grid(planted_split(10, seed=3))
    _, search = both_directions(embed_split(model, split))
    candidates = (search.queries @ search.gallery.T).topk(9, dim=1).indices[3:17]
    monkeypatch.setattr(embedding, "PAIR_BYTES", pair_bytes)
    watched.read = 0
    odds = matching_odds(model, search, slice(3, 17), candidates)
    assert watched.read == 14 * (9 if pair_bytes == 1 else 1)
    image_rows = torch.arange(3, 17).repeat_interleave(9)
    one_by_one = model.match_odds(search.images.rows(image_rows), search.texts.rows(candidates.flatten()))
    torch.testing.assert_close(odds, one_by_one.view(14, 9))
