"""Records as tables for the terminal: recall in percent, with split, protocol and sizes in the title."""

from collections.abc import Iterator, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from core.data.geometry import RELATIONS
from core.records import MAJORITY, MEAN_BOX, SHUFFLED, TEXT_ONLY, Corners, Efficiency, Evaluation, Scorecard

Answer = tuple[str, float, float | None, Corners | None, str | None]
"""What answers, its similarity, the probability of a match, the box and the relation."""
RETRIEVAL_ROWS = {
    "t2i_r1": "t2i R@1", "t2i_r5": "t2i R@5", "t2i_r10": "t2i R@10",
    "i2t_r1": "i2t R@1", "i2t_r5": "i2t R@5", "i2t_r10": "i2t R@10",
}  # fmt: skip
MEDIANS = {"t2i_median_rank": "t2i median rank", "i2t_median_rank": "i2t median rank"}
"""t2i: texts ask, images answer; i2t: the other way round."""
REGION_ROWS = {
    "box_iou": ("box_iou", "box_giou", "box_l1", "box_acc50"),
    "relation_accuracy": ("relation_accuracy", "relation_f1"),
}
"""Rows above the verdict on a metric."""
MAJORITY_OF = "relation_accuracy"
BASELINES = {TEXT_ONLY: "text only", SHUFFLED: "shuffled", MEAN_BOX: "mean box"}
ONE_IMAGE_EACH = "Every image is a building of its own, so that protocols cannot differ."
TIES_RULE = "Ties count against the query; in brackets, where it differs, the figure if they count for it."
GROUNDING_RULE = (
    "Grounded: above text only and above shuffled images by the lower end of the 95 % interval of the difference, "
    "which stands in the row of the verdict."
)


def scorecard_tables(card: Scorecard) -> Iterator[Table]:
    """Retrieval by each protocol that can differ, regions, the confusion of relations, and cost."""
    for kind in dict.fromkeys((evaluation.protocol, evaluation.query_bank) for evaluation in card.distinct):
        same = [evaluation for evaluation in card.distinct if (evaluation.protocol, evaluation.query_bank) == kind]
        yield retrieval_table(same)
    if card.regions:
        yield _regions_table(card)
    if card.confusion:
        yield _confusion_table(card.confusion)
    yield _efficiency_table(card.efficiency)


def answers_table(title: str, answers: Sequence[Answer]) -> Table:
    """Answers to a query, best first; a column that is empty everywhere is left out."""
    table = _table(title)
    table.add_column("")
    table.add_column("answer", overflow="fold")
    columns = [("similarity", [f"{answer[1]:.3f}" for answer in answers])]
    columns.append(("match", ["" if answer[2] is None else f"{answer[2]:.1%}" for answer in answers]))
    boxes = ["" if answer[3] is None else " ".join(f"{edge:.2f}" for edge in answer[3]) for answer in answers]
    columns += [("box x1 y1 x2 y2", boxes), ("relation", [answer[4] or "" for answer in answers])]
    columns = [(name, cells) for name, cells in columns if any(cells)]
    for name, _ in columns:
        table.add_column(name, justify="right")
    for number, answer in enumerate(answers):
        table.add_row(str(number + 1), escape(answer[0]), *(cells[number] for _, cells in columns))
    return table


def retrieval_table(evaluations: list[Evaluation]) -> Table:
    """Evaluations of a model by one protocol, without and with re-ranking, side by side.

    Args:
        evaluations: not empty, of the same split and protocol.
    """
    first = evaluations[0]
    bank = "" if first.query_bank == "none" else f"; t2i with a query bank ({first.query_bank})"
    table = _table(
        f"{first.split} split, relevance by {first.protocol}{bank}: {first.queries_image} images, "
        f"{first.texts_in_words}, {first.groups} buildings"
    )
    table.caption = "\n".join(_retrieval_notes(evaluations)) or None
    table.add_column("metric")
    for evaluation in evaluations:
        table.add_column(_order(evaluation), justify="right")
        table.add_column("95 %", justify="right")
    table.add_column("chance", justify="right")
    for name, label in RETRIEVAL_ROWS.items():
        cells = [cell for evaluation in evaluations for cell in _recall_cells(evaluation, name)]
        table.add_row(label, *cells, f"{first.metrics[f'chance_{name}']:.1%}")
    for name, label in MEDIANS.items():
        table.add_row(label, *[cell for e in evaluations for cell in (f"{e.metrics[name]:g}", "")], "")
    return table


def _retrieval_notes(evaluations: list[Evaluation]) -> Iterator[str]:
    if evaluations[0].groups == evaluations[0].queries_image:
        yield ONE_IMAGE_EACH
    if any(evaluation.optimistic for evaluation in evaluations):
        yield TIES_RULE


def _order(evaluation: Evaluation) -> str:
    if not evaluation.rerank:
        return "by similarity"
    weight = "" if evaluation.rerank_weight is None else f"\n(weight {evaluation.rerank_weight:g})"
    return f"{evaluation.rerank if evaluation.rerank_weight != 0 else 'none'} re-ranked{weight}"


def _recall_cells(evaluation: Evaluation, name: str) -> tuple[str, str]:
    interval = evaluation.intervals[name]
    return recall_in_words(evaluation, name), f"{100 * interval.low:.1f}–{100 * interval.high:.1f}"


def recall_in_words(evaluation: Evaluation, name: str) -> str:
    """A recall in percent, and in brackets with ties counted for the query, where that differs."""
    pessimistic, optimistic = evaluation.metrics[name], evaluation.optimistic.get(name)
    return f"{pessimistic:.1%}" if optimistic is None else f"{pessimistic:.1%} ({optimistic:.1%})"


def _regions_table(card: Scorecard) -> Table:
    table = _table(f"{card.regions_split} split, regions")
    table.add_column("metric")
    for heading in ("model", *BASELINES.values(), "majority"):
        table.add_column(heading, justify="right")
    for judged, names in REGION_ROWS.items():
        for name in names:
            if name in card.regions:
                majority = f"{card.regions[MAJORITY]:.3f}" if name == MAJORITY_OF else ""
                values = [card.regions.get(f"{name}_{baseline}") for baseline in BASELINES]
                table.add_row(name, f"{card.regions[name]:.3f}", *map(_number, values), majority)
        if judged in card.grounding:
            grounding = card.grounding[judged]
            lows = {TEXT_ONLY: grounding.over_text_only.low, SHUFFLED: grounding.over_shuffled.low}
            cells = [f"{lows[baseline]:+.3f}" if baseline in lows else "" for baseline in BASELINES]
            table.add_row("verdict", grounding.verdict, *cells, "", style="bold")
    if card.grounding:
        table.caption = GROUNDING_RULE
    return table


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


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
    return Table(
        title=title,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
