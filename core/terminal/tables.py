"""Records as tables for the terminal: recall in percent, with split, protocol and sizes in the title."""

from collections.abc import Iterator

from rich import box
from rich.table import Table

from core.data.geometry import RELATIONS
from core.records import Efficiency, Evaluation, Scorecard

RETRIEVAL_ROWS = {
    "t2i_r1": "t2i R@1", "t2i_r5": "t2i R@5", "t2i_r10": "t2i R@10",
    "i2t_r1": "i2t R@1", "i2t_r5": "i2t R@5", "i2t_r10": "i2t R@10",
}  # fmt: skip
MEDIANS = {"t2i_median_rank": "t2i median rank", "i2t_median_rank": "i2t median rank"}
"""t2i retrieves images by text, i2t texts by image."""


def scorecard_tables(card: Scorecard) -> Iterator[Table]:
    """Tables of retrieval by each protocol, of regions, of confused relations, and of cost."""
    for protocol in dict.fromkeys(evaluation.protocol for evaluation in card.evaluations):
        same = [evaluation for evaluation in card.evaluations if evaluation.protocol == protocol]
        yield retrieval_table(same)
    if card.regions:
        yield _regions_table(card)
    if card.confusion:
        yield _confusion_table(card.confusion)
    yield _efficiency_table(card.efficiency)


def retrieval_table(evaluations: list[Evaluation]) -> Table:
    """Evaluations of a model by one protocol, without and with re-ranking, side by side.

    Args:
        evaluations: not empty, of the same split and protocol.
    """
    first = evaluations[0]
    table = _table(
        f"{first.split} split, relevance by {first.protocol}: {first.queries_image} images, "
        f"{first.queries_text} texts, {first.groups} buildings"
    )
    table.add_column("metric")
    for evaluation in evaluations:
        heading = f"{evaluation.rerank} re-ranked" if evaluation.rerank else "by similarity"
        table.add_column(heading, justify="right")
        table.add_column("95 %", justify="right")
    table.add_column("chance", justify="right")
    for name, label in RETRIEVAL_ROWS.items():
        cells = [cell for evaluation in evaluations for cell in _recall_cells(evaluation, name)]
        table.add_row(label, *cells, f"{first.metrics[f'chance_{name}']:.1%}")
    for name, label in MEDIANS.items():
        table.add_row(label, *[cell for e in evaluations for cell in (f"{e.metrics[name]:g}", "")], "")
    return table


def _recall_cells(evaluation: Evaluation, name: str) -> tuple[str, str]:
    interval = evaluation.intervals[name]
    return f"{interval.value:.1%}", f"{100 * interval.low:.1f}–{100 * interval.high:.1f}"


def _regions_table(card: Scorecard) -> Table:
    table = _table(f"{card.regions_split} split, regions")
    for heading in ("metric", "model", "text only", "mean box", "majority"):
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    for name in ("box_iou", "box_giou", "box_l1", "box_acc50"):
        values = [card.regions.get(key) for key in (name, f"{name}_text_only", f"{name}_mean_box")]
        table.add_row(name, *["–" if value is None else f"{value:.3f}" for value in values], "")
    for name in ("relation_accuracy", "relation_f1"):
        if name in card.regions:
            majority = f"{card.regions['relation_majority']:.3f}" if name == "relation_accuracy" else ""
            table.add_row(name, f"{card.regions[name]:.3f}", "", "", majority)
    return table


def _confusion_table(confusion: list[list[int]]) -> Table:
    table = _table("relations: rows are true, columns are predicted")
    table.add_column("")
    for name in RELATIONS:
        table.add_column(name, justify="right")
    for name, row in zip(RELATIONS, confusion, strict=True):
        table.add_row(name, *map(str, row))
    return table


def _efficiency_table(efficiency: Efficiency) -> Table:
    table = _table("cost")
    table.add_column("")
    table.add_column("", justify="right")
    trainable, frozen = efficiency.trainable_parameters, efficiency.frozen_parameters
    share = f"{trainable / (trainable + frozen):.3%} of all" if frozen else "backbone unknown"
    table.add_row("trainable parameters", f"{trainable:,} ({share})")
    table.add_row(
        "training",
        f"{efficiency.training_epochs} epochs, {efficiency.training_seconds:.1f} s, "
        f"peak memory {efficiency.training_peak_memory_mb:.0f} MB",
    )
    if efficiency.earlier_epochs:
        table.add_row(
            "of these before",
            f"{efficiency.earlier_epochs} epochs, {efficiency.earlier_seconds:.1f} s, in the run it began with",
        )
    table.add_row(
        "embedding", f"{efficiency.images_per_second:,.0f} images/s, {efficiency.texts_per_second:,.0f} texts/s"
    )
    table.add_row(
        "evaluation",
        f"{efficiency.evaluation_seconds:.1f} s, peak memory {efficiency.evaluation_peak_memory_mb:.0f} MB "
        f"on {efficiency.device}",
    )
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
