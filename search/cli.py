"""The root command: search campaigns, and everything of `core.cli` and `analysis.cli` beside them."""

import codecs
import io
import logging
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

import analysis.cli
import core.cli
from core.cli import ConfigOption, OutputOption, console, open_features, prepare_features, print_epoch, say, show
from core.errors import UserError

if TYPE_CHECKING:
    from core.config import TrainConfig
    from core.features import FeatureStore
    from core.files import CampaignFolder
    from search.campaign import CampaignStatus, FeatureFingerprints
    from search.config import Campaign
    from search.plan import Estimate

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find, prove and retrain the best adapters on a frozen InternVL for image-text retrieval.",
)
app.add_typer(core.cli.app)
app.add_typer(analysis.cli.app)

LIST_OPTIONS = ("--checkpoints", "--labels")
AddressOption = Annotated[str | None, typer.Option(help="Join this Ray cluster: auto, host:port or ray://…")]
NodesOption = Annotated[int, typer.Option(min=1, help="Wait until the cluster has so many.")]
CampaignArgument = Annotated[Path, typer.Argument(metavar="CAMPAIGN.yaml", help="The campaign.")]
CampaignFolderOption = Annotated[
    Path | None, typer.Option("--output-dir", "--output_dir", help="Its folder; default: output/<campaign name>.")
]
FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a campaign.")]


@app.command()
def search(
    campaign: CampaignArgument,
    output_dir: CampaignFolderOption = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Limit instead of the configured one.")] = None,
    hours: Annotated[float | None, typer.Option(min=0.0, help="Limit instead of the configured one.")] = None,
    address: AddressOption = None,
    nodes: NodesOption = 1,
    no_reuse: Annotated[bool, typer.Option("--no-reuse", help="A fresh worker process for every trial.")] = False,
) -> None:
    """Bring a campaign to its limits: start it, continue it after a crash, or extend it."""
    from core.files import CampaignFolder
    from search.campaign import advance
    from search.config import load_campaign
    from search.progress import CampaignProgress

    plan = load_campaign(campaign).with_limits(trials=trials, hours=hours)
    _require_cluster(address)
    folder = CampaignFolder((output_dir or Path("output") / plan.name).resolve())
    fingerprints = _prepare_all_features(plan, address, nodes)
    say(
        f"campaign {plan.name}: up to {plan.limits.trials} trials of {plan.base.recipe.epochs} epochs, "
        f"{len(plan.space.dimensions)} searched settings, objective {plan.objective}, in {folder.root}"
    )
    with CampaignProgress(console, plan.objective) as progress:
        status = advance(
            plan,
            folder,
            fingerprints,
            address=address,
            nodes=nodes,
            reuse_actors=not no_reuse,
            on_status=progress.update,
        )
    if status.stopped_by:
        say(f"stopped; {status.finished + status.pruned} trials are kept. Continue with the same command.")
        raise typer.Exit(128 + status.stopped_by)
    _print_outcome(status, plan.objective, folder)


@core.cli.features_app.command()
def extract(
    config: ConfigOption,
    address: AddressOption = None,
    nodes: NodesOption = 1,
    shard: Annotated[int | None, typer.Option(min=1, help="Inputs that an interruption can lose.")] = None,
) -> None:
    """Run the frozen backbone once over every picture and every distinct text, here or on a cluster."""
    from core.config import load_config

    _require_cluster(address)
    store = _prepare_features(load_config(config), address, nodes, shard)
    say(f"features {store.fingerprint} in {store.folder}")


def _require_cluster(address: str | None) -> None:
    """Before minutes of work that would end there."""
    if address is not None:
        from search.cluster import require_cluster

        require_cluster(address)


def _prepare_features(
    config: "TrainConfig", address: str | None, nodes: int, shard: int | None = None
) -> "FeatureStore":
    if address is None:
        return prepare_features(config, shard=shard)
    from search.extraction import encode_on_cluster

    return prepare_features(config, encode=encode_on_cluster(config.features, address, nodes=nodes), shard=shard)


def _prepare_all_features(campaign: "Campaign", address: str | None, nodes: int) -> "FeatureFingerprints":
    from search.campaign import FeatureFingerprints, extraction_variant, extraction_variants

    variants = extraction_variants(campaign, campaign.base)
    stores = {extraction_variant(config): _prepare_features(config, address, nodes) for config in variants}
    return FeatureFingerprints({variant: store.fingerprint for variant, store in stores.items()})


def _print_outcome(status: "CampaignStatus", objective: str, folder: "CampaignFolder") -> None:
    if status.stop_reason:
        raise UserError(status.stop_reason, where="the campaign stopped", how="mend it and run the same command again")
    if status.best_value is None:
        from analysis.leaderboard import nothing_to_rank
        from analysis.trials import load_trials

        raise nothing_to_rank(load_trials(folder))
    gain = "" if status.baseline_value is None else f", {status.best_value - status.baseline_value:+.4f} over baseline"
    say(
        f"{status.finished} trials complete, {status.pruned} pruned, {status.failed} failed; "
        f"best is trial {status.best_number}: {objective} {status.best_value:.4f}{gain}"
    )


@app.command()
def plan(
    campaign: CampaignArgument,
    output_dir: CampaignFolderOption = None,
    slots: Annotated[int | None, typer.Option(min=1, help="Trials at once; default: what fits this machine.")] = None,
) -> None:
    """Measure a short calibration, or use the campaign's own history; tell what it will cost, and stop."""
    from core.files import CampaignFolder
    from search.config import load_campaign
    from search.plan import estimate

    planned = load_campaign(campaign)
    folder = CampaignFolder((output_dir or Path("output") / planned.name).resolve())
    say(f"measuring for campaign {planned.name}; nothing is started")
    _print_estimate(estimate(planned, folder, slots=slots), planned)


def _print_estimate(found: "Estimate", campaign: "Campaign") -> None:
    for store in found.extraction:
        state = f"about {store.seconds:,.0f} s of one process here" if store.seconds else "there already"
        say(
            f"features {store.fingerprint}: {store.images:,} images, {store.texts:,} texts, "
            f"{store.gigabytes:,.3g} GB on disk, {state}"
        )
    training = found.training
    say(
        f"an epoch: {training.seconds_per_epoch:.2f} s ({training.basis}); "
        f"a trial: {training.epochs_per_trial:.1f} of {campaign.base.recipe.epochs} epochs with pruning"
    )
    per_gpu = "unknown, no GPU here" if found.trials_per_gpu is None else str(found.trials_per_gpu)
    say(f"trials that fit the memory of a GPU: {per_gpu}")
    wall = timedelta(seconds=round(found.wall_hours * 3600))
    say(f"{found.trials_left} trials, {found.slots} at once: about {wall} of training, {found.gpu_hours:.2g} GPU-hours")
    limit = campaign.limits.gpu_hours
    if limit is not None and found.gpu_hours > limit:
        say(f"limits.gpu_hours of {limit:g} will end it earlier", style="yellow")


@app.command()
def retrain(folder: FolderArgument, output_dir: OutputOption) -> None:
    """Train the best trial as the final two-stage model and evaluate it, once, on the test split."""
    from core.files import CampaignFolder
    from core.tables import scorecard_tables
    from search.retrain import find_winner
    from search.retrain import retrain as train_winner

    winner = find_winner(CampaignFolder(folder))
    recipe = winner.config.recipe
    say(
        f"trial {winner.number} (validation {winner.value:.4f}) in two stages: "
        f"{recipe.stage1_epochs} epochs aligned, {recipe.epochs - recipe.stage1_epochs} joint"
    )
    if winner.was_single_stage:
        say("it was searched as a single stage; the campaign's default split is used", style="yellow")
    features = open_features(winner.config, with_test=True)
    card = train_winner(winner, features, output_dir, on_epoch=print_epoch)
    for table in scorecard_tables(card):
        show(table)
    say(f"the final model is {card.checkpoint}")


PLAIN = {"–": "-", "×": "x", "…": "..."}
_IN_PLAIN = "crossmodal-plain"


def _in_plain(error: UnicodeError) -> tuple[str, int]:
    """For a terminal or a pipe that does not know all characters (LANG=C, latin-1): the nearest it knows."""
    assert isinstance(error, UnicodeEncodeError), "nothing is decoded with this handler"
    return "".join(PLAIN.get(each, "?") for each in error.object[error.start : error.end]), error.end


def main() -> None:
    """Run a command; what a user got wrong, or a full disk, becomes one line and exit code 2."""
    logging.raiseExceptions = False  # a library's log that cannot be written (a full disk) must not fill the screen
    codecs.register_error(_IN_PLAIN, _in_plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_IN_PLAIN)
    try:
        app(args=_one_flag_a_value(sys.argv[1:]))
    except UserError as error:
        _refuse(error)
    except OSError as error:
        _refuse(
            UserError(
                error.strerror or str(error), where=error.filename, how="mend that and run the same command again"
            )
        )


def _refuse(error: UserError) -> None:
    Console(stderr=True).print(f"error: {error}", style="red", highlight=False, soft_wrap=True, markup=False)
    sys.exit(2)


def _one_flag_a_value(arguments: list[str]) -> list[str]:
    """`--labels A B` → `--labels A --labels B`: the methodology's spelling, which click does not read."""
    spread: list[str] = []
    flag: str | None = None
    for argument in arguments:
        if argument.startswith("--"):
            flag = argument if argument in LIST_OPTIONS else None
            spread += [] if flag else [argument]
        else:
            spread += [flag, argument] if flag else [argument]
    return spread


if __name__ == "__main__":  # where only the dependencies are installed: python -m search.cli
    main()
