"""The resolved file of a started campaign, as far as tables need it. Reads only; knows nothing of the study."""

from typing import Any

from pydantic import ConfigDict

from core.config import Section, parse
from core.errors import UserError
from core.files.folders import CampaignFolder
from core.files.yaml_files import load_yaml


class StartedCampaign(Section):
    """What the tables need of a campaign's resolved file; `core.campaign.campaign` has all of it."""

    model_config = ConfigDict(extra="ignore")

    class Limits(Section):
        """None means no limit."""

        trials: int
        hours: float | None
        gpu_hours: float | None

    class Study(Section):
        """Where the study lies."""

        url_variable: str | None

    name: str
    objective: str
    limits: Limits
    study: Study
    train: dict[str, Any]
    """Its training configuration."""


def read_campaign(folder: CampaignFolder) -> StartedCampaign:
    """The campaign of a folder, as resolved when it started.

    Raises:
        UserError: the folder holds none, or its file is damaged.
    """
    if not folder.campaign.exists():
        raise UserError("holds no campaign", where=folder.root, how="name the folder that crossmodal search wrote")
    return parse(StartedCampaign, load_yaml(folder.campaign), where=folder.campaign)
