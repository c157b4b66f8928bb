"""Records stored as JSON: epoch metrics, receipts, scorecards. Does not import torch, so that analysis starts fast."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter

from core.config import QueryBank, TrainConfig

RETRIEVAL_KEYS = ("t2i_r1", "t2i_r5", "t2i_r10", "i2t_r1", "i2t_r5", "i2t_r10")
"""Recall at k as a fraction in 0..1; the direction is query to gallery: t2i retrieves images by text."""

TEXT_ONLY, SHUFFLED, MEAN_BOX = "text_only", "shuffled", "mean_box"
"""Baselines of region metrics: a network that sees the sentence alone, the model with images of other buildings, and
the mean box of the training split."""
MAJORITY = "relation_majority"
"""Accuracy of always naming the most frequent relation."""
OPTIMISTIC = "optimistic"
"""Ending of the names of recalls with ties counted for the query."""
GROUNDING_METRICS = ("box_iou", "relation_accuracy")
"""Region metrics that are judged to depend on the image, or not to."""

ALIGN, JOINT = 1, 2
"""Stage numbers: 1 trains ITC + ITM on captions, 2 all four losses."""


class Record:
    """Base class of JSON records, with a strict reader."""

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    def to_json(self) -> dict[str, Any]:
        """All fields by name, as plain data."""
        return dataclasses.asdict(self)  # type: ignore[call-overload,no-any-return]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: a field is missing, unknown, of another type, or not finite.
        """
        record: Self = _reader(cls).validate_python(content)  # type: ignore[arg-type]
        return record


@cache
def _reader(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@dataclass(frozen=True, slots=True)
class EpochMetrics(Record):
    """Training and validation metrics of one epoch. Losses are unweighted means over the steps of the epoch."""

    epoch: int
    """From 0, counted across both stages, as in checkpoint_<epoch>.pth."""
    stage: int
    """1 aligns (ITC + ITM on captions), 2 is joint (all four losses)."""
    learning_rate: float
    """Of the last step of the epoch."""
    temperature: float
    """At the end of the epoch."""
    loss: float
    """Weighted sum; not comparable between trials with different weights."""
    loss_itc: float
    loss_itm: float
    loss_box: float | None
    loss_spatial: float | None
    """None in stage 1, which has no box and relation losses, and where the training data contain none."""
    steps_without_regions: int
    """Steps of a joint epoch whose batch had no regions, although the training data contain some."""
    t2i_r1: float
    t2i_r5: float
    t2i_r10: float
    i2t_r1: float
    i2t_r5: float
    i2t_r10: float
    recall_mean: float
    """Mean of the six recalls above, on the validation split; relevance is by building."""
    t2i_median_rank: float
    i2t_median_rank: float
    box_iou: float | None
    relation_accuracy: float | None
    """None if the validation split has no regions."""
    gallery_images: int
    gallery_texts: int
    train_seconds: float
    evaluation_seconds: float
    gallery_groups: int | None = None
    """Number of buildings in the gallery; None in records of versions that did not count them."""


def best_epoch(history: Sequence[EpochMetrics], objective: str) -> EpochMetrics:
    """The epoch whose weights a run exports and whose metrics score it: the best one of its latest stage.

    The first one wins a tie. Epochs of stage 1 do not count once stage 2 has begun: their box and relation heads are
    untrained.

    Args:
        history: at least one epoch, in order.
        objective: name of a metric, higher is better.
    """
    reached = [metrics for metrics in history if metrics.stage == history[-1].stage]
    return max(reached, key=lambda metrics: float(getattr(metrics, objective)))


def kept_epoch(history: Sequence[EpochMetrics], config: TrainConfig) -> EpochMetrics:
    """The epoch whose weights a run with this configuration exports: the best, or the last if nothing was held out."""
    return history[-1] if config.data.train_on == "all" else best_epoch(history, config.objective)


@dataclass(frozen=True, slots=True)
class Receipt(Record):
    """What a run actually used, written by the run itself and checked against its configuration."""

    config_hash: str
    fingerprint: str
    parameters: int
    """Number of trainable parameters, counted from the model."""
    optimizer_groups: list[dict[str, float]]
    """stage, learning_rate and weight_decay of each parameter group of each stage that was run, at its start."""
    loss_weights: dict[str, float]
    seed: int
    device: str
    versions: dict[str, str]
    git_commit: str | None
    seconds: float
    peak_memory_mb: float
    epochs: int
    earlier_epochs: int = 0
    """Epochs of the runs before this one whose weights it started from, e.g. stage 1 of a two-stage run."""
    earlier_seconds: float = 0.0
    backbone: str | None = None
    """Digest of the files of the frozen backbone; None in receipts of earlier versions, and if it is unknown."""


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """One value per query or region, whose mean is a metric; used for paired comparisons."""

    values: NDArray[np.float64]
    """[N]"""
    groups: NDArray[np.int64]
    """[N], building of each."""


def parts_of(metric: str) -> Sequence[str]:
    """The metrics whose mean a metric is: the six recalls of recall_mean, and of any other that metric itself."""
    return RETRIEVAL_KEYS if metric == "recall_mean" else (metric,)


Corners = tuple[float, float, float, float]
"""x1 y1 x2 y2 of a box, as fractions of its image."""


@dataclass(frozen=True, slots=True)
class FoundImage:
    """An image that a text query found."""

    path: Path
    similarity: float
    is_right: bool
    """Whether it is of the query's building."""


@dataclass(frozen=True, slots=True)
class QueryExample:
    """A caption, and the images that a model finds most similar to it."""

    caption: str
    image: Path
    """The image that the caption was written for."""
    rank: int
    """Of the first image of the caption's building; 1 is right."""
    found: Sequence[FoundImage]
    """The most similar first."""


@dataclass(frozen=True, slots=True)
class RegionExample:
    """A sentence of an image, with its box and relation as annotated and as a model predicts them."""

    image: Path
    sentence: str
    box: Corners
    predicted_box: Corners
    iou: float
    relation: str | None
    """To the reference region; None for a region without a relation."""
    predicted_relation: str
    reference_sentence: str
    reference_box: Corners


@dataclass(frozen=True, slots=True)
class Examples:
    """What a model makes of some queries and regions, drawn at random from the validation split."""

    right: Sequence[QueryExample]
    wrong: Sequence[QueryExample]
    right_queries: int
    """Number of queries of the split whose first image is right."""
    queries: int
    images: int
    """Size of the gallery."""
    regions: Sequence[RegionExample]
    alone: bool = False
    """Whether every image is a building of its own."""


@dataclass(frozen=True, slots=True)
class Interval(Record):
    """A metric with its 95 % confidence interval from a bootstrap over buildings."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Grounding(Record):
    """Whether a region metric of a model depends on the image: paired differences per region, with 95 % intervals."""

    over_text_only: Interval
    """Model minus the network that sees the sentence alone."""
    over_shuffled: Interval
    """Model minus itself with images of other buildings."""
    verdict: Literal["grounded", "not grounded"]
    """Grounded exactly if the lower ends of both intervals are above 0."""

    @classmethod
    def judge(cls, over_text_only: Interval, over_shuffled: Interval) -> "Grounding":
        grounded = min(over_text_only.low, over_shuffled.low) > 0
        return cls(over_text_only, over_shuffled, "grounded" if grounded else "not grounded")


@dataclass(frozen=True, slots=True)
class Reranking(Record):
    """How the matching head of a model puts candidates in a new order, as chosen on the validation split."""

    depth: int
    """Number of best candidates."""
    weight: float
    """Of the log-odds of a match, beside similarity / temperature; 0 leaves the order by similarity."""
    objective: str
    """Metric by which it was chosen."""
    plain: float
    """That metric on the validation split by similarity alone."""
    reranked: float
    """The same metric re-ranked; never below `plain`, since a weight of 0 is among the choices."""

    def in_words(self) -> str:
        """One phrase, with the validation figure without and with it."""
        if self.weight == 0:
            return f"off, since it does not raise {self.objective} {self.plain:.4f} beyond doubt"
        return f"best {self.depth} with weight {self.weight:g}, {self.objective} {self.plain:.4f} → {self.reranked:.4f}"


@dataclass(frozen=True, slots=True)
class Evaluation(Record):
    """All metrics of one model on one split."""

    split: str
    protocol: str
    """Which gallery items count as relevant: image, building, or geotext-official."""
    rerank: int
    """How many of the best candidates were re-ranked with the matching head; 0 for none."""
    queries_text: int
    queries_image: int
    groups: int
    """Number of buildings in the gallery."""
    metrics: dict[str, float]
    """Recalls (fractions), recall_mean, median ranks, chance_*; with re-ranking also the *_ceiling of its shortlist."""
    intervals: dict[str, Interval] = field(default_factory=dict)
    """95 % intervals of the recalls."""
    rerank_weight: float | None = None
    """Candidates are re-ranked by similarity / temperature + this weight × log-odds of a match; None without."""
    query_bank: QueryBank = "none"
    """What text queries were normalised with; metrics with a query bank must not stand for those without."""
    optimistic: dict[str, float] = field(default_factory=dict)
    """Recalls and recall_mean with ties counted for the query; only those that then differ from `metrics`."""
    unique_texts: bool = False
    """Whether equal texts were one, relevant to all images that they stand under."""

    @property
    def texts_in_words(self) -> str:
        """Number of texts in the gallery, as `310 texts`."""
        return f"{self.queries_text} {'distinct texts' if self.unique_texts else 'texts'}"

    @property
    def variant(self) -> str:
        """What stands behind the protocol, or a metric, in names; empty for similarity alone."""
        return ("_query_bank" if self.query_bank != "none" else "") + ("_reranked" if self.rerank else "")


@dataclass(frozen=True, slots=True)
class Efficiency(Record):
    """Cost of training and using a model."""

    trainable_parameters: int
    frozen_parameters: int
    """Number of parameters of the backbone that computed its features; 0 if unknown."""
    training_epochs: int
    """Epochs of the run and of the earlier runs whose weights it started from; likewise `training_seconds`."""
    training_seconds: float
    training_peak_memory_mb: float
    """Peak memory of the run alone, in MiB."""
    images_per_second: float
    """Throughput of embedding pooled features, on `device`."""
    texts_per_second: float
    evaluation_seconds: float
    evaluation_peak_memory_mb: float
    device: str
    earlier_epochs: int = 0
    """Part of `training_epochs` that belongs to earlier runs, e.g. to stage 1; likewise `earlier_seconds`."""
    earlier_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Scorecard(Record):
    """All measurements of one checkpoint."""

    checkpoint: str
    fingerprint: str
    config_hash: str
    epoch: int
    evaluations: list[Evaluation]
    """One per protocol, without and with re-ranking."""
    regions_split: str | None
    """Split on which boxes and relations were measured; None if there are no regions."""
    regions: dict[str, float]
    """box_*, relation_*, and under <metric>_<baseline> what baselines reach that do not see the region's image."""
    confusion: list[list[int]]
    """[6, 6] counts; rows are the true relation, columns the predicted one, in the order of geometry.RELATIONS."""
    efficiency: Efficiency
    grounding: dict[str, Grounding] = field(default_factory=dict)
    """Of box_iou and relation_accuracy, where their baselines were measured."""
    test_reads: int = 0
    """Times that the test split was read for a final model, this one included; 0 where that is not counted."""

    @property
    def distinct(self) -> list[Evaluation]:
        """The evaluations that can differ: where every image is a building of its own, relevance is by image anyway."""
        return [each for each in self.evaluations if each.groups < each.queries_image or each.protocol == "building"]

    def flat(self) -> dict[str, float]:
        """Every figure under one name, e.g. `building/t2i_r1` and `building_reranked/t2i_r1`; of `distinct` ones."""
        figures = dict(self.regions)
        for evaluation in self.distinct:
            place = evaluation.protocol + evaluation.variant
            figures |= {f"{place}/{name}": value for name, value in evaluation.metrics.items()}
            figures |= {f"{place}/{name}_{OPTIMISTIC}": value for name, value in evaluation.optimistic.items()}
        return figures

    def find(self, protocol: str, *, reranked: bool) -> Evaluation:
        """The evaluation by this protocol without a query bank; raises KeyError if it was not made."""
        for evaluation in self.evaluations:
            plain = evaluation.protocol == protocol and evaluation.query_bank == "none"
            if plain and bool(evaluation.rerank) == reranked:
                return evaluation
        raise KeyError(protocol)
