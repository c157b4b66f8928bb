"""Finding a trained model: in the folder of a run, of a final model or of an export, in a file, or on the hub."""

from collections.abc import Mapping
from pathlib import Path

from core.config import Device
from core.errors import UserError
from core.files.folders import CampaignFolder, RunFolder
from core.files.json_files import read_json
from core.inference.exported import WEIGHTS, Exported, is_export, read_export, test_digest
from core.inference.model_hub import download, is_hub_id
from core.inference.retrieval_model import RetrievalModel
from core.model.checkpoints import load_checkpoint


def load_model(place: Path | str, *, backbone: Path | str | None = None, device: Device = "auto") -> RetrievalModel:
    """A trained model, ready for pictures and texts.

    Args:
        place: a checkpoint; the folder of a run, of a two-stage run, of a final model or of its campaign; an exported
            model, or its id on the hub.
        backbone: folder or hub id of the frozen backbone; by default the one that it was trained with.
        device: auto is the GPU if there is one.
    Raises:
        UserError: there is no model, it is damaged, the backbone is a file, or the device is not available.
    """
    if backbone is not None and Path(backbone).expanduser().is_file():
        raise UserError("is a file, not the folder of a backbone", where=backbone, how="name its folder or hub id")
    path = find_model(place)
    found = read_model(path)
    return RetrievalModel(
        found.checkpoint,
        name=str(path),
        backbone=None if backbone is None else str(backbone),
        device=device,
        verdicts=found.verdicts,
    )


def find_model(place: Path | str) -> Path:
    """The file that holds the weights of a model; one of the hub is downloaded.

    Raises:
        UserError: there is none.
    """
    path = Path(place).expanduser()
    if path.is_file():
        return path
    if not path.exists():
        if is_hub_id(str(place)):
            return download(str(place)) / WEIGHTS
        raise UserError("there is no such model", where=place, how="name a checkpoint or the folder of a run")
    if is_export(path):
        return path / WEIGHTS
    campaign = CampaignFolder(path)
    final = campaign.final_metrics.parent
    for folder in (path, path / "stage2", final, campaign.final_checkpoint.parent):
        if (found := RunFolder(folder).best_checkpoint).is_file():
            return found
    if campaign.campaign.exists():
        raise UserError("has no final model yet", where=path, how=f"run crossmodal retrain {path}")
    raise UserError("holds no trained model", where=path, how="name a checkpoint or the folder of a run")


def read_model(path: Path) -> Exported:
    """The checkpoint in a file that `find_model` found, and what was measured of it.

    Raises:
        UserError: it is damaged.
    """
    if path.suffix == ".safetensors":
        return read_export(path.parent)
    checkpoint = load_checkpoint(path)
    return Exported(checkpoint, _verdicts(path), test_digest(checkpoint.config))


def _verdicts(checkpoint: Path) -> Mapping[str, str]:
    """Whether boxes and relations are grounded, if that was measured of this final model."""
    if checkpoint.name != RunFolder(checkpoint.parent).best_checkpoint.name:
        return {}
    for folder in (checkpoint.parent, checkpoint.parent.parent):
        if (metrics := folder / "metrics.json").is_file():
            try:
                return {name: str(each["verdict"]) for name, each in read_json(metrics).get("grounding", {}).items()}
            except (UserError, AttributeError, KeyError, TypeError):  # a file that has another meaning
                return {}
    return {}
