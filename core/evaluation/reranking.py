"""How many candidates the matching head re-ranks, and with what weight: chosen on the validation split.

Of a dozen choices the best one nearly always looks better than none. So a choice has to beat the order by similarity
(a weight of 0) beyond doubt, by the paired interval over buildings; the validation figure never gets worse.
"""

from collections.abc import Sequence

from torch import Tensor

from core.bootstrap import bootstrap_difference
from core.config import EvaluationConfig
from core.evaluation.embedding import embed_split
from core.evaluation.ranking import Order, Search, ranks_by_similarity, rerank_in_each
from core.evaluation.retrieval import both_directions, hits_of, relevance_of, retrieval_figures
from core.features.store import Features, FeatureSplit
from core.model.checkpoints import Checkpoint
from core.model.model import CrossModalModel
from core.records import Reranking

WEIGHTS = (0.1, 0.25, 0.5, 1.0, 2.0)
DEPTH_STEPS = (16, 4, 1)
"""Depths are the most that is allowed over each of these."""


def chosen_reranking(
    checkpoint: Checkpoint, model: CrossModalModel, features: Features, settings: EvaluationConfig
) -> Reranking | None:
    """The choice that a checkpoint holds, or else one on the validation split.

    None where nothing is to be chosen: re-ranking is disabled, the settings give its weight, or the model was trained
    on the validation split.

    Args:
        model: of the checkpoint, on the device that it is to run on.
    """
    if settings.k_test == 0 or settings.rerank_weight is not None:
        return None
    if checkpoint.reranking is not None:
        return checkpoint.reranking
    config, device = checkpoint.config, next(model.parameters()).device
    if config.data.train_on == "all":
        return None
    weights = WEIGHTS if config.loss.itm > 0 else ()  # without its loss, the matching head was never trained
    orders = orders_up_to(settings.k_test, features.validation, weights)
    return choose_reranking(model, features.validation.to(device), orders, objective=config.objective)


def order_of(chosen: Reranking | None, settings: EvaluationConfig) -> Order:
    """What was chosen, of no more candidates than the settings allow; else what they say."""
    if chosen is None:
        return Order(settings.k_test, settings.rerank_weight or 0.0)
    return Order(min(chosen.depth, settings.k_test), chosen.weight)


def settled_order(checkpoint: Checkpoint, settings: EvaluationConfig) -> Order:
    """As the settings or the checkpoint say it, without the validation split; of no candidates if neither does."""
    chosen = checkpoint.reranking if settings.rerank_weight is None else None
    settled = settings.rerank_weight is not None or chosen is not None
    return order_of(chosen, settings) if settled else Order(0, 0.0)


def orders_up_to(most: int, split: FeatureSplit, weights: Sequence[float] = WEIGHTS) -> list[Order]:
    """The choices for galleries of the size of a split: by similarity first, then few candidates before many.

    Args:
        most: number of candidates, at least 1.
    """
    most = min(most, max(len(split.groups), len(split.caption_image)))
    depths = sorted({most // step for step in DEPTH_STEPS if most // step > 1})
    return [Order(most, 0.0), *(Order(depth, weight) for depth in depths for weight in weights)]


def choose_reranking(
    model: CrossModalModel, split: FeatureSplit, orders: Sequence[Order], *, objective: str
) -> Reranking:
    """The order with the highest objective by building, of those that are better than the first one beyond doubt.

    Args:
        split: on the model's device.
        orders: the first one by similarity, which is chosen if no other is better.
        objective: recall_mean, or one of the recalls.
    Raises:
        DivergedError: an output of the model is not finite.
    """
    t2i, i2t = (_ranks_in_each(model, split, search, orders) for search in both_directions(embed_split(model, split)))
    values = [retrieval_figures(texts, images)[objective] for texts, images in zip(t2i, i2t, strict=True)]
    hits = [hits_of(texts, images, split) for texts, images in zip(t2i, i2t, strict=True)]
    better = [number for number, each in enumerate(hits) if bootstrap_difference(hits[0], each, objective).low > 0]
    best = max(better, key=values.__getitem__, default=0)
    return Reranking(orders[best].depth, orders[best].weight, objective, plain=values[0], reranked=values[best])


def _ranks_in_each(
    model: CrossModalModel, split: FeatureSplit, search: Search, orders: Sequence[Order]
) -> list[Tensor]:
    relevance = relevance_of(split, "building", search)
    first = ranks_by_similarity(search, relevance)
    return [final for (final,) in rerank_in_each(model, search, [relevance], [first], orders)]
