"""The retrained winner as a run of a tracker: both stages as one curve, its test figures, and examples to look at.

Examples are of the validation split, so that looking at them is no second look at the test split.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

from core.campaign.campaign import Campaign, read_campaign
from core.campaign.study import read_trials
from core.campaign.trials import TrialRecord, standing_of
from core.config import TrainConfig, load_config
from core.data.images import open_image
from core.errors import UserError
from core.evaluation.examples import load_examples
from core.files.folders import CampaignFolder, RunFolder
from core.files.json_files import read_json, read_json_lines
from core.files.ownership import read_identity
from core.records import EpochMetrics, Examples, QueryExample, Receipt, RegionExample, Scorecard
from core.tracked_runs import DrawnBox, NoTracker, Picture, RunEnd, RunStart, Shown, ShownTable, Tracker
from core.tracking import build_tracker
from core.training.runs import STAGES

FINAL: Literal["final"] = "final"
"""Name and kind of the run."""
QUERIES, REGIONS = "retrieval_examples", "box_examples"
"""Titles of what is shown."""
PLACES = 5
"""Images shown of each query."""
REFERENCE = "reference"
"""Label of the region that the others of its image are related to."""
PICTURE_SIDE = 256
"""Longer side of pictures, in pixels."""


@dataclass(frozen=True, slots=True)
class FinalFiles:
    """What `crossmodal retrain` left in its output folder."""

    trial: int
    """That was retrained."""
    config: TrainConfig
    """Of both stages together, as of a trial."""
    history: Sequence[EpochMetrics]
    """Epochs of both stages, counted through."""
    receipt: Receipt
    """Of the last stage."""
    card: Scorecard
    checkpoint: Path

    @property
    def has_validation(self) -> bool:
        """Whether buildings were held out from its training."""
        return self.config.data.train_on != "all"


def read_final(output: Path) -> FinalFiles:
    """Read the output folder of `crossmodal retrain`, with one stage or two.

    Raises:
        UserError: a file is missing or damaged.
    """
    stages = [RunFolder(output / name) for name in STAGES if (output / name).exists()] or [RunFolder(output)]
    metrics = read_json(output / "metrics.json")
    history: list[EpochMetrics] = []
    try:
        for stage in stages:
            epochs = [EpochMetrics.from_json(row) for row in read_json_lines(stage.log)]
            history += [replace(each, epoch=len(history) + number) for number, each in enumerate(epochs)]
        known = {each.name for each in fields(Scorecard)}
        card = Scorecard.from_json({name: value for name, value in metrics.items() if name in known})
        receipt, trial = Receipt.from_json(read_json(stages[-1].receipt)), int(metrics["trial"])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError("does not hold a retrained winner", where=output, how="run crossmodal retrain again") from None
    configs = [load_config(stage.config) for stage in stages]
    return FinalFiles(trial, _together(configs), history, receipt, card, stages[-1].best_checkpoint)


def _together(configs: Sequence[TrainConfig]) -> TrainConfig:
    """The configuration of which these are the stages."""
    first, last = configs[0], configs[-1]
    if len(configs) == 1:
        return first
    return first.with_overrides(
        {
            "recipe.epochs": first.recipe.epochs + last.recipe.epochs,
            "recipe.stage1_epochs": first.recipe.epochs,
            "recipe.stage2_lr_scale": last.optimizer.learning_rate / first.optimizer.learning_rate,
        }
    )


def track_final(tracker: Tracker, campaign: Campaign, trials: Sequence[TrialRecord], output: Path) -> list[str]:
    """Write the retrained winner in an output folder as a run.

    Args:
        trials: all of the search.
    Returns:
        A line if there are no examples in it.
    Raises:
        UserError: as `read_final`.
    """
    final = read_final(output)
    notes: list[str] = []
    about = {"campaign": campaign.name, "trial": final.trial}
    tracker.start(RunStart.of_training(FINAL, FINAL, final.config, about))
    if not final.has_validation:  # nothing is known of it before the test split
        tracker.finish(FINAL, _end(final, campaign, trials))
        return notes
    for metrics in final.history:
        tracker.epoch(FINAL, metrics)
    try:
        for title, shown in shown_examples(load_examples(final.checkpoint)).items():
            tracker.show(FINAL, title, shown)
    except UserError as error:
        notes.append(f"the final run has no examples: {error}")
    tracker.finish(FINAL, _end(final, campaign, trials))
    return notes


def _end(final: FinalFiles, campaign: Campaign, trials: Sequence[TrialRecord]) -> RunEnd:
    end = RunEnd.of_training(final.history, final.receipt, campaign.objective)
    baseline = standing_of(trials).baseline
    gain = None if baseline is None else end.summary["best_value"] - baseline
    seconds = final.receipt.seconds + final.receipt.earlier_seconds
    split = final.card.evaluations[0].split
    measured = {f"{split}/{name}": value for name, value in final.card.flat().items() if name not in final.card.regions}
    measured |= {f"{final.card.regions_split}/{name}": value for name, value in final.card.regions.items()}
    known = {**end.summary, "gain_over_baseline": gain}
    if not final.has_validation:
        known = {name: known[name] for name in ("epochs", "parameters")}
    summary = {**measured, **known, "seconds": seconds}
    return RunEnd("complete", summary, final.checkpoint if campaign.wandb.artifacts else None)


def track_retrained(folder: CampaignFolder, output: Path) -> list[str]:
    """Track the retrained winner as the campaign's trials were; never fails, but returns what went wrong in lines."""
    campaign = read_campaign(folder)
    project, mode = campaign.wandb.project, campaign.wandb.mode
    try:
        identity = str(read_identity(output)["id"])
        tracker = build_tracker(project=project, group=campaign.name, mode=mode, folder=output, identity=identity)
        with closing(tracker):
            if isinstance(tracker, NoTracker) or tracker.holds(FINAL):
                return []
            return track_final(tracker, campaign, read_trials(folder), output)
    except UserError as error:
        return [f"the final run is not tracked: {error}"]


def shown_examples(examples: Examples) -> dict[str, Shown]:
    """Title → a table of right and wrong queries with the images found for them, and pictures of regions."""
    queries = [*examples.right, *examples.wrong]
    places = range(1, 1 + max((len(each.found) for each in queries), default=0))[:PLACES]
    panel = ShownTable(["caption", "rank", "its own image", *map(str, places)], [_row(each) for each in queries])
    shown: dict[str, Shown] = {QUERIES: panel}
    if examples.regions:
        shown[REGIONS] = [_boxes(region) for region in examples.regions]
    return shown


def _row(query: QueryExample) -> list[str | int | Picture]:
    found = [
        _picture(each.path, f"{'right' if each.is_right else 'wrong'}, similarity {each.similarity:.3f}")
        for each in query.found[:PLACES]
    ]
    return [query.caption, query.rank, _picture(query.image, query.image.name), *found]


def _boxes(region: RegionExample) -> Picture:
    predicted = f"IoU {region.iou:.2f}"
    if region.relation is not None:
        predicted = f"{region.predicted_relation}, {predicted}"
    boxes = (
        DrawnBox("true", region.box, region.relation or REFERENCE),
        DrawnBox("predicted", region.predicted_box, predicted),
    )
    return _picture(region.image, region.sentence, boxes)


def _picture(path: Path, caption: str, boxes: Sequence[DrawnBox] = ()) -> Picture:
    image, _ = open_image(path)
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    return Picture(image, caption, boxes)
