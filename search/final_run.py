"""The retrained winner as a run of a tracker: both stages as one curve, its test figures, and examples to look at.

Examples are of the validation split, so that looking at them is no second look at the test split.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from pathlib import Path

from core.campaign.campaign import Campaign, read_campaign
from core.campaign.study import read_trials
from core.campaign.trials import TrialRecord, standing_of
from core.config import TrainConfig, load_config
from core.data.annotations import AnnotatedImage
from core.data.images import open_image
from core.device import choose_device
from core.errors import UserError
from core.evaluation.embedding import embed_split
from core.evaluation.examples import RegionExample, RetrievalExample, region_examples, retrieval_examples
from core.features.inputs import read_inputs
from core.features.opening import open_features
from core.features.store import Features, FeatureStore
from core.files.folders import CampaignFolder, RunFolder
from core.files.json_files import read_json
from core.files.ownership import read_identity
from core.model.checkpoints import Checkpoint, load_checkpoint, restore_model
from core.records import JOINT, EpochMetrics, Receipt, Scorecard
from core.tracked_runs import DrawnBox, NoTracker, Picture, RunEnd, RunStart, Shown, ShownTable, Tracker
from core.tracking import build_tracker

FINAL = "final"
"""Name of the run."""
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
    """Of stage 2."""
    card: Scorecard
    checkpoint: Path


def read_final(output: Path) -> FinalFiles:
    """Read the output folder of `crossmodal retrain`.

    Raises:
        UserError: a file is missing or damaged.
    """
    first, second = RunFolder(output / "stage1"), RunFolder(output / "stage2")
    summary, metrics = read_json(output / "experiment_summary.json"), read_json(output / "metrics.json")
    try:
        aligned, joint = ([EpochMetrics.from_json(row) for row in summary[stage]["history"]]
                          for stage in ("stage1", "stage2"))  # fmt: skip
        known = {each.name for each in fields(Scorecard)}
        card = Scorecard.from_json({name: value for name, value in metrics.items() if name in known})
        receipt, trial = Receipt.from_json(read_json(second.receipt)), int(metrics["trial"])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError("does not hold a retrained winner", where=output, how="run crossmodal retrain again") from None
    one, two = load_config(first.config), load_config(second.config)
    return FinalFiles(
        trial=trial,
        config=one.with_overrides(
            {
                "recipe.epochs": one.recipe.epochs + two.recipe.epochs,
                "recipe.stage1_epochs": one.recipe.epochs,
                "recipe.stage2_lr_scale": two.optimizer.learning_rate / one.optimizer.learning_rate,
            }
        ),
        history=[*aligned, *(replace(each, epoch=len(aligned) + each.epoch, stage=JOINT) for each in joint)],
        receipt=receipt,
        card=card,
        checkpoint=second.best_checkpoint,
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
    final, notes = read_final(output), []
    about = {"campaign": campaign.name, "trial": final.trial}
    tracker.start(RunStart.of_training(FINAL, FINAL, final.config, about))
    for metrics in final.history:
        tracker.epoch(FINAL, metrics)
    try:
        for title, shown in stored_examples(load_checkpoint(final.checkpoint)).items():
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
    summary = {**measured, **end.summary, "gain_over_baseline": gain, "seconds": seconds}
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


def stored_examples(checkpoint: Checkpoint) -> dict[str, Shown]:
    """Examples of the validation split by title, from features that are in their store.

    Raises:
        UserError: they are not, or an image cannot be read.
    """
    config = checkpoint.config
    inputs = read_inputs(config)
    fingerprint = inputs.parts.fingerprint
    if config.features.source == "live" or not FeatureStore.exists(
        config.features.store, fingerprint, config.readings.all
    ):
        raise UserError(f"features {fingerprint} are not in {config.features.store}")
    return examples_of(checkpoint, open_features(config, inputs=inputs), inputs.images["validation"])


def examples_of(checkpoint: Checkpoint, features: Features, images: Sequence[AnnotatedImage]) -> dict[str, Shown]:
    """Examples of the validation split by title: captions with the images found for them, and predicted boxes.

    Args:
        images: annotated images of the validation split.
    """
    device = choose_device(checkpoint.config.device)
    model = restore_model(checkpoint, features).to(device)
    embedded = embed_split(model, features.validation.to(device))
    shown: dict[str, Shown] = {"retrieval_examples": _panel(retrieval_examples(embedded, images))}
    if regions := region_examples(model, embedded, images):
        shown["box_examples"] = [_boxes(region) for region in regions]
    return shown


def _panel(examples: Sequence[RetrievalExample]) -> ShownTable:
    places = range(1, 1 + max((len(each.best) for each in examples), default=0))
    rows = [
        [
            each.caption,
            each.rank,
            _picture(each.image.path, each.image.image_id),
            *(
                _picture(
                    found.image.path,
                    f"{'right' if found.is_right else 'wrong'} {found.similarity:.3f} {found.image.image_id}",
                )
                for found in each.best
            ),
        ]
        for each in examples
    ]
    return ShownTable(["caption", "rank", "its own image", *map(str, places)], rows)


def _boxes(region: RegionExample) -> Picture:
    predicted = f"{region.predicted_relation or REFERENCE}, IoU {region.iou:.2f}"
    boxes = (
        DrawnBox("true", region.box, region.relation or REFERENCE),
        DrawnBox("predicted", region.predicted_box, predicted),
    )
    return _picture(region.image.path, region.sentence, boxes)


def _picture(path: Path, caption: str, boxes: Sequence[DrawnBox] = ()) -> Picture:
    image, _ = open_image(path)
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    return Picture(image, caption, boxes)
