"""The entry of a final model for the official GeoText-1652 leaderboard.

Source: leaderboard/data.json and scripts/render_leaderboard.py of github.com/MultimodalGeo/GeoText-1652, which read it;
README.md there for the numbers of images and captions.
"""

import json
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from analysis.boards import read_final
from core.campaign.campaign import read_campaign
from core.config import DataConfig, FeaturesConfig
from core.errors import UserError
from core.files.folders import SYNTHETIC, CampaignFolder, is_synthetic
from core.records import Evaluation

DIRECTIONS = {"txt": "t2i", "img": "i2t"}
"""Officially, txt_* are text queries over images and img_* image queries over texts, although the official script
prints them under the opposite names."""
PROTOCOL = "geotext-official"
FULL, SMALL = "full_test_951", "test_24g"
"""Names of the official splits."""
FULL_BUILDINGS, FULL_IMAGES, CAPTIONS_AN_IMAGE = 951, 51_355 + 951 + 2_921, 3
SMALL_FILE, SMALL_BUILDINGS = "test_24G_version.json", range(180, 201)
"""Of the smaller split only the name of its file is known exactly; it has about 190 buildings."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What only the submitter knows."""

    submitter: str
    method: str = "crossmodal-search"
    affiliation: str = ""
    paper: str = ""
    code: str = ""
    checkpoint: str = ""
    """Address of the published weights."""
    training_data: str = "GeoText-1652 train"
    notes: str = ""
    identifier: str = ""
    """Lower-case and unique within its split; made of the method and the folder's name if it is empty."""


def official_entry(folder: CampaignFolder, submission: Submission) -> tuple[str, str]:
    """The official split that the final model in a campaign's folder was measured on, and its entry as JSON.

    Raises:
        UserError: there is no final model, its figures are not of the real test split, or the submission is incomplete.
    """
    _require_complete(submission)
    final = read_final(folder)
    if final is None:
        how = "run crossmodal retrain DIR --output-dir DIR/final"
        raise UserError("there is no final model", where=folder.final_metrics, how=how)
    train = read_campaign(folder).train
    try:
        measured = final.card.find(PROTOCOL, reranked=False)
    except KeyError:
        raise UserError(f"has no figures by {PROTOCOL}", where=folder.final_metrics, how="retrain again") from None
    split = official_split(measured, train.data)
    date = datetime.fromtimestamp(folder.final_metrics.stat().st_mtime).date().isoformat()
    entry = {
        "id": submission.identifier or _identifier(f"{submission.method} {folder.root.resolve().name}"),
        "method": submission.method,
        "submitter": submission.submitter,
        "affiliation": submission.affiliation,
        "paper": submission.paper,
        "code": submission.code,
        "checkpoint": submission.checkpoint,
        "training_data": submission.training_data,
        "backbone": _encoder(train.features),
        "date": date,
        "metrics": official_metrics(measured),
        "verified": False,
        "notes": " ".join(filter(None, [submission.notes, _measured_on(measured, final.card.test_reads)])),
    }
    return split, json.dumps(entry, indent=2, ensure_ascii=False) + "\n"


def official_split(evaluation: Evaluation, data: DataConfig) -> str:
    """The name of the official split that figures are of.

    Args:
        data: what the model was trained and measured on.
    Raises:
        UserError: they are of no official split: of drawn or of other data, or of another split.
    """
    if evaluation.split != "test" or data.test_annotations is None:
        raise _refused(f"figures of the {evaluation.split} split")
    if evaluation.unique_texts:
        raise _refused("figures with equal texts as one (evaluation.unique_texts)")
    for annotations in (data.test_annotations, data.train_annotations):
        if is_synthetic(annotations):
            raise _refused(f"figures of synthetic data ({annotations.parent / SYNTHETIC})")
    images, texts, buildings = evaluation.queries_image, evaluation.queries_text, evaluation.groups
    plausible = images < texts <= CAPTIONS_AN_IMAGE * images  # an image's repeated captions were dropped
    if (buildings, images) == (FULL_BUILDINGS, FULL_IMAGES) and plausible:
        return FULL
    if data.test_annotations.name == SMALL_FILE and buildings in SMALL_BUILDINGS and plausible:
        return SMALL
    raise _refused(f"figures of {images:,} images, {texts:,} texts and {buildings} buildings")


def _refused(what: str) -> UserError:
    how = f"measure on test_951_version.json ({FULL_IMAGES:,} images, {FULL_BUILDINGS} buildings) or {SMALL_FILE}"
    return UserError(f"{what} do not belong on the leaderboard of GeoText-1652", how=how)


def official_metrics(evaluation: Evaluation) -> dict[str, float]:
    """The six recalls in percent, under their official names."""
    return {
        f"{official}_r{k}": round(100 * evaluation.metrics[f"{ours}_r{k}"], 2)
        for official, ours in DIRECTIONS.items()
        for k in (1, 5, 10)
    }


def _require_complete(submission: Submission) -> None:
    for option, value in (("--submitter", submission.submitter), ("--method", submission.method)):
        if not value.strip():
            raise UserError("an entry needs a name here", where=option, how="name the person, team or model")
    if submission.identifier and not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", submission.identifier):
        raise UserError("is not an identifier", where="--id", how="use lower-case letters, digits, '.', '_' and '-'")
    addresses = {"--paper": submission.paper, "--code": submission.code, "--checkpoint": submission.checkpoint}
    for option, value in addresses.items():
        if value and not re.fullmatch(r"https?://[^\s()<>|]+", value):
            raise UserError("is not a web address", where=option, how="write https://… without blanks or brackets")


def _identifier(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _measured_on(evaluation: Evaluation, reads: int) -> str:
    counted = f" The test split was read {reads} times for this model." if reads > 1 else ""
    return (
        f"{evaluation.queries_image:,} images, {evaluation.queries_text:,} texts, {evaluation.groups} buildings; "
        f"relevance as in the official script, by similarity without re-ranking.{counted}"
    )


def _encoder(features: FeaturesConfig) -> str:
    """Name of the backbone, and of the vectors if there are any."""
    return " + ".join(Path(each).name for each in (features.backbone, features.vectors) if each is not None)
