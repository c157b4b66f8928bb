"""Commands at the beginning: what is installed and works here, and configurations for the data at hand."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.terminal.cli import JsonOption
from core.terminal.console import print_json, say

if TYPE_CHECKING:
    from search.init import Data

app = typer.Typer()


@app.command(epilog="Example: crossmodal init my-campaign --data data/GeoText1652")
def init(
    out: Annotated[Path, typer.Argument(help="Folder for train.yaml and campaign.yaml; created if it is missing.")],
    data: Annotated[Path, typer.Option(help="Folder with train.json, images/ and perhaps test.json.")],
    backbone: Annotated[
        str | None, typer.Option(help="Folder of an InternVL in transformers format, or a hub id.")
    ] = None,
) -> None:
    """Write a training and a campaign file for a data set, with comments; nothing is overwritten."""
    import torch

    from core.config import TrainConfig
    from search.init import inspect_data, write_configs

    found = inspect_data(data)
    backbone = backbone or TrainConfig().features.backbone
    write_configs(out, data, found, backbone=backbone, gpu=torch.cuda.is_available())
    for line in _facts(found):
        say(line)
    say(f"train.yaml and campaign.yaml in {out}. Next:")
    for command in ("doctor --campaign", "plan", "search"):
        say(f"  crossmodal {command} {out / 'campaign.yaml'}")


def _facts(data: "Data") -> list[str]:
    """What the files follow from, in words."""
    lines = [f"{data.images:,} training images with {data.captions:,} captions"]
    if data.regions:
        lines += [f"{data.regions:,} boxes" + ("" if data.related else ", no relations between them")]
    else:
        lines += ["no boxes: their losses are off and not searched"]
    lines += [f"{data.groups:,} groups" if data.has_groups else "no groups: every image stands for itself"]
    if data.repeated:
        matching = "; equal captions count as matches (loss.positives: text)" if data.positives == "text" else ""
        lines += [f"{data.repeated:,} captions stand under several {'groups' if data.has_groups else 'images'}{matching}"]
    lines += [f"test annotations: {data.test or 'none found'}"]
    return lines
