"""The model card of a final model: what it was trained on and chosen by, what it reaches, and the limits of that."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.comparison import Difference
from core.config import TrainConfig
from core.evaluation.read_count import CountedRead
from core.features.store import Features, FeatureSplit
from core.files.folders import is_synthetic
from core.model.checkpoints import Checkpoint
from core.records import (
    GROUNDING_METRICS,
    MAJORITY,
    MEAN_BOX,
    RETRIEVAL_KEYS,
    SHUFFLED,
    TEXT_ONLY,
    Evaluation,
    Interval,
    Scorecard,
)
from core.terminal.tables import ONE_IMAGE_EACH, recall_in_words
from search.winner import Winner

PROTOCOLS = {
    "building": "any image, or text, of the same building is relevant; what the search maximised",
    "image": "only the image of a caption is relevant, and its captions",
    "geotext-official": "relevance of the published script of GeoText-1652, with its off-by-one",
}


@dataclass(frozen=True, slots=True)
class FinalModel:
    """The retrained winner."""

    checkpoint: Checkpoint
    path: Path
    """Of the checkpoint."""
    difference: Difference | None
    """To the winner, in the objective on the validation split; None if that was trained on, or the winner is lost."""
    card: Scorecard
    """On the test split."""
    reads: Sequence[CountedRead]
    """When the test split was read for it."""

    @property
    def value(self) -> float | None:
        """Validation objective of the epoch that was kept; None if the validation split was trained on."""
        config = self.checkpoint.config
        if config.data.train_on == "all":
            return None
        return float(getattr(self.checkpoint.history[self.checkpoint.epoch], config.objective))


def model_card(final: FinalModel, winner: Winner, features: Features) -> str:
    """The model card as Markdown.

    Args:
        features: that it was trained and measured on.
    """
    sections = {
        f"Model card: {winner.campaign}, trial {winner.number}": _introduction(final, winner, features),
        "Data": _data(winner.config, features),
        "Figures on the test split": _figures(final),
        "Validation": _validation(final, winner),
        **_regions(final.card, features),
        "Where it comes from": _parents(winner),
        "Limits": _limits(final, winner),
        "Receipt": _receipt(final),
        "Command": [f"```\n{command_of(winner, final.path)}\n```"],
    }
    (title, introduction), *rest = sections.items()
    parts = [f"# {title}", *introduction]
    for heading, paragraphs in rest:
        parts += [f"## {heading}", *paragraphs]
    return "\n\n".join(parts) + "\n"


def command_of(winner: Winner, checkpoint: Path) -> str:
    """The command line that trains and measures this final model."""
    output = checkpoint.parent.parent if winner.has_two_stages else checkpoint.parent
    options = [] if winner.has_two_stages else ["--as-searched"]
    options += ["--on", "all"] if winner.config.data.train_on == "all" else []
    return shlex.join(["crossmodal", "retrain", str(winner.folder.root), "--output-dir", str(output), *options])


def _introduction(final: FinalModel, winner: Winner, features: Features) -> list[str]:
    recipe = winner.config.recipe
    joint = recipe.epochs - recipe.stage1_epochs
    stages = f"{recipe.stage1_epochs} alignment and {joint} joint epochs" if recipe.stage1_epochs else f"{joint} epochs"
    efficiency = final.card.efficiency
    return [
        f"Adapters and heads with {efficiency.trainable_parameters:,} trainable parameters on "
        f"{winner.config.features.encoders}, for image-text retrieval{_targets(features)}. Trained for "
        f"{stages}; the weights, `{final.path.name}`, are those of epoch {final.card.epoch} of the last stage, "
        "from 0."
    ]


def _targets(features: Features) -> str:
    if len(features.train.boxes) == 0:
        return ""
    return ", boxes and spatial relations" if (features.train.relations >= 0).any() else " and boxes"


def _data(config: TrainConfig, features: Features) -> list[str]:
    splits = {"training": features.train, "validation": features.validation, "test": features.test}
    rows = [[name, *map(str, _sizes(split))] for name, split in splits.items() if split is not None]
    used = "the training and the validation split" if config.data.train_on == "all" else "the training split"
    synthetic = is_synthetic(config.data.train_annotations)
    data = config.data
    test = getattr(data.test_annotations, "name", "–")
    notes = [
        f"Trained on {used}. Annotations: {data.train_annotations.name} and {test}; {data.validation_fraction:.0%} of "
        f"the training buildings, drawn with seed {data.split_seed}, are the validation split."
    ]
    if synthetic:
        notes.append("**The images are synthetic:** the figures say nothing about real photographs.")
    headings = ["split", "buildings", "images", "captions", "regions"]
    if not any(len(split.boxes) for split in splits.values() if split is not None):
        headings, rows = headings[:-1], [row[:-1] for row in rows]
        notes.append("The data contain no boxes, so that there are no losses or figures of boxes and relations.")
    return [_table(headings, rows), *notes]


def _sizes(split: FeatureSplit) -> tuple[int, int, int, int]:
    return len(split.groups.unique()), len(split.groups), len(split.caption_image), len(split.boxes)


def _figures(final: FinalModel) -> list[str]:
    count = len(final.reads)
    times = ", ".join(read.began for read in final.reads)
    parts = [f"The test split was read {'once' if count == 1 else f'{count} times'} for this model ({times})."]
    for protocol, meaning in PROTOCOLS.items():
        same = [each for each in final.card.distinct if each.protocol == protocol]
        if not same:
            continue
        first = same[0]
        parts.append(
            f"Protocol `{protocol}`: {meaning}. {first.queries_image} images, {first.texts_in_words}, "
            f"{first.groups} buildings; ties count against the query{_if_for(same)}; 95 % intervals by bootstrap over "
            f"buildings.{'' if first.groups < first.queries_image else f' {ONE_IMAGE_EACH}'}"
        )
        headings = [cell for each in same for cell in (_order(each), "95 %")]
        rows = [[name, *_cells(same, name), f"{first.metrics[f'chance_{name}']:.1%}"] for name in RETRIEVAL_KEYS]
        parts.append(_table(["", *headings, "chance"], rows))
    return parts


def _if_for(evaluations: Sequence[Evaluation]) -> str:
    """What stands in brackets beside a recall, where ties matter."""
    return " (in brackets: for it)" if any(each.optimistic for each in evaluations) else ""


def _order(evaluation: Evaluation) -> str:
    bank = "" if evaluation.query_bank == "none" else ", query bank"
    if not evaluation.rerank:
        return f"by similarity{bank}"
    if evaluation.rerank_weight == 0:
        return f"not re-ranked (weight 0){bank}"
    return f"best {evaluation.rerank} re-ranked, weight {evaluation.rerank_weight:g}{bank}"


def _cells(evaluations: Sequence[Evaluation], name: str) -> Iterator[str]:
    for evaluation in evaluations:
        interval = evaluation.intervals[name]
        yield recall_in_words(evaluation, name)
        yield f"{100 * interval.low:.1f}–{100 * interval.high:.1f}"


def _validation(final: FinalModel, winner: Winner) -> list[str]:
    if final.value is None:
        return [
            "It was trained on the validation split, too, so there is no validation figure. The number of epochs and "
            f"the re-ranking were chosen with trial {winner.number}, which had {winner.config.objective} "
            f"{winner.value:.4f} without these buildings."
        ]
    reranking = final.checkpoint.reranking
    sentence = (
        f"{winner.config.objective} {final.value:.4f}; trial {winner.number} had {winner.value:.4f} in the search."
    )
    parts = [sentence] if final.difference is None else [f"{sentence} {difference_in_words(final.difference)}."]
    return parts if reranking is None else [*parts, f"Re-ranking, chosen on this split: {reranking.in_words()}."]


def difference_in_words(difference: Difference) -> str:
    """Final model minus winner with its interval, and the verdict."""
    interval = difference.interval
    return (
        f"Difference {interval.value:+.4f}, paired 95 % interval over buildings {interval.low:+.4f} to "
        f"{interval.high:+.4f}: {difference.verdict}"
    )


def _regions(card: Scorecard, features: Features) -> dict[str, list[str]]:
    """The section on boxes and relations; none where the training data have none and none were measured."""
    if not card.regions and len(features.train.boxes) == 0:
        return {}
    return {"Boxes and relations": _measured_regions(card)}


def _measured_regions(card: Scorecard) -> list[str]:
    if not card.regions:
        return ["Not measured: no split that it was not trained on has regions."]
    baselines = {TEXT_ONLY: "sentence alone", SHUFFLED: "images shuffled", MEAN_BOX: "mean box"}
    rows = []
    for name in GROUNDING_METRICS:
        if name in card.regions:
            values = [card.regions.get(f"{name}_{baseline}") for baseline in baselines]
            verdict = card.grounding[name].verdict if name in card.grounding else "–"
            majority = card.regions[MAJORITY] if name == "relation_accuracy" else None
            rows.append([name, f"{card.regions[name]:.3f}", *map(_number, [*values, majority]), verdict])
    return [
        _table(["", "model", *baselines.values(), "commonest relation", "verdict"], rows),
        f"On the {card.regions_split} split. *Grounded*: better than the sentence alone and than shuffled images, by "
        "the lower ends of the 95 % intervals of the differences.",
    ]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _parents(winner: Winner) -> list[str]:
    rows = [
        ["campaign", winner.campaign],
        ["trial", str(winner.number)],
        [f"validation {winner.config.objective} in the search", f"{winner.value:.4f}"],
    ]
    if winner.confirmed is not None:
        confirmed = winner.confirmed
        seeds = ", ".join(map(str, confirmed.seeds))
        rows += [
            [f"mean over seeds {seeds}", _with_interval(confirmed.mean)],
            ["gain over the baseline, paired", _with_interval(confirmed.gain)],
            ["search minus mean (winner's curse)", f"{confirmed.curse:+.4f}"],
        ]
    if winner.split_of is not None:
        rows.append(["stage split", f"the trial had one stage; split like {winner.split_of}"])
    rows.append(["seed of the final model", str(winner.config.seed)])
    notes = (
        [] if winner.confirmed else ["The trial was chosen by one seed; `crossmodal confirm` repeats it with others."]
    )
    return [_table(["", ""], rows), *notes]


def _with_interval(interval: Interval) -> str:
    return f"{interval.value:.4f} ({interval.low:.4f} to {interval.high:.4f})"


def _limits(final: FinalModel, winner: Winner) -> list[str]:
    evaluation = final.card.find("building", reranked=False)
    limits = [
        f"Recalls hold for a gallery of {evaluation.queries_image} images and {evaluation.queries_text} texts of "
        f"{evaluation.groups} buildings; they fall as a gallery grows.",
        "One model, trained with one seed: intervals are over buildings and do not contain the spread of seeds.",
        f"The features, of {winner.config.features.encoders}, are not trained: what they do not hold, the adapters "
        "cannot retrieve.",
    ]
    limits += [
        f"`{name}` is not grounded: it is no evidence that the model looks at the image."
        for name, grounding in final.card.grounding.items()
        if grounding.verdict == "not grounded"
    ]
    if len(final.reads) > 1:
        limits.append(f"The test split was read {len(final.reads)} times; figures chosen among several are too good.")
    if winner.config.loss.itm == 0:
        limits.append("The matching head was not trained, so there is no re-ranking.")
    return ["\n".join(f"- {limit}" for limit in limits)]


def _receipt(final: FinalModel) -> list[str]:
    receipt = final.checkpoint.receipt
    rows = {
        "settings hash": receipt.config_hash,
        "features": receipt.fingerprint,
        "parameters": f"{receipt.parameters:,}",
        "seed": str(receipt.seed),
        "epochs": f"{receipt.epochs + receipt.earlier_epochs}",
        "seconds": f"{receipt.seconds + receipt.earlier_seconds:.1f}",
        "peak memory": f"{receipt.peak_memory_mb:.0f} MB",
        "device": receipt.device,
        "commit": receipt.git_commit or "unknown",
        **receipt.versions,
    }
    return [_table(["", ""], [[name, value] for name, value in rows.items()])]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)
