"""What a campaign searched, found and confirmed, in sentences. Recall in percent, gains in percentage points."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.confirmation import Confirmed
from analysis.report_findings import Findings
from core.campaign.campaign import Campaign, Limits, SamplerKind
from core.campaign.trials import BASELINE, SCORED, STALE
from core.files.folders import is_synthetic
from core.records import Examples, Interval

FEW_TRIALS = 30
"""Below as many complete trials, importance is mostly chance."""
SAMPLERS: dict[SamplerKind, str] = {
    "tpe": "a tree-structured Parzen estimator",
    "random": "random draws",
    "gp": "a Gaussian process",
    "cmaes": "CMA-ES",
    "qmc": "a Sobol sequence",
}
DIRECTIONS = {"t2i_r1": "text-to-image R@1", "i2t_r1": "image-to-text R@1"}


def searched(findings: Findings) -> list[str]:
    """What was searched: backbone, data, space, objective, budget."""
    campaign, trials = findings.campaign, findings.trials
    data = campaign.train.data
    first = findings.ranked.iloc[0]
    drawn = is_synthetic(data.train_annotations)
    of = "synthetic data" if drawn else data.train_annotations.name
    dimensions = len(campaign.space.dimensions)
    meaning = " (the mean of R@1, R@5 and R@10 in both directions)" if findings.objective == "recall_mean" else ""
    return [
        f"Adapters on {campaign.train.features.encoders}, for retrieving images by text and texts by image, trained on "
        f"{of} and validated on {int(first['gallery_images']):,} images and {int(first['gallery_texts']):,} texts of "
        f"buildings held out from training. {_relevance(first)}",
        f"{dimensions} settings were searched by {_sampler(campaign)} for the highest validation "
        f"{findings.objective}{meaning}. Budget: {budget(campaign.limits)}. {progress(trials)}",
    ]


def _relevance(row: "pd.Series[Any]") -> str:
    if row.get("gallery_groups") == row["gallery_images"]:
        return "An answer is right if it is of the same image: every image is a building of its own."
    return "An answer is right if it is of the same building."


def _sampler(campaign: Campaign) -> str:
    pruned = "" if campaign.pruner.kind == "none" else ", with unpromising trials stopped early"
    return SAMPLERS[campaign.sampler.kind] + pruned


def budget(limits: Limits) -> str:
    """The limits of a campaign, like `30 trials or 2 hours`."""
    given = [(limits.trials, "trials"), (limits.hours, "hours"), (limits.gpu_hours, "GPU-hours")]
    return " or ".join(f"{value:,g} {name}" for value, name in given if value is not None)


def progress(trials: pd.DataFrame) -> str:
    """How many trials have ended how, and how long they took."""
    counted = trials[trials["reason"] != STALE]
    words = {"complete": "complete", "pruned": "stopped early", "failed": "failed", "running": "running"}
    counts = [f"{(counted['state'] == state).sum()} {word}" for state, word in words.items()]
    seconds = float(trials["seconds"].fillna(0.0).sum())
    return f"So far: {', '.join(counts)}; together {duration(seconds)} of training."


def duration(seconds: float) -> str:
    """Seconds for a reader: in seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"


def found(findings: Findings) -> list[str]:
    """The best trial beside the baseline."""
    best, baseline = findings.best, findings.baseline
    if best is None:
        return ["No trial is complete yet, so there is no best one."]
    if baseline is None:
        return [f"The best trial is {best['number']}: {_score(findings, best)}. The baseline is not complete yet."]
    if best["number"] == baseline["number"]:
        return [f"No trial is better than the baseline: {_score(findings, baseline)}."]
    gain = points(float(best["value"]) - float(baseline["value"]))
    others = [
        f"{words} {percent(best[name])} % (baseline {percent(baseline[name])} %)" for name, words in DIRECTIONS.items()
    ]
    return [
        f"The best trial is {best['number']}: {_score(findings, best)}, {gain} points over the baseline (trial "
        f"{baseline['number']}, the campaign's own configuration: {percent(baseline['value'])} %)."
        f"{_first_by_search(findings)}",
        f"Its {', its '.join(others)}.{_regions(best, baseline)}",
    ]


def _first_by_search(findings: Findings) -> str:
    """Which trial the search alone put first, if repeats with other seeds put another one there."""
    first = findings.ranked.iloc[0]
    if first["number"] == findings.best_number:
        return ""
    return (
        f" It is the best by its mean over fresh seeds; the search alone put trial {first['number']} first, with "
        f"{percent(first['value'])} %."
    )


def _score(findings: Findings, row: "pd.Series[Any]") -> str:
    return f"validation {findings.objective} {percent(row['value'])} %"


def _regions(best: "pd.Series[Any]", baseline: "pd.Series[Any]") -> str:
    """Boxes and relations of both, where they were measured."""
    parts = []
    if pd.notna(best["box_iou"]):
        parts.append(f"boxes overlap by an IoU of {best['box_iou']:.2f} (baseline {baseline['box_iou']:.2f})")
    if pd.notna(best["relation_accuracy"]):
        shares = percent(best["relation_accuracy"]), percent(baseline["relation_accuracy"])
        parts.append(f"{shares[0]} % of relations are right (baseline {shares[1]} %)")
    if not parts:
        return ""
    return f" Its {', and '.join(parts)}; how much of that needs the image, only the final model's verdicts say."


def confirmed(findings: Findings) -> list[str]:
    """Whether the best trial holds under other seeds, and what the final model reached."""
    sentences = _confirmation(findings.confirmed, findings.objective)
    if findings.final is not None:
        figures = [
            f"{words} {percent(findings.final.metrics[name])} %{_bounds(findings.final.intervals.get(name))}"
            for name, words in DIRECTIONS.items()
        ]
        sentences.append(
            f"The final model, measured on the {findings.final.split} split ({findings.final.queries_image:,} images, "
            f"{findings.final.queries_text:,} texts): {', '.join(figures)}.{_verdicts(findings)}"
        )
    return sentences


def _verdicts(findings: Findings) -> str:
    """Whether boxes and relations of the final model depend on the image."""
    things = {"box_iou": "boxes", "relation_accuracy": "relations"}
    judged = [f"{things[name]} are {each.verdict}" for name, each in findings.grounding.items() if name in things]
    meaning = "grounded: better than a network that never sees the image, and than itself with other images"
    return f" Its {', its '.join(judged)} ({meaning})." if judged else ""


def _confirmation(repeated: Sequence[Confirmed], objective: str) -> list[str]:
    if not repeated:
        return [
            "Nothing is confirmed yet: every figure above is of one run with one seed, and the best of many such runs "
            "looks better than it is. The command crossmodal confirm repeats the best trials with fresh seeds."
        ]
    best = repeated[0]
    equals = [str(each.trial) for each in repeated[1:] if each.rank == best.rank]
    told = f"It cannot be told apart from trial {', '.join(equals)}." if equals else "No other trial is as good."
    return [
        f"Repeated with {len(best.seeds)} fresh seeds, trial {best.trial} reaches a mean validation {objective} of "
        f"{percent(best.mean.value)} %{_bounds(best.mean)}; {_against_baseline(best)}. The search said "
        f"{percent(best.searched)} %, which is {points(best.curse)} points off. {told}"
    ]


def _against_baseline(best: Confirmed) -> str:
    if best.trial == 0 or math.isnan(best.gain.value):
        return "that is the baseline itself" if best.trial == 0 else "the baseline was not repeated"
    gain = f"{points(best.gain.value)} points over the baseline (95 % interval {points(best.gain.low)} to "
    verdict = "it beats the baseline" if best.gain.low > 0 else "which cannot be told from none"
    return f"{gain}{points(best.gain.high)}): {verdict}"


def _bounds(interval: Interval | None) -> str:
    return "" if interval is None else f" (95 % interval {percent(interval.low)} to {percent(interval.high)})"


def importance_note(findings: Findings) -> list[str]:
    """How to read the importance, with a warning where it cannot be trusted."""
    complete = int((findings.trials["state"] == "complete").sum())
    note = (
        "How much a setting decides whether a trial is among the best tenth (PED-ANOVA over the complete trials). It "
        "does not say in which direction; the slices below do."
    )
    if complete >= FEW_TRIALS:
        return [note]
    return [f"Caution: only {complete} trials are complete. Below {FEW_TRIALS}, these shares are mostly chance.", note]


def pruning_note(trials: pd.DataFrame, epochs: int) -> list[str]:
    """What stopping trials early saved.

    Args:
        epochs: of a whole trial, where they are not searched.
    """
    scored = trials[trials["state"].isin(SCORED)]
    pruned = scored[scored["state"] == "pruned"]
    if pruned.empty:
        return ["No trial was stopped early."]
    planned = scored.get("param:recipe.epochs", pd.Series(float("nan"), index=scored.index)).fillna(epochs)
    saved = (planned - scored["epochs"])[pruned.index].sum() / planned.sum()
    return [
        f"{len(pruned)} of {len(scored)} trials were stopped early, which saved {100 * saved:.0f} % of all epochs. "
        "Their figures are those of their best epoch so far and not comparable with those of complete trials."
    ]


def pictures_note(examples: Examples, name: str) -> list[str]:
    """What the pictures show, and how often the model is right."""
    right = "their own image" if examples.alone else "an image of the right building"
    framed = "The framed image is the caption's own" if examples.alone else "Framed images are of the right building"
    return [
        f"From the validation split, with {name}. Of {examples.queries:,} text queries over {examples.images:,} "
        f"images, {examples.right_queries:,} ({percent(examples.right_queries / examples.queries)} %) find {right} "
        f"first. The examples are drawn at random, each of another building. {framed}; the numbers are "
        "similarities."
    ]


def trial_cell(row: "pd.Series[Any]", name: str) -> str:
    """A column of the table of trials as printed; – where it has no value."""
    value = row[name]
    match name:
        case _ if pd.isna(value):
            return "–"
        case "number":
            return f"{value}{_ending(row)}"
        case "rank":
            return str(value)
        case "gain_over_baseline":
            return points(float(value))
        case "box_iou":
            return f"{value:.2f}"
        case "parameters" | "seconds":
            return f"{value:,.0f}"
    return percent(value)


def _ending(row: "pd.Series[Any]") -> str:
    if row["origin"] == BASELINE:
        return " (baseline)"
    return " (stopped early)" if row["state"] == "pruned" else ""


def percent(share: float | None) -> str:
    """A share in percent, to one decimal; – for none."""
    number = float("nan") if share is None else float(share)
    return "–" if math.isnan(number) else f"{100 * number:.1f}"


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign; – for none."""
    return "–" if math.isnan(difference) else f"{100 * difference:+.1f}"
