"""The ranked table of a campaign's trials and its exports. Recall is a fraction in tables, percent in print."""

import difflib
import json
import textwrap
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from core.campaign.campaign import read_campaign
from core.campaign.trials import BASELINE, SCORED, STALE
from core.errors import UserError
from core.files.folders import CampaignFolder
from core.files.json_files import read_json
from core.records import RETRIEVAL_KEYS, Evaluation, Scorecard

SHOWN = ("rank", "number", "state", "recall_mean", "gain_over_baseline", *RETRIEVAL_KEYS, "best_epoch", "seconds")
MEASURED_ON = {"box_iou": "boxes", "relation_accuracy": "relations"}
"""What the data must contain for a metric to be measured."""
REASON_WIDTH = 300
OFFICIAL_DIRECTIONS = {"txt": "t2i", "img": "i2t"}


def rank(trials: pd.DataFrame, by: str = "recall_mean") -> pd.DataFrame:
    """Trials that have a value, best first; ties share a rank.

    Failed trials are left out. Those that break a constraint of the campaign, and pruned ones, follow without a rank:
    none of them is the winner. Pruned ones stand at their best epoch, since they were not trained to the end; one
    pruned before its joint stage has no value and is left out.

    Args:
        trials: as returned by `load_trials`.
        by: a metric, higher is better.
    Returns:
        `rank`, the columns of `trials`, and `gain_over_baseline`: the difference to trial 0, as a fraction.
    Raises:
        UserError: there is no such metric, or no trial that has it.
    """
    _require_metric(by)
    ended = trials[trials["state"].isin(SCORED)]
    table = ended[ended[by].notna()].copy()
    if table.empty:
        raise _never_measured(len(ended), by) if len(ended) and by in MEASURED_ON else nothing_to_rank(trials)
    baseline = table.loc[_is_baseline(table), by]
    table["gain_over_baseline"] = table[by] - (baseline.iloc[0] if len(baseline) else float("nan"))
    eligible = (table["state"] == "complete") & (table["broken"] == "")
    table.insert(0, "rank", table[by].where(eligible).rank(method="min", ascending=False).astype("Int64"))
    return table.sort_values(["rank", by, "number"], ascending=[True, False, True], ignore_index=True)


def failures(trials: pd.DataFrame) -> dict[str, int]:
    """Reason → number of trials that failed for it, most frequent first; retried trials do not count.

    Args:
        trials: as returned by `load_trials`.
    """
    failed = trials[(trials["state"] == "failed") & (trials["reason"] != STALE)]
    reasons = Counter(textwrap.shorten(str(reason), REASON_WIDTH, placeholder=" …") for reason in failed["reason"])
    return dict(reasons.most_common())


def _require_metric(by: str) -> None:
    known = [*RETRIEVAL_KEYS, "recall_mean", *MEASURED_ON]
    if by in known:
        return
    nearest = difflib.get_close_matches(by.lower(), known, n=1, cutoff=0.6)
    remedy = f"did you mean {nearest[0]}?" if nearest else f"choose one of {', '.join(known)}"
    given = textwrap.shorten(by, 60, placeholder="…") or "an empty name"
    raise UserError(f"{given} is not a metric of the leaderboard", where="--by", how=remedy)


def _never_measured(ended: int, by: str) -> UserError:
    problem = f"none of the {ended} ended trials has {by}, since the validation data contain no {MEASURED_ON[by]}"
    return UserError(problem, where="--by", how="rank by recall_mean")


def nothing_to_rank(trials: pd.DataFrame) -> UserError:
    """The error for a campaign without a finished trial: counts the open trials, or names why trials failed."""
    failed = failures(trials)
    unfinished = int(trials["state"].isin(["running", "waiting"]).sum())
    if not failed:
        count = f" ({unfinished} running or waiting)" if unfinished else ""
        return UserError(f"no trial has finished yet{count}", how="let the campaign continue")
    reasons = "; ".join(f"{count} × {reason}" for reason, count in failed.items())
    problem = f"no trial has finished: {sum(failed.values())} failed ({reasons})"
    return UserError(problem, how="fix the causes, and start a new campaign")


def _is_baseline(table: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each trial is trial 0, or continued it after interruptions."""
    return table["origin"] == BASELINE


def to_csv(table: pd.DataFrame) -> str:
    """Every column, full precision, recall as fractions."""
    return table.to_csv(index=False)


def to_json(table: pd.DataFrame) -> str:
    """A list of objects, every column, recall as fractions; missing values are null."""
    return table.to_json(orient="records", indent=2) + "\n"


def to_markdown(table: pd.DataFrame) -> str:
    """The shown columns in percent, below a caption."""
    rows = [list(SHOWN), ["---"] * len(SHOWN), *printed_rows(table)]
    lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{caption(table)}\n\n{lines}\n"


def to_latex(table: pd.DataFrame) -> str:
    """A booktabs tabular of the shown columns in percent, the best figure of each recall in bold."""
    recalls = ("recall_mean", *RETRIEVAL_KEYS)
    best = {name: table[name].idxmax() for name in recalls}
    body = []
    for index, row in zip(table.index, printed_rows(table), strict=True):
        cells = [
            rf"\textbf{{{cell}}}" if name in best and best[name] == index else cell
            for name, cell in zip(SHOWN, row, strict=True)
        ]
        body.append(" & ".join(cells) + r" \\")
    heading = " & ".join(name.replace("_", r"\_") for name in SHOWN) + r" \\"
    columns = "r" * len(SHOWN)
    lines = [rf"% {caption(table)}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", heading, r"\midrule"]
    return "\n".join([*lines, *body, r"\bottomrule", r"\end{tabular}"]).replace("–", "--") + "\n"


def official_entry(folder: CampaignFolder) -> str:
    """The official entry of the final model that `crossmodal retrain DIR --output-dir DIR/final` wrote.

    Raises:
        UserError: there is none, or it was not measured on a test split.
    """
    if not folder.final_metrics.exists():
        raise UserError(
            "there is no final model",
            where=folder.final_metrics,
            how="run crossmodal retrain DIR --output-dir DIR/final",
        )
    measured = _final_scorecard(folder).find("geotext-official", reranked=False)
    train = read_campaign(folder).train
    date = datetime.fromtimestamp(folder.final_metrics.stat().st_mtime).date().isoformat()
    return to_geotext(
        measured,
        identifier=folder.root.resolve().name,
        training_data=training_data(train.data.train_annotations),
        backbone=Path(train.features.backbone).name,
        date=date,
    )


def _final_scorecard(folder: CampaignFolder) -> Scorecard:
    content = read_json(folder.final_metrics)
    try:
        return Scorecard.from_json({name: value for name, value in content.items() if name != "trial"})
    except (AttributeError, ValueError):
        raise UserError("is not a final model's scorecard", where=folder.final_metrics, how="retrain again") from None


def training_data(annotations: Path) -> str:
    """What a model was trained on, as far as its files tell; only the submitter can confirm that it is GeoText-1652."""
    return "synthetic" if (annotations.parent / "synthetic.json").exists() else annotations.name


def to_geotext(evaluation: Evaluation, *, identifier: str, training_data: str, backbone: str, date: str) -> str:
    """An entry for the official GeoText-1652 leaderboard, as JSON.

    There, `txt_*` are text queries over images (our t2i) and `img_*` image queries over texts (our i2t), although the
    official script prints them under the opposite names.

    Args:
        identifier: lower-case, unique on the leaderboard.
        date: ISO, e.g. 2026-11-23.
    Raises:
        UserError: the figures are not of the test split, or their relevance is not by building.
    """
    if evaluation.split != "test" or evaluation.protocol == "image":
        raise UserError(
            f"figures of the {evaluation.split} split by {evaluation.protocol} do not belong on the leaderboard",
            how="evaluate on the test split by building",
        )
    bank = "" if evaluation.query_bank == "none" else f"; query bank: {evaluation.query_bank}"
    metrics = {
        f"{official}_r{k}": round(100 * evaluation.metrics[f"{ours}_r{k}"], 2)
        for official, ours in OFFICIAL_DIRECTIONS.items()
        for k in (1, 5, 10)
    }
    measured_on = f"{evaluation.queries_image} images, {evaluation.queries_text} texts, {evaluation.groups} buildings"
    entry = {
        "id": identifier.lower(), "method": "crossmodal-search", "submitter": "", "affiliation": "", "paper": "",
        "code": "", "checkpoint": "", "training_data": training_data, "backbone": backbone, "date": date,
        "metrics": metrics, "verified": False,
        "notes": f"relevance: {evaluation.protocol}; re-ranked: {evaluation.rerank}{bank}; {measured_on}",
    }  # fmt: skip
    return json.dumps(entry, indent=2, ensure_ascii=False) + "\n"


def caption(table: pd.DataFrame) -> str:
    """What the figures were measured on."""
    images, texts = int(table["gallery_images"].iloc[0]), int(table["gallery_texts"].iloc[0])
    return (
        f"Validation split, {images} images and {texts} texts, relevance by building; recall in percent, "
        "gain in percentage points over the baseline (trial 0)."
    )


def printed_rows(table: pd.DataFrame, columns: Iterable[str] = SHOWN) -> list[list[str]]:
    """Columns formatted for reading: recall in percent, gain in percentage points."""
    return [[_printed(name, row[name]) for name in columns] for _, row in table.iterrows()]


def _printed(name: str, value: Any) -> str:
    if pd.isna(value):
        return "–"
    if name in ("recall_mean", *RETRIEVAL_KEYS):
        return f"{100 * value:.1f}"
    if name == "gain_over_baseline":
        return f"{100 * value:+.1f}"
    if name == "seconds":
        return f"{value:.1f}"
    return str(value) if isinstance(value, str) else str(int(value))
