"""Commands that show a campaign in other programs: a tracker of experiments, and Optuna's dashboard."""

from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from core.terminal.console import say
from search.winner_cli import FolderArgument

if TYPE_CHECKING:
    from core.campaign.campaign import Campaign
    from core.tracked_runs import Tracker
    from search.track import OpenTracker

app = typer.Typer()


@app.command(epilog="Example: crossmodal track output/demo --to mlflow")
def track(
    folder: FolderArgument,
    to: Annotated[Literal["wandb", "mlflow"], typer.Option("--to", help="Where the runs are written.")] = "wandb",
    project: Annotated[
        str | None, typer.Option(help="Project in W&B, or experiment in MLflow; default: the campaign's wandb.project.")
    ] = None,
) -> None:
    """Write all ended trials, the leaderboard and the final model as runs of a tracker, unless they are there."""
    from core.campaign.campaign import Tracking, read_campaign
    from core.errors import UserError
    from core.files.folders import CampaignFolder
    from core.files.ownership import hold_folder
    from core.sections import parse
    from search.track import rebuild_runs

    campaign = CampaignFolder(folder.resolve())
    settings = read_campaign(campaign)
    if project is not None:
        project = parse(Tracking, {"project": project}, where="--project").project
    project = project or settings.wandb.project
    open_tracker = _wandb(settings, project) if to == "wandb" else _mlflow(settings, project, campaign.root)
    with ExitStack() as held:
        for each in (campaign, campaign.confirmation) if to == "wandb" else ():
            if each.root.exists():  # a driver has open runs that are not to be written a second time
                held.enter_context(hold_folder(each.root, each.NAMES))
        rebuilt = rebuild_runs(campaign, open_tracker)
    for note in rebuilt.notes:
        say(note, style="yellow")
    if rebuilt.problems:
        raise UserError(f"{rebuilt.problems} calls to the tracker failed", how="run the same command again")
    say(f"{rebuilt.written} runs written to project {project}, {rebuilt.known} were there before")


def _wandb(settings: "Campaign", project: str) -> "OpenTracker":
    """Runs go where the campaign's own go: below the folder that they belong to, or online."""
    from core.errors import UserError
    from core.tracked_runs import NoTracker
    from core.tracking import build_tracker

    mode = "auto" if settings.wandb.mode == "disabled" else settings.wandb.mode

    def open_tracker(root: Path, identity: str) -> "Tracker":
        tracker = build_tracker(project=project, group=settings.name, mode=mode, folder=root, identity=identity)
        if isinstance(tracker, NoTracker):
            raise UserError("Weights & Biases is disabled by the environment", how="unset WANDB_MODE")
        return tracker

    return open_tracker


def _mlflow(settings: "Campaign", project: str, folder: Path) -> "OpenTracker":
    """All runs go into one store."""
    from core.mlflow_tracking import MlflowTracker

    def open_tracker(root: Path, identity: str) -> "Tracker":
        return MlflowTracker(project=project, group=settings.name, folder=folder, identity=identity)

    return open_tracker


@app.command(epilog="Example: crossmodal dashboard output/demo --port 8080")
def dashboard(
    folder: FolderArgument,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free one.")] = 8080,
    host: Annotated[str, typer.Option(help="Address to listen on; by default this machine alone can connect.")] = (
        "127.0.0.1"
    ),
) -> None:
    """Serve the campaign's studies with optuna-dashboard, read-only, until Ctrl-C; also while a driver runs."""
    from core.files.folders import CampaignFolder
    from search.dashboard import open_server

    with open_server(CampaignFolder(folder.resolve()), host, port) as server, suppress(KeyboardInterrupt):
        say(f"optuna-dashboard of {folder}: http://{host}:{server.server_port}/ (Ctrl-C ends it)")
        server.serve_forever()
