"""Exported models on the Hugging Face hub: downloaded by their id, and uploaded with their card."""

import re
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

from core.errors import UserError
from core.inference.exported import CARD, SETTINGS, WEIGHTS

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
ONNX = "*.onnx*"


def is_hub_id(name: str) -> bool:
    """Whether a name may be that of a repository: owner/name."""
    return len(name) <= 96 and HUB_ID.fullmatch(name) is not None


def require_hub_id(name: str) -> None:
    """Check that a name may be that of a repository.

    Raises:
        UserError: it cannot.
    """
    if not is_hub_id(name):
        raise UserError("is not the name of a repository", where=name, how="write it as owner/name")


def download(repository: str) -> Path:
    """Folder of an exported model, downloaded if it is not in the cache.

    Raises:
        UserError: the hub cannot provide it.
    """
    try:
        return Path(snapshot_download(repository, allow_patterns=[WEIGHTS, SETTINGS, CARD]))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise UserError(
            f"there is no such folder, and the hub did not provide it ({_reason(error)})",
            where=repository,
            how="name the folder of a run, or a model of the hub as owner/name",
        ) from None


def push(folder: Path, repository: str) -> str:
    """Upload an exported model into a repository, which is created if it is missing; returns its address.

    Raises:
        UserError: the hub cannot be reached, or refuses it.
    """
    require_hub_id(repository)
    hub = HfApi()
    try:
        address = hub.create_repo(repository, exist_ok=True)
        hub.upload_folder(
            repo_id=address.repo_id,
            folder_path=folder,
            allow_patterns=[WEIGHTS, SETTINGS, CARD, ONNX],
            commit_message="Upload a model of crossmodal-search",
        )
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError, ValueError) as error:
        raise UserError(
            f"the hub did not take it ({_reason(error)}); the export itself is complete",
            where=repository,
            how="log in with hf auth login, and check the connection",
        ) from None
    return str(address)


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
