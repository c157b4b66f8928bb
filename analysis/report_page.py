"""The page of `crossmodal report`: sections of sentences, tables, plots and pictures as one HTML file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from analysis import report_figures as figures
from analysis import report_words as words
from analysis.boards import front_note
from analysis.report import embedded, plotly_script, render
from analysis.report_findings import Findings
from analysis.report_pictures import PREDICTED, REFERENCE, TRUE, region_picture, thumbnail
from analysis.report_settings import worded_condition, worded_range, worded_value
from core.campaign.space import setting
from core.campaign.trials import BASELINE
from core.errors import UserError
from core.files.atomic import write_atomically
from core.records import RETRIEVAL_KEYS, Examples, QueryExample, RegionExample

ROWS = 15
"""Trials in the table."""
AXIS_WIDTH = 84
"""Pixels of each axis of the parallel coordinates; a narrow screen scrolls them."""


@dataclass(frozen=True, slots=True)
class PageTable:
    """Cells as printed."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: Sequence[int] = ()
    """Rows in bold."""
    worded: Sequence[int] = ()
    """Columns of text that wraps."""


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot as HTML."""

    html: Markup
    heading: str = ""
    min_width: int = 0
    """Pixels; where the page is narrower, the plot scrolls."""


@dataclass(frozen=True, slots=True)
class PictureOfQuery:
    """A text query with the images it found, as sources of `<img>`."""

    verdict: str
    caption: str
    own: str
    found: Sequence[dict[str, object]]
    """source, is_right and similarity of each image."""


@dataclass(frozen=True, slots=True)
class PictureOfRegion:
    """A region as the source of an `<img>`."""

    source: str
    sentence: str
    verdict: str


@dataclass(frozen=True, slots=True)
class Section:
    """What stands below one heading."""

    name: str
    title: str
    words: Sequence[str] = ()
    table: PageTable | None = None
    plots: Sequence[Plot] = ()
    small: Sequence[Plot] = ()
    """Plots that stand side by side where there is room."""
    code: str = ""
    queries: Sequence[PictureOfQuery] = field(default_factory=list)
    regions: Sequence[PictureOfRegion] = field(default_factory=list)


def write_campaign_page(path: Path, findings: Findings, pictures: Examples | str) -> None:
    """Write the page of a campaign: one file, which needs no network.

    Args:
        pictures: examples of `findings.model`, or why there are none.
    """
    sections = [
        *_summary(findings),
        _leaderboard(findings),
        _confirmation(findings),
        _pictures(findings, pictures),
        *(section for build in ANALYSES if (section := build(findings)) is not None),
    ]
    content = {
        "title": f"Campaign {findings.campaign.name}",
        "sections": [section for section in sections if section is not None],
        "plotly_script": plotly_script(),
        "colours": {"true": TRUE, "predicted": PREDICTED, "reference": REFERENCE},
    }
    write_atomically(path, render("campaign.html", content))


def _plot(name: str, figure: go.Figure, *, heading: str = "", min_width: int = 0) -> Plot:
    return Plot(embedded(figure, f"plot-{name}"), heading, min_width)


def _summary(findings: Findings) -> list[Section]:
    return [
        Section("searched", "Searched", words.searched(findings)),
        Section("found", "Found", words.found(findings)),
        Section("confirmed", "Confirmed", words.confirmed(findings)),
    ]


def _leaderboard(findings: Findings) -> Section:
    ranked = findings.ranked
    chosen = ranked[(ranked.index < ROWS) | (ranked["origin"] == BASELINE)]
    columns = _columns(findings)
    rows = [[words.trial_cell(row, name) for name in columns] for _, row in chosen.iterrows()]
    note = (
        f"The best {min(ROWS, len(ranked))} of {len(ranked)} trials with a score, and the baseline. Recall"
        f"{' and relations' if 'relation_accuracy' in columns else ''} in percent, gains in percentage points; t2i "
        "retrieves images by text, i2t texts by image."
    )
    best = [number for number, trial in enumerate(chosen["number"]) if trial == findings.best_number]
    return Section("leaderboard", "Trials", [note], PageTable(list(columns.values()), rows, marked=best))


def _columns(findings: Findings) -> dict[str, str]:
    """Column of `rank` → its heading: the objective and its gain first, and regions where there are any."""
    recalls = {name: name.replace("_r", " R@") for name in RETRIEVAL_KEYS} | {"recall_mean": "recall_mean"}
    first = {"rank": "rank", "number": "trial", findings.objective: recalls.pop(findings.objective)}
    regions = {"box_iou": "box IoU", "relation_accuracy": "relations"}
    measured = {name: heading for name, heading in regions.items() if findings.ranked[name].notna().any()}
    cost = {"parameters": "parameters", "seconds": "seconds"}
    return first | {"gain_over_baseline": "gain"} | recalls | measured | cost


def _confirmation(findings: Findings) -> Section | None:
    if not findings.confirmed:
        return None
    rows = [
        [
            str(each.rank), f"{each.trial}{' (baseline)' if each.trial == BASELINE else ''}", str(len(each.seeds)),
            words.percent(each.mean.value), f"{words.percent(each.mean.low)} to {words.percent(each.mean.high)}",
            words.points(each.gain.value), f"{words.points(each.gain.low)} to {words.points(each.gain.high)}",
            words.percent(each.searched), words.points(each.curse),
        ]
        for each in findings.confirmed
    ]  # fmt: skip
    columns = ["rank", "trial", "seeds", "mean, %", "95 %", "gain", "95 %", "search, %", "search off by"]
    note = (
        "Means over fresh seeds; 95 % intervals over seeds and buildings. Trials that cannot be told apart may share a "
        "rank. The search is off by the difference between its value and the mean."
    )
    return Section("seeds", "Under other seeds", [note], PageTable(columns, rows))


def _pictures(findings: Findings, pictures: Examples | str) -> Section:
    title = "What the model finds"
    if isinstance(pictures, str):
        return Section("pictures", title, [f"No pictures: {pictures}"])
    try:
        queries = [_query(each) for each in (*pictures.right, *pictures.wrong)]
        regions = [_region(each) for each in pictures.regions]
    except UserError as error:
        return Section("pictures", title, [f"No pictures: {error}"])
    note = words.pictures_note(pictures, findings.model_name)
    return Section("pictures", title, note, queries=queries, regions=regions)


def _query(example: QueryExample) -> PictureOfQuery:
    found = [
        {"source": thumbnail(each.path), "is_right": each.is_right, "similarity": f"{each.similarity:.2f}"}
        for each in example.found
    ]
    verdict = "Right" if example.rank == 1 else f"Wrong (the first right image is number {example.rank})"
    return PictureOfQuery(verdict, example.caption, thumbnail(example.image), found)


def _region(example: RegionExample) -> PictureOfRegion:
    verdict = f"IoU {example.iou:.2f}"
    if example.relation is not None:
        right = "right" if example.relation == example.predicted_relation else "wrong"
        verdict += (
            f"; relation to “{example.reference_sentence}”: {example.relation}, predicted "
            f"{example.predicted_relation} ({right})"
        )
    return PictureOfRegion(region_picture(example), example.sentence, verdict)


def _settings(findings: Findings) -> Section:
    base, best = findings.campaign.base, findings.best_config
    rows = []
    for key, dimension in findings.campaign.space.dimensions.items():
        values = [worded_value(setting(config, key)) if config else "–" for config in (base, best)]
        rows.append([key, worded_range(dimension), worded_condition(dimension) or "always", *values])
    columns = ["setting", "range", "drawn if", "baseline", "best trial"]
    return Section("settings", "Searched settings", (), PageTable(columns, rows, worded=[1, 2]))


def _history(findings: Findings) -> Section:
    note = "Each trial at its best epoch, in the order in which the trials were started."
    figure = figures.optimisation_history(findings.trials, findings.objective)
    return Section("history", "Optimisation history", [note], plots=[_plot("history", figure)])


def _importance(findings: Findings) -> Section:
    plots = [_plot("importance", figures.importance(findings.importance))] if findings.importance else []
    return Section("importance", "Importance of the settings", words.importance_note(findings), plots=plots)


def _parallel(findings: Findings) -> Section | None:
    if findings.best is None or not findings.settings:
        return None
    note = (
        "Each line is a complete trial, brighter where it is better; – is a setting that it did not draw. Drag along "
        "an axis to keep the trials in that range."
    )
    figure = figures.parallel_coordinates(findings.trials, findings.settings, findings.objective)
    plot = _plot("parallel", figure, min_width=AXIS_WIDTH * (len(findings.settings) + 1))
    return Section("parallel", "Parallel coordinates", [note], plots=[plot])


def _slices(findings: Findings) -> Section | None:
    if not findings.settings:
        return None
    note = (
        "The objective over one setting at a time, of the trials that drew it. Blue: complete; grey: stopped early; "
        "black diamond: baseline; orange diamond: best trial."
    )
    small = [
        _plot(
            f"slice-{number}",
            figures.setting_slice(findings.trials, searched, findings.best_number, findings.objective),
            heading=searched.name,
        )
        for number, searched in enumerate(findings.settings)
    ]
    return Section("slices", "Slices", [note], small=small)


def _curves(findings: Findings) -> Section | None:
    if findings.history.empty:
        return Section("curves", "Learning curves", ["The epochs of the trials are lost with their files."])
    note = (
        "Validation figures after every epoch. Epochs of the alignment stage count for a trial only if it has no other."
    )
    figure = figures.learning_curves(findings.history, findings.trials, findings.best_number, findings.objective)
    return Section("curves", "Learning curves", [note], plots=[_plot("curves", figure)])


def _pruning(findings: Findings) -> Section:
    sentences = words.pruning_note(findings.trials, findings.campaign.base.recipe.epochs)
    plot = _plot("pruning", figures.epochs_reached(findings.trials))
    return Section("pruning", "Early stopping", sentences, plots=[plot])


def _stages(findings: Findings) -> Section:
    title, key = "Stage split", "param:recipe.stage1_epochs"
    recipe, scored = findings.campaign.base.recipe, findings.ranked
    if key not in scored:
        split = f"{recipe.stage1_epochs} of {recipe.epochs} epochs align, the rest is the joint stage"
        return Section("stages", title, [f"It was not searched: in every trial, {split}."])
    splits = pd.DataFrame(
        {
            "number": scored["number"],
            "state": scored["state"],
            "value": scored["value"],
            "stage1_epochs": scored[key].fillna(recipe.stage1_epochs),
        }
    )
    note = "How long a trial first aligns images and texts (two losses) before it is trained on all four."
    plot = _plot("stages", figures.stage_split(splits, findings.objective))
    return Section("stages", title, [note], plots=[plot])


def _losses(findings: Findings) -> Section | None:
    if findings.best is None:
        return None
    epochs = findings.history
    rows = epochs[epochs["number"] == findings.best_number] if len(epochs) else epochs
    title = f"Shares of the losses in trial {findings.best_number}"
    if rows.empty or findings.best_config is None:
        return Section("losses", title, ["They are lost with the files of that trial."])
    note = "What the trial minimised, epoch by epoch: each loss times its weight, as a share of their sum."
    plot = _plot("losses", figures.loss_shares(rows, findings.best_config.loss))
    return Section("losses", title, [note], plots=[plot])


def _pareto(findings: Findings) -> Section | None:
    costs = [name for name in ("parameters", "seconds") if findings.ranked[name].notna().any()]
    if findings.best is None or not costs:
        return None
    note = (
        "What recall costs: the dotted front joins the complete trials that no other one beats at the same cost. "
        "Seconds are those of the trial on its worker, beside whatever ran there at the same time."
    )
    small = [
        _plot(
            f"pareto-{cost}",
            figures.pareto(findings.trials, cost, findings.best_number, findings.objective),
            heading=f"{findings.objective} against {cost}",
        )
        for cost in costs
    ]
    notes = [note]
    if len(findings.campaign.goals) > 1:
        numbers = findings.trials.loc[findings.trials["on_front"], "number"].tolist()
        notes.append(front_note(findings.campaign.name, findings.campaign.goals, numbers))
    return Section("pareto", "Recall against cost", notes, small=small)


def _bounds(findings: Findings) -> Section:
    title, next_space = "Bounds of the space", findings.next_space
    if not next_space.stuck:
        return Section(
            "bounds", title, ["No setting is stuck: the best trials lie inside the ranges, not at their ends."]
        )
    rows = [
        [
            each.key, worded_value(each.value), f"{each.side} {each.bound:g}", f"{each.trials} of {each.looked_at}",
            "none: the setting ends there" if each.proposed is None else f"{each.proposed:g}",
        ]
        for each in next_space.stuck
    ]  # fmt: skip
    columns = ["setting", "best trial", "bound", "best trials there", "next bound"]
    sentences = ["In these settings the best trials lie at the end of the range, so that better ones may lie beyond."]
    if next_space.is_wider:
        sentences.append("Below them is a space for the next campaign, wider there and otherwise the same.")
    code = next_space.as_yaml() if next_space.is_wider else ""
    return Section("bounds", title, sentences, PageTable(columns, rows), code=code)


def _failures(findings: Findings) -> Section:
    if not findings.failures:
        return Section("failures", "Failures", ["No trial failed."])
    rows = [[str(count), reason] for reason, count in findings.failures.items()]
    return Section("failures", "Failures", (), PageTable(["trials", "reason"], rows, worded=[1]))


ANALYSES: Sequence[Callable[[Findings], Section | None]] = (
    _settings, _history, _importance, _parallel, _slices, _curves, _pruning, _stages, _losses, _pareto, _bounds,
    _failures,
)  # fmt: skip
"""Sections on the search itself, in their order."""
