"""The root command: campaigns, and the commands of `core.terminal.cli` and `analysis.cli`."""

import codecs
import gc
import io
import logging
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

import analysis.cli
import core.terminal.cli
from core.errors import UserError
from core.terminal.cli import JsonOption
from core.terminal.console import console, print_json, say, say_if_installed
from core.terminal.help_pages import fit_help
from search.data_cli import app as data_app
from search.external_cli import app as external_app
from search.features_cli import (
    AddressOption,
    NodesOption,
    VerifyOption,
    prepare_campaign_features,
    require_cluster_first,
)
from search.features_cli import app as features_app
from search.model_cli import app as model_app
from search.serve_cli import app as serve_app
from search.setup_cli import app as setup_app
from search.winner_cli import FolderArgument, exit_unless_finished, renew_leaderboard
from search.winner_cli import app as winner_app

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.campaign.campaign import Campaign
    from core.files.folders import CampaignFolder
    from search.campaign import CampaignFeatures, SessionEnd
    from search.plan import Estimate
    from search.study.proposals import Start


class Commands(TyperGroup):
    """Prints how to continue after Ctrl-C; typer would exit without a message."""

    def make_context(self, *arguments: Any, **settings: Any) -> Any:
        fit_help(self)
        return super().make_context(*arguments, **settings)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _print_error("interrupted; run the same command to continue", style="yellow")
            raise typer.Exit(128 + signal.SIGINT) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find, validate and retrain the best adapters on a frozen InternVL for image-text retrieval.",
    epilog="Example: crossmodal search configs/campaigns/demo.yaml --output-dir output/demo",
)
app.add_typer(setup_app)
app.add_typer(core.terminal.cli.app)
app.add_typer(analysis.cli.app)
app.add_typer(data_app, name="data")
app.add_typer(features_app, name="features")
app.add_typer(winner_app)
app.add_typer(model_app)
app.add_typer(serve_app)
app.add_typer(external_app)


def _print_version(asked: bool) -> None:
    from core import __version__

    if asked:
        say(f"crossmodal-search {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of `crossmodal` itself."""


LIST_OPTIONS = ("--checkpoints", "--labels")
CampaignArgument = Annotated[
    Path, typer.Argument(metavar="CAMPAIGN.yaml", callback=say_if_installed, help="Campaign file.")
]
CampaignFolderOption = Annotated[
    Path | None,
    typer.Option("--output-dir", "--output_dir", help="Folder of the campaign; default: output/<campaign name>."),
]


@app.command(epilog="Example: crossmodal search configs/campaigns/demo.yaml --output-dir output/demo")
def search(
    campaign: CampaignArgument,
    output_dir: CampaignFolderOption = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of trials; overrides limits.trials.")
    ] = None,
    hours: Annotated[
        float | None, typer.Option(min=0.0, help="Maximum wall time in hours; overrides limits.hours.")
    ] = None,
    address: AddressOption = None,
    nodes: NodesOption = 1,
    no_reuse: Annotated[bool, typer.Option("--no-reuse", help="Start a new worker process for every trial.")] = False,
    verify: VerifyOption = False,
) -> None:
    """Run a campaign up to its limits: start it, continue it after a crash, or extend it."""
    from core.campaign.campaign import load_campaign
    from core.files.folders import CampaignFolder
    from core.files.ownership import require_ours
    from search.campaign import Cluster, Listeners, advance, with_current_limits
    from search.progress import CampaignProgress
    from search.study.limits import CurrentLimits
    from search.study.proposals import SearchProposals
    from search.study.strategy import require_sampler

    settings = load_campaign(campaign).with_limits(trials=trials, hours=hours)
    require_cluster_first(address)
    require_sampler(settings.sampler.kind)
    named = output_dir or Path("output") / settings.name
    folder = CampaignFolder(named.resolve())
    require_ours(folder.root, folder.NAMES)
    if settings.warm_start and not folder.campaign.exists():
        from search.warm_start import require_sources

        require_sources(settings)
    cluster = Cluster(address, nodes, reuse_actors=not no_reuse)
    features = prepare_campaign_features(settings, folder, cluster, verify=verify)
    say(
        f"campaign {settings.name}: up to {with_current_limits(settings, folder).limits.trials} trials of "
        f"{settings.base.recipe.epochs} epochs, {len(settings.space.dimensions)} searched settings, "
        f"objective {settings.objective}, in {folder.root}"
    )
    limits = CurrentLimits(folder, settings.limits)
    proposals = SearchProposals(settings, lambda: _taken_over(settings, features))
    with CampaignProgress(console, settings.objective, lambda: limits.read().trials) as progress:
        listeners = Listeners(progress.update, lambda note: say(note, style="yellow"))
        end = advance(proposals, folder, features, cluster, listeners)
    if end.standing.complete:
        renew_leaderboard(folder)
    exit_unless_finished(end)
    _print_outcome(end, settings.objective, folder)
    say(f"next: crossmodal confirm {named}")


def _taken_over(campaign: "Campaign", features: "CampaignFeatures") -> "Sequence[Start]":
    if not campaign.warm_start:
        return []
    from search.warm_start import take_over  # imports torch and pandas, which most campaigns need later

    return take_over(campaign, features, say)


def _print_outcome(end: "SessionEnd", objective: str, folder: "CampaignFolder") -> None:
    standing = end.standing
    if standing.best is None and standing.complete:
        from search.winner import nothing_eligible

        raise nothing_eligible(folder)
    if standing.best is None:
        from analysis.leaderboard import nothing_to_rank
        from analysis.trials import load_trials

        raise nothing_to_rank(load_trials(folder))
    number, value = standing.best
    gain = "" if standing.gain is None else f", {standing.gain:+.4f} over baseline"
    say(
        f"{standing.complete} trials complete, {standing.pruned} pruned, {standing.failed} failed; "
        f"best is trial {number}: {objective} {value:.4f}{gain}"
    )


@app.command(epilog="Example: crossmodal limits output/demo --trials 300 --hours 20")
def limits(
    folder: FolderArgument,
    trials: Annotated[int | None, typer.Option(min=1, help="Maximum number of trials.")] = None,
    hours: Annotated[float | None, typer.Option(min=0.0, help="Maximum wall time in hours, of all sessions.")] = None,
    gpu_hours: Annotated[float | None, typer.Option(min=0.0, help="Maximum GPU-hours, of all trials.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the limits of a campaign, or change them; a running search takes them up within seconds."""
    from analysis.status import driver_of
    from core.files.folders import CampaignFolder
    from search.campaign import change_limits

    campaign = CampaignFolder(folder)
    before, after = change_limits(campaign, trials=trials, hours=hours, gpu_hours=gpu_hours)
    if as_json:
        driver = driver_of(campaign)
        print_json({"before": before.model_dump(), "now": after.model_dump(), "driver": driver})
        return
    if before == after:
        say(f"limits: {before}")
        return
    say(f"limits before: {before}")
    say(f"limits now: {after}; driver: {driver_of(campaign)}")


@app.command(epilog="Example: crossmodal plan configs/campaigns/geotext1652.yaml")
def plan(
    campaign: CampaignArgument,
    output_dir: CampaignFolderOption = None,
    slots: Annotated[
        int | None, typer.Option(min=1, help="Number of concurrent trials; default: what fits this machine.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Estimate the cost of a campaign from a short calibration or its own history; starts nothing."""
    from core.campaign.campaign import load_campaign
    from core.files.folders import CampaignFolder
    from search.campaign import with_current_limits
    from search.plan import estimate

    asked = load_campaign(campaign)
    folder = CampaignFolder((output_dir or Path("output") / asked.name).resolve())
    settings = with_current_limits(asked, folder)
    say(f"estimating the cost of campaign {settings.name}; nothing is started")
    cost = estimate(settings, folder, slots=slots)
    if as_json:
        print_json(cost.to_json())
        return
    _print_estimate(cost, settings)


def _print_estimate(cost: "Estimate", campaign: "Campaign") -> None:
    for store in cost.extraction:
        state = "no pass of the backbone is needed"
        if store.seconds:
            state = f"about {store.seconds:,.0f} s in one process here"
        say(
            f"features {store.fingerprint}: {store.images:,} images, {store.texts:,} texts, "
            f"{_in_bytes(store.gigabytes)} on disk, {state}"
        )
        for each in store.costs:
            unit = "image" if each.reading.kind == "images" else "text"
            say(f"  {each.reading.name}: {_in_bytes(each.gigabytes)}, {each.gigaflops:,.3g} GFLOP per {unit}")
    training = cost.training
    say(
        f"an epoch: {training.seconds_per_epoch:.2f} s ({training.basis}); "
        f"a trial: {training.epochs_per_trial:.1f} of {campaign.base.recipe.epochs} epochs with pruning"
    )
    per_gpu = "unknown, no GPU here" if cost.trials_per_gpu is None else str(cost.trials_per_gpu)
    say(f"trials that fit in the memory of a GPU: {per_gpu}")
    wall = timedelta(seconds=round(cost.wall_hours * 3600))
    counts = f"{cost.trials_left} trials, {cost.slots} concurrent"
    say(f"{counts}: about {wall} of training, {cost.gpu_hours:.2g} GPU-hours")
    limit = campaign.limits.gpu_hours
    if limit is not None and cost.gpu_hours > limit:
        say(f"limits.gpu_hours of {limit:g} will end the campaign earlier", style="yellow")


def _in_bytes(gigabytes: float) -> str:
    return f"{gigabytes:,.1f} GB" if gigabytes >= 1 else f"{1000 * gigabytes:,.2g} MB"


GARBAGE_EVERY = 50_000
"""Objects between two collections: by default, a seventh of a short command's time went to looking for garbage among
what it imported."""
PLAIN = {"–": "-", "×": "x", "…": "..."}
_IN_PLAIN = "crossmodal-plain"


def _in_plain(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that a terminal or pipe cannot encode (LANG=C, latin-1) with similar ones."""
    assert isinstance(error, UnicodeEncodeError), "nothing is decoded with this handler"
    return "".join(PLAIN.get(each, "?") for each in error.object[error.start : error.end]), error.end


def main() -> None:
    """Run a command; a user's mistake or an operating system error (a full disk) is one line and exit code 2."""
    gc.set_threshold(GARBAGE_EVERY)
    logging.raiseExceptions = False  # a log record that cannot be written (a full disk) prints no traceback
    codecs.register_error(_IN_PLAIN, _in_plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_IN_PLAIN)
    try:
        app(args=one_flag_a_value(sys.argv[1:]))
    except UserError as error:
        _refuse(error)
    except OSError as error:
        _refuse(
            UserError(error.strerror or str(error), where=error.filename, how="fix that and run the same command again")
        )


def _refuse(error: UserError) -> None:
    _print_error(f"error: {error}", style="red")
    sys.exit(2)


def _print_error(text: str, *, style: str) -> None:
    Console(stderr=True).print(text, style=style, highlight=False, soft_wrap=True, markup=False)


def one_flag_a_value(arguments: list[str]) -> list[str]:
    """`--labels A B` → `--labels A --labels B`: click does not parse the methodology's spelling."""
    spread: list[str] = []
    flag: str | None = None
    for argument in arguments:
        if argument.startswith("--"):
            flag = argument if argument in LIST_OPTIONS else None
            spread += [] if flag else [argument]
        else:
            spread += [flag, argument] if flag else [argument]
    return spread


if __name__ == "__main__":  # python -m search.cli, if only the dependencies are installed
    main()
