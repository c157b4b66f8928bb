"""Locating a checkpoint by name: a local folder, or a repository on the Hugging Face hub."""

from pathlib import Path

from core.backbone.checkpoint_files import CHECKPOINT_PATTERNS
from core.errors import UserError


def checkpoint_folder(backbone: str) -> Path:
    """Folder of a checkpoint: the local folder itself, or the cached copy of a hub repository, downloaded if missing.

    Raises:
        UserError: there is no such folder, or the hub cannot provide it.
    """
    if backbone.startswith("/"):
        if not Path(backbone).is_dir():
            raise UserError(
                "there is no such backbone folder", where=backbone, how="check features.backbone or the demo data"
            )
        return Path(backbone)
    # Slow to import, and most starts have the folder.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(backbone, allow_patterns=list(CHECKPOINT_PATTERNS)))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"the hub did not provide {backbone} ({reason})", how="give a local folder as features.backbone"
        ) from None
