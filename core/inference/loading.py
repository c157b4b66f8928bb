"""Finding a trained model: in the folder of a run, of a final model or of an export, in a file, or on the hub."""

from collections.abc import Mapping
from pathlib import Path

from core.config import Device
from core.errors import UserError
from core.files.folders import CampaignFolder, RunFolder
from core.files.json_files import read_json
from core.inference.retrieval_model import RetrievalModel
from core.model.checkpoints import load_checkpoint


def load_model(place: Path | str, *, backbone: Path | str | None = None, device: Device = "auto") -> RetrievalModel:
    """A trained model, ready for pictures and texts.

    Args:
        place: a checkpoint; or the folder of a run, of a two-stage run, of a final model or of its campaign.
        backbone: folder or hub id of the frozen backbone; by default the one that it was trained with.
        device: auto is the GPU if there is one.
    Raises:
        UserError: there is no model, it is damaged, or the device is not available.
    """
    path = find_checkpoint(place)
    return RetrievalModel(
        load_checkpoint(path),
        name=str(path),
        backbone=None if backbone is None else str(backbone),
        device=device,
        verdicts=_verdicts(path),
    )


def find_checkpoint(place: Path | str) -> Path:
    """The file that holds the weights of a model.

    Raises:
        UserError: there is none.
    """
    path = Path(place).expanduser()
    if path.is_file():
        return path
    if not path.exists():
        raise UserError("there is no such model", where=place, how="name a checkpoint or the folder of a run")
    campaign = CampaignFolder(path)
    places = (path, path / "stage2", campaign.final_metrics.parent, campaign.final_checkpoint.parent)
    for folder in places:
        if (found := RunFolder(folder).best_checkpoint).is_file():
            return found
    if campaign.campaign.exists():
        raise UserError("has no final model yet", where=path, how=f"run crossmodal retrain {path}")
    raise UserError("holds no trained model", where=path, how="name a checkpoint or the folder of a run")


def _verdicts(checkpoint: Path) -> Mapping[str, str]:
    """Whether boxes and relations are grounded, if that was measured of this very model."""
    for folder in (checkpoint.parent, checkpoint.parent.parent):
        metrics = folder / "metrics.json"
        if metrics.is_file() and checkpoint.name == RunFolder(folder).best_checkpoint.name:
            try:
                grounding = read_json(metrics).get("grounding", {})
                return {name: str(each["verdict"]) for name, each in grounding.items()}
            except (UserError, AttributeError, KeyError, TypeError):
                return {}
    return {}
