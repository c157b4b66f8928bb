"""Commands at the beginning: what is installed and works here, and configurations for the data at hand."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.terminal.cli import JsonOption
from core.terminal.console import print_json, say, say_if_installed
from search.features_cli import AddressOption

if TYPE_CHECKING:
    from search.init import Data

app = typer.Typer()
STYLES = {"ok": None, "note": "yellow", "problem": "red"}


def _said_if_installed(path: Path | None) -> Path | None:
    return None if path is None else say_if_installed(path)


@app.command(epilog="Example: crossmodal doctor --campaign configs/campaigns/demo.yaml")
def doctor(
    config: Annotated[
        Path | None, typer.Option(callback=_said_if_installed, help="Training configuration (YAML) to be run here.")
    ] = None,
    campaign: Annotated[
        Path | None, typer.Option(callback=_said_if_installed, help="Campaign file to be run here.")
    ] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option("--output-dir", "--output_dir", help="Folder of the campaign; default: output/<campaign name>."),
    ] = None,
    address: AddressOption = None,
    ray: Annotated[bool, typer.Option("--ray", help="Start Ray on this machine and stop it again.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what is installed and works here, and what to do about the rest; exit code 1 if something will not work."""
    from core.campaign.campaign import load_campaign
    from core.config import load_config
    from core.errors import UserError
    from core.files.folders import CampaignFolder
    from search.doctor import Subject, diagnose

    if config is not None and campaign is not None:
        raise UserError("--config and --campaign are both given", how="name the campaign, which has a configuration")
    settings = None if campaign is None else load_campaign(campaign)
    read = load_config(config) if config is not None else None if settings is None else settings.base
    folder = None if settings is None else CampaignFolder((output_dir or Path("output") / settings.name).resolve())
    checks = []
    for check in diagnose(Subject(read, settings, folder, address, start_ray=ray)):
        checks.append(check)
        advice = f"; {check.advice}" if check.advice else ""
        say(f"{check.verdict:<8} {check.check}: {check.found}{advice}", style=STYLES[check.verdict])
    if as_json:
        print_json([asdict(check) for check in checks])
    if any(check.verdict == "problem" for check in checks):
        raise typer.Exit(1)


@app.command(epilog="Example: crossmodal init my-campaign --data data/GeoText1652")
def init(
    out: Annotated[Path, typer.Argument(help="Folder for train.yaml and campaign.yaml; created if it is missing.")],
    data: Annotated[Path, typer.Option(help="Folder with train.json, images/ and, optionally, test.json.")],
    backbone: Annotated[
        str | None, typer.Option(help="Folder of an InternVL in transformers format, or a hub id.")
    ] = None,
) -> None:
    """Write a training and a campaign file for a data set, with comments; nothing is overwritten."""
    import torch

    from core.config import TrainConfig
    from search.init import inspect_data, write_configs

    found = inspect_data(data)
    backbone = backbone or str(TrainConfig().features.backbone)
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
    lines += [f"{data.groups:,} buildings" if data.has_groups else "every image is a building of its own"]
    if data.repeated:
        matching = "; equal captions count as matches (loss.positives: text)" if data.positives == "text" else ""
        others = "another building" if data.has_groups else "another image"
        lines += [f"{data.repeated:,} of the captions stand under {others}, too{matching}"]
    lines += [f"test annotations: {data.test or 'none found'}"]
    return lines
