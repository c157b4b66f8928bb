"""The ranked trials of one or several campaigns, as one table. Figures are fractions here; formats print percent."""

import difflib
import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from core.campaign.trials import BASELINE, SCORED, STALE, count_reasons
from core.errors import UserError
from core.records import GROUNDING_METRICS, RETRIEVAL_KEYS

if TYPE_CHECKING:
    from analysis.confirmation import Confirmed

METRICS = (*RETRIEVAL_KEYS, "recall_mean", *GROUNDING_METRICS)
"""What trials can be ranked by; all are better if higher."""
MEASURED_ON = {"box_iou": "boxes", "relation_accuracy": "relations"}
"""What the data must contain for a metric to be measured."""
WITHIN, OUTSIDE = "within the spread of seeds", "outside the spread of seeds"
"""What a gain over the baseline is; missing where the spread is unknown."""
SINGLE_SEED_WIDTH = 1.96 * math.sqrt(2)
"""The difference of two runs of one seed each is within 95 % of its distribution below this many deviations."""


def rank(trials: pd.DataFrame, by: str = "recall_mean", confirmed: "Sequence[Confirmed]" = ()) -> pd.DataFrame:
    """Trials of one campaign that have a value, best first; ties share a rank.

    Args:
        trials: as returned by `load_trials`.
        by: a metric, higher is better.
        confirmed: as returned by `load_confirmation` for that metric.
    Returns:
        `rank`, and the columns of `score`.
    Raises:
        UserError: there is no such metric, or no trial that has it.
    """
    return in_order(score(trials, by, confirmed), by)


def score(trials: pd.DataFrame, by: str, confirmed: "Sequence[Confirmed]" = ()) -> pd.DataFrame:
    """Trials of one campaign that have a value, with their gains over its baseline; failed ones are left out.

    A confirmed trial has the means over its seeds in place of the figures of the search, which also decide which
    constraints it breaks.

    Returns:
        The columns of `trials`, and
        gain_over_baseline, gain_low, gain_high: difference to the baseline, as a fraction, with its 95 % interval;
        gain_noise: WITHIN or OUTSIDE; <metric>_low, <metric>_high: 95 % interval of each metric;
        seeds: how many the figures are means of; searched: the value in the search; confirmed_rank.
        What is known of confirmed trials alone is missing for the others.
    Raises:
        UserError: as `rank`.
    """
    _require_metric(by)
    ended = trials[trials["state"].isin(SCORED)]
    table = ended[ended[by].notna()].copy()
    if table.empty:
        raise _never_measured(len(ended), by) if len(ended) and by in MEASURED_ON else nothing_to_rank(trials)
    baseline = table.loc[_is_baseline(table), by]
    table["gain_over_baseline"] = table[by] - (baseline.iloc[0] if len(baseline) else float("nan"))
    table = pd.concat([table, _known(confirmed, by, table["number"])], axis=1)
    table["searched"] = table[by]
    for name in METRICS:
        mean = table.pop(f"{name}_mean")
        table[name] = mean.where(mean.notna(), table[name].astype(float))
    gain = table.pop("gain_mean")
    table["gain_over_baseline"] = gain.where(table["confirmed_rank"].notna(), table["gain_over_baseline"])
    table["seeds"] = table["seeds"].fillna(1).astype(int)
    table.loc[_is_baseline(table), ["gain_low", "gain_high"]] = math.nan  # of 0, by definition
    table["gain_noise"] = _noise(table, confirmed)
    broken = {each.trial: ", ".join(each.broken) for each in confirmed}
    table["broken"] = [
        broken.get(number, before) for number, before in zip(table["number"], table["broken"], strict=True)
    ]
    return table


def in_order(table: pd.DataFrame, by: str) -> pd.DataFrame:
    """Scored trials of campaigns that can be compared, ranked: confirmed ones first, then the others by their value.

    Confirmed trials share the ranks that their confirmation gives them. Trials without a rank follow: see `_class_of`.

    Args:
        table: as returned by `score`, of several campaigns one below the other.
    """
    standing = _class_of(table)
    confirmed, searched = standing == CONFIRMED, standing == SEARCHED
    first = table["confirmed_rank"].where(confirmed).rank(method="min")
    others = int(confirmed.sum()) + table[by].where(searched).rank(method="min", ascending=False)
    ranked = table.assign(standing=standing)
    ranked.insert(0, "rank", first.where(confirmed, others).astype("Int64"))
    keys = ["standing", "rank", by, "number"]
    ranked = ranked.sort_values(keys, ascending=[True, True, False, True], ignore_index=True)
    return ranked.drop(columns="standing")


CONFIRMED, SEARCHED, UNRANKED = 0, 1, 2


def _class_of(table: pd.DataFrame) -> "pd.Series[int]":
    """Which trials stand above which; the last have no rank, since none of them can be the winner.

    These are the trials that break a constraint of their campaign, and the pruned ones, which stand at their best
    epoch, since they were not trained to the end.
    """
    eligible = (table["state"] == "complete") & (table["broken"] == "")
    return table["confirmed_rank"].isna().map({False: CONFIRMED, True: SEARCHED}).where(eligible, UNRANKED)


def _known(confirmed: "Sequence[Confirmed]", by: str, numbers: "pd.Series[int]") -> pd.DataFrame:
    """What a confirmation knows of trials, one row each; all missing of a trial that was not confirmed."""
    rows: dict[int, dict[str, float]] = {}
    for each in confirmed:
        row: dict[str, float] = {"confirmed_rank": each.rank, "seeds": len(each.seeds)}
        for name, interval in {**each.figures, by: each.mean, "gain": each.gain}.items():
            row |= {f"{name}_mean": interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
        rows[each.trial] = row
    ends = [f"{name}_{end}" for name in (*METRICS, "gain") for end in ("mean", "low", "high")]
    columns = ["confirmed_rank", "seeds", *ends]
    cells = [[rows.get(number, {}).get(column, math.nan) for column in columns] for number in numbers]
    return pd.DataFrame(cells, columns=columns, index=numbers.index, dtype=float)


def _noise(table: pd.DataFrame, confirmed: "Sequence[Confirmed]") -> list[str | None]:
    """Whether each gain is more than noise, where that is known.

    By the interval of the gain of confirmed trials; by the deviation over seeds of the confirmed ones for the others.
    """
    spreads = [float(np.var(each.values, ddof=1)) for each in confirmed if len(each.values) > 1]
    width = SINGLE_SEED_WIDTH * math.sqrt(sum(spreads) / len(spreads)) if spreads else float("nan")
    rows = zip(*(table[name] for name in ("origin", "gain_over_baseline", "gain_low", "gain_high")), strict=True)
    return [
        None if origin == BASELINE else _verdict(*((gain - width, gain + width) if math.isnan(low) else (low, high)))
        for origin, gain, low, high in rows
    ]


def _verdict(low: float, high: float) -> str | None:
    if math.isnan(low):
        return None
    return WITHIN if low <= 0 <= high else OUTSIDE


def failures(trials: pd.DataFrame) -> dict[str, int]:
    """Reason → number of trials that failed for it, most frequent first; retried trials do not count.

    Args:
        trials: as returned by `load_trials`.
    """
    failed = trials[(trials["state"] == "failed") & (trials["reason"] != STALE)]
    return count_reasons(map(str, failed["reason"]))


def _require_metric(by: str) -> None:
    if by in METRICS:
        return
    nearest = difflib.get_close_matches(by.lower(), METRICS, n=1, cutoff=0.6)
    remedy = f"did you mean {nearest[0]}?" if nearest else f"choose one of {', '.join(METRICS)}"
    given = textwrap.shorten(by, 60, placeholder="…") or "an empty name"
    raise UserError(f"{given} is not a metric of the leaderboard", where="--metric", how=remedy)


def _never_measured(ended: int, by: str) -> UserError:
    problem = f"none of the {ended} ended trials has {by}, since the validation data contain no {MEASURED_ON[by]}"
    return UserError(problem, where="--metric", how="rank by recall_mean")


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


def caption(table: pd.DataFrame, by: str = "recall_mean") -> str:
    """What the figures were measured on, and in what unit they are printed."""
    images, texts = int(table["gallery_images"].iloc[0]), int(table["gallery_texts"].iloc[0])
    counted = table["gallery_groups"].dropna().tolist() if "gallery_groups" in table else []
    groups = int(counted[0]) if counted else None
    buildings = "" if groups is None else f", {groups} buildings"
    alike = "; every image is a building of its own, so that protocols cannot differ" if groups == images else ""
    unit = by if by in GROUNDING_METRICS else "percentage points"
    return (
        f"Validation split, {images} images and {texts} texts{buildings}, relevance by building{alike}; "
        f"recall in percent, gain in {unit} over the baseline (trial 0)."
    )
