"""Leaderboards of campaign folders: which campaigns share a table, and their final models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from analysis.confirmation import Confirmed, load_confirmations
from analysis.leaderboard import caption, in_order, score
from analysis.trials import tabulate
from core.campaign.campaign import Campaign, read_campaign
from core.campaign.goals import Goals
from core.campaign.study import read_trials
from core.campaign.trials import SCORED, TrialRecord
from core.errors import UserError
from core.files.folders import CampaignFolder
from core.files.json_files import read_json
from core.records import MAJORITY, MEAN_BOX, SHUFFLED, TEXT_ONLY, Evaluation, Scorecard
from core.sections import Scalar

REGION_BASELINES = {
    "box_iou": {
        f"box_iou_{TEXT_ONLY}": "by the sentence alone",
        f"box_iou_{MEAN_BOX}": "by the mean box",
        f"box_iou_{SHUFFLED}": "with shuffled images",
    },
    "relation_accuracy": {
        f"relation_accuracy_{TEXT_ONLY}": "by the sentence alone",
        MAJORITY: "by the most frequent relation",
        f"relation_accuracy_{SHUFFLED}": "with shuffled images",
    },
}
"""What stands beside boxes and relations, in words."""
APART = "Campaigns with another objective or other data have a table of their own."


@dataclass(frozen=True, slots=True)
class Board:
    """Campaigns whose trials can be compared."""

    campaigns: Sequence[str]
    """One name each, unique on the command line."""
    metric: str
    """What the trials are ranked by."""
    trials: pd.DataFrame
    """As returned by `leaderboard.in_order`, and the columns campaign, stages, split and protocol."""
    final: pd.DataFrame
    """The final models on the test split, a row for each protocol that can differ and way of ranking; may be empty."""
    notes: Sequence[str]
    """What must be known to read the figures."""
    sources: Sequence[tuple[CampaignFolder, pd.DataFrame]]
    """The folder of each campaign, and all its trials as returned by `trials.tabulate`."""

    def best(self, top: int | None) -> pd.DataFrame:
        """The first of the trials; all of them for None."""
        return self.trials if top is None else self.trials.head(top)


def read_boards(folders: Sequence[CampaignFolder], metric: str | None = None) -> list[Board]:
    """The leaderboards of campaigns: one for all that have the same objective, annotations and images.

    Args:
        folders: not empty; one that is given twice counts once.
        metric: what trials are ranked by; by default the objective of their campaign.
    Raises:
        UserError: a folder holds no campaign, or none of its trials has a value of the metric.
    """
    searches = [_read(folder) for folder in {folder.root.resolve(): folder for folder in folders}.values()]
    alike: dict[tuple[str, str], dict[str, _Search]] = {}
    for name, search in _named(searches).items():
        alike.setdefault(_measured_on(search), {})[name] = search
    boards = [_board(of_kind, metric or objective) for (objective, _), of_kind in alike.items()]
    return boards if len(boards) == 1 else [replace(board, notes=[*board.notes, APART]) for board in boards]


@dataclass(frozen=True, slots=True)
class _Search:
    folder: CampaignFolder
    campaign: Campaign
    trials: Sequence[TrialRecord]


def _read(folder: CampaignFolder) -> _Search:
    return _Search(folder, read_campaign(folder), read_trials(folder))


def _named(searches: Sequence[_Search]) -> dict[str, _Search]:
    """Campaigns by name, by the names of their folders, or by the paths of these: the first that tells them apart."""
    namings = (
        [search.campaign.name for search in searches],
        [search.folder.root.resolve().name for search in searches],
        [str(search.folder.root.resolve()) for search in searches],
    )
    names = next(naming for naming in namings if len(set(naming)) == len(naming))
    return dict(zip(names, searches, strict=True))


def _measured_on(search: _Search) -> tuple[str, str]:
    """Objective and data of a campaign. Trials of campaigns in which both are equal can be compared.

    The objective chooses the epoch that a trial is scored at. The digest of the data covers annotations, images and
    splits; a campaign that has not kept it is compared with no other.
    """
    digests = {str(search.folder.root.resolve())}
    if search.folder.features.exists():
        content = read_json(search.folder.features)
        parts = content.values() if isinstance(content, dict) else ()
        digests = {str(part["data"]) for part in parts if isinstance(part, dict) and "data" in part} or digests
    return search.campaign.objective, " ".join(sorted(digests))


def _board(searches: Mapping[str, _Search], metric: str) -> Board:
    sources = {name: tabulate(search.folder, search.trials) for name, search in searches.items()}
    judged = load_confirmations([(each.folder, each.trials) for each in searches.values()], metric)
    scored = [
        _scored(search, sources[name].assign(campaign=name), metric, confirmed)
        for (name, search), confirmed in zip(searches.items(), judged, strict=True)
    ]
    trials = in_order(pd.DataFrame([row for table in scored for row in table.to_dict("records")]), metric)
    trials["standing"] = [_standing(row) for row in trials.to_dict("records")]
    unscored = sum(int(table["state"].isin(SCORED).sum()) for table in sources.values()) - len(trials)
    notes, finals = [caption(trials, metric), *_rank_notes(trials, metric, unscored)], {}
    ended = [trial.ended_at for search in searches.values() for trial in search.trials if trial.ended_at]
    if ended:
        notes[1] += f" The latest ended at {max(ended):%Y-%m-%d %H:%M:%S}."
    for name, search in searches.items():
        try:
            finals[name] = read_final(search.folder)
        except UserError as error:
            notes.append(f"{error}.")
    final = pd.DataFrame([row for name, found in finals.items() if found for row in _final_rows(name, found)])
    return Board(
        campaigns=list(searches),
        metric=metric,
        trials=trials,
        final=final,
        notes=[*notes, *_front_notes(searches), *_read_notes(finals), *_region_notes(finals)],
        sources=[(search.folder, sources[name]) for name, search in searches.items()],
    )


def _scored(search: _Search, table: pd.DataFrame, metric: str, confirmed: Sequence[Confirmed]) -> pd.DataFrame:
    """`leaderboard.score` with what the campaign itself tells of each trial."""
    own = [trial for trial in search.trials if trial.state != "imported"]
    stages = [_stages(search.campaign, trial.parameters) for trial in own]
    try:
        return score(table.assign(stages=stages, split="validation", protocol="building"), metric, confirmed)
    except UserError as error:
        raise UserError(str(error), where=search.folder.root) from None


def _standing(row: Mapping[Any, Any]) -> str:
    """What a trial is, in a word or two."""
    if row["broken"]:
        return f"breaks {row['broken']}"
    state = row["state"] if pd.isna(row["confirmed_rank"]) else "confirmed"
    return f"{state}, on the front" if row.get("on_front") is True else str(state)


def _stages(campaign: Campaign, parameters: Mapping[str, Scalar]) -> int:
    """2 if a trial aligns before its joint stage, otherwise 1."""
    first, epochs = (
        int(campaign.space.value(f"recipe.{name}", parameters, campaign.train)) for name in ("stage1_epochs", "epochs")
    )
    return 2 if 0 < first < epochs else 1


@dataclass(frozen=True, slots=True)
class Final:
    """The final model of a campaign."""

    trial: int | None
    """The trial that it was retrained from."""
    card: Scorecard


def read_final(folder: CampaignFolder) -> Final | None:
    """The final model in a campaign's folder; None if there is none.

    Raises:
        UserError: its scorecard is damaged.
    """
    path = folder.final_metrics
    if not path.exists():
        return None
    content: Any = read_json(path)
    try:
        fields = {name: content[name] for name in content if name in Scorecard.__dataclass_fields__}
        return Final(content.get("trial"), Scorecard.from_json(fields))
    except (AttributeError, TypeError, ValueError):
        raise UserError("is not a final model's scorecard", where=path, how="retrain again") from None


def _final_rows(campaign: str, final: Final) -> list[dict[str, Any]]:
    card, cost = final.card, final.card.efficiency
    return [
        {
            "campaign": campaign, "number": final.trial, "state": "final", "stages": 2 if cost.earlier_epochs else 1,
            "seeds": 1, "split": each.split, "protocol": each.protocol, "order": _order(each), "reranked": each.rerank,
            "query_bank": each.query_bank, **each.metrics,
            **{f"{name}_low": interval.low for name, interval in each.intervals.items()},
            **{f"{name}_high": interval.high for name, interval in each.intervals.items()},
            "gallery_images": each.queries_image, "gallery_texts": each.queries_text, "gallery_groups": each.groups,
            **card.regions, "regions_split": card.regions_split, "best_epoch": card.epoch,
            "parameters": cost.trainable_parameters, "seconds": cost.training_seconds, "config_hash": card.config_hash,
            "test_reads": card.test_reads,
        }
        for each in card.distinct
        if not each.rerank or each.rerank_weight != 0  # else the order is that by similarity once more
    ]  # fmt: skip


def _order(evaluation: Evaluation) -> str:
    """How the gallery was ordered, in words."""
    reranked = f"{evaluation.rerank} re-ranked" if evaluation.rerank else "by similarity"
    return reranked if evaluation.query_bank == "none" else f"{reranked}, query bank"


def _rank_notes(trials: pd.DataFrame, metric: str, unscored: int) -> list[str]:
    """How the ranks came about, and what the gains are worth."""
    reasons = {
        "pruned": int((trials["state"] == "pruned").sum()),
        "breaking a constraint": int((trials["broken"] != "").sum()),
    }
    listed = ", ".join(f"{count} {reason}" for reason, count in reasons.items() if count)
    without = f" ({listed}: without a rank)" if listed else ""
    left_out = f"; {unscored} others were pruned before their joint stage and have no score" if unscored else ""
    notes = [f"{len(trials)} trials{without}, ranked by {metric}{left_out}."]
    confirmed = trials.loc[trials["confirmed_rank"].notna(), "seeds"]
    if confirmed.empty:
        return [*notes, "One seed each, so that a gain may be luck: crossmodal confirm measures the spread of seeds."]
    seeds = " to ".join(map(str, sorted({confirmed.min(), confirmed.max()})))
    return [
        *notes,
        f"{len(confirmed)} confirmed trials stand first, with means over {seeds} seeds and 95 % intervals over seeds "
        "and buildings; those that cannot be told apart may share a rank. The others have the one seed that they were "
        "picked by.",
    ]


def _front_notes(searches: Mapping[str, _Search]) -> list[str]:
    """Which trials are on the front of a campaign with several goals."""
    return [
        front_note(name, search.campaign.goals, [trial.number for trial in search.trials if trial.on_front])
        for name, search in searches.items()
        if len(search.campaign.goals) > 1
    ]


def front_note(name: str, goals: Goals, numbers: Sequence[int]) -> str:
    """Which trials no other one beats in all goals, in words."""
    figures = ", ".join(f"{goal.figure} ({goal.direction})" for goal in goals)
    listed = ", ".join(map(str, numbers)) or "none yet"
    return f"On the front of {name}, beaten by no other trial in all goals, {figures}: {listed}."


def _read_notes(finals: Mapping[str, Final | None]) -> list[str]:
    """Which final models were chosen with knowledge of the test split, as far as the count of its readings tells."""
    return [
        f"The test split was read {final.card.test_reads} times for the final model of {name}."
        for name, final in finals.items()
        if final is not None and final.card.test_reads > 1
    ]


def _region_notes(finals: Mapping[str, Final | None]) -> list[str]:
    """What boxes and relations reach without the right picture, as measured beside each final model."""
    notes = []
    for name, final in finals.items():
        regions = {} if final is None else final.card.regions
        known = {
            metric: [f"{regions[key]:.3f} {words}" for key, words in baselines.items() if key in regions]
            for metric, baselines in REGION_BASELINES.items()
        }
        beside = "; ".join(f"{metric} {', '.join(figures)}" for metric, figures in known.items() if figures)
        if final is not None and beside:
            split = final.card.regions_split
            notes.append(f"For comparison, on the {split} split: {beside} (measured with the final model of {name}).")
    return notes
