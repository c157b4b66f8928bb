"""Commands that go on where a search ends: confirm its best trials, and retrain the winner."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.progress import Progress
from rich.table import Table

from core.terminal.cli import OutputOption
from core.terminal.console import FeatureDisplay, console, print_epoch, say, show
from search.features_cli import AddressOption, NodesOption, prepare_campaign_features, require_cluster_first

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analysis.confirmation import Confirmed
    from core.records import Interval
    from search.campaign import SessionEnd

app = typer.Typer()
FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a campaign.")]


@app.command(epilog="Example: crossmodal confirm output/demo --top 5 --seeds 5")
def confirm(
    folder: FolderArgument,
    top: Annotated[int, typer.Option(min=1, help="Number of trials to confirm, the best first.")] = 5,
    seeds: Annotated[int, typer.Option(min=2, max=1000, help="Number of fresh seeds for each.")] = 5,
    address: AddressOption = None,
    nodes: NodesOption = 1,
) -> None:
    """Train the best trials and the baseline again with fresh seeds, and rank them by their means."""
    from analysis.confirmation import load_confirmation
    from core.files.folders import CampaignFolder
    from search.campaign import Cluster, Listeners, advance
    from search.confirm import measure_repeats, propose_confirmation
    from search.progress import CampaignProgress

    require_cluster_first(address)
    campaign = CampaignFolder(folder.resolve())
    proposals = propose_confirmation(campaign, top=top, seeds=seeds)
    settings, cluster = proposals.campaign, Cluster(address, nodes)
    features = prepare_campaign_features(settings, campaign, cluster, verify=False)
    repeats = len(proposals.parents) * seeds
    say(
        f"confirming trials {', '.join(map(str, proposals.parents))} of campaign {settings.name} with seeds "
        f"{proposals.seeds[0]} to {proposals.seeds[-1]}: {repeats} repeats of {settings.base.recipe.epochs} epochs"
    )
    with CampaignProgress(console, settings.objective, repeats) as progress:
        listeners = Listeners(progress.update, lambda note: say(note, style="yellow"))
        end = advance(proposals, campaign.confirmation, features, cluster, listeners)
    exit_if_stopped(end)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("measuring repeats")
        measure_repeats(campaign, lambda done, total: bar.update(task, completed=done, total=total))
    print_confirmation(load_confirmation(campaign), settings.objective)


def exit_if_stopped(end: "SessionEnd") -> None:
    """Say how to go on after a signal, and exit as the signal asks."""
    if end.stopped_by:
        kept = end.standing.complete + end.standing.pruned
        say(f"stopped; {kept} trials are kept. Run the same command to continue.")
        raise typer.Exit(128 + end.stopped_by)


def print_confirmation(confirmed: "Sequence[Confirmed]", objective: str) -> None:
    """A table of the confirmed trials, and what it says in words."""
    table = Table(
        box=box.SIMPLE_HEAD,
        caption=f"validation {objective} in percent, means over seeds; 95 % intervals over seeds and buildings; trials "
        "that cannot be told apart may share a rank",
    )
    for heading in ("#", "trial", "seeds", "mean", "95 %", "gain", "95 %", "search", "curse"):
        table.add_column(heading, justify="right")
    for each in confirmed:
        table.add_row(
            str(each.rank), "0 (baseline)" if each.trial == 0 else str(each.trial), str(len(each.seeds)),
            f"{100 * each.mean.value:.1f}", _bounds(each.mean), f"{100 * each.gain.value:+.1f}", _bounds(each.gain),
            f"{100 * each.searched:.1f}", f"{100 * each.curse:+.1f}",
        )  # fmt: skip
    show(table)
    best = confirmed[0]
    beaten = "beats" if best.gain.low > 0 else "cannot be told from"
    say(
        f"trial {best.trial} has the best mean, {best.mean.value:.4f}, and {beaten} the baseline; the search said "
        f"{best.searched:.4f}"
    )


def _bounds(interval: "Interval") -> str:
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"


@app.command(epilog="Example: crossmodal retrain output/demo --output-dir output/demo/final")
def retrain(folder: FolderArgument, output_dir: OutputOption) -> None:
    """Retrain the best trial as the final two-stage model, and evaluate it once on the test split."""
    from analysis.trials import load_trials, lost_files
    from core.features.inputs import read_inputs
    from core.features.opening import open_features
    from core.files.folders import CampaignFolder
    from core.terminal.tables import scorecard_tables
    from search.campaign import CampaignFeatures, extraction_variant, require_unchanged_features
    from search.final_run import track_retrained
    from search.retrain import find_winner, require_free_output
    from search.retrain import retrain as train_winner

    require_free_output(output_dir)
    winner = find_winner(CampaignFolder(folder))
    for path in lost_files(CampaignFolder(folder), load_trials(CampaignFolder(folder))):
        say(f"{path} is missing or torn; the winner is taken from the study", style="yellow")
    recipe = winner.config.recipe
    say(
        f"retraining trial {winner.number} (validation {winner.value:.4f}) in two stages: "
        f"{recipe.stage1_epochs} alignment epochs, {recipe.epochs - recipe.stage1_epochs} joint"
    )
    if winner.was_single_stage:
        say("the trial was single-stage; the campaign's default split is used", style="yellow")
    inputs = read_inputs(winner.config)
    require_unchanged_features(
        CampaignFeatures({extraction_variant(winner.config): inputs.parts}, winner.config.readings.all),
        CampaignFolder(folder),
    )
    with FeatureDisplay() as display:
        features = open_features(winner.config, inputs=inputs, with_test=True, display=display)
    final = train_winner(winner, features, output_dir, on_epoch=print_epoch)
    for table in scorecard_tables(final.card):
        show(table)
    summary = f"validation {winner.config.objective} {final.value:.4f}; trial {winner.number} had {winner.value:.4f}"
    say(summary, style="yellow" if final.value < winner.value else None)
    say(f"the final model is {final.card.checkpoint}")
    for note in track_retrained(CampaignFolder(folder), output_dir):
        say(note, style="yellow")
