"""Commands that go on where a search ends: confirm its best trials, retrain the winner, repeat a trial."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich import box
from rich.table import Table

from core.terminal.cli import AgainOption, JsonOption, OutputOption, say_reranking
from core.terminal.console import FeatureDisplay, console, print_epoch, print_json, progress_bar, say, say_lines, show
from search.features_cli import AddressOption, NodesOption, prepare_campaign_features, require_cluster_first

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analysis.confirmation import Confirmed
    from core.config import TrainConfig
    from core.features.store import Features
    from core.files.folders import CampaignFolder
    from core.records import EpochMetrics, Interval
    from search.campaign import SessionEnd
    from search.model_card import FinalModel
    from search.winner import Winner

app = typer.Typer()
FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a campaign.")]


@app.command(epilog="Example: crossmodal confirm output/demo --top 5 --seeds 5")
def confirm(
    folder: FolderArgument,
    top: Annotated[int, typer.Option(min=1, help="Number of trials to confirm, the best first.")] = 5,
    seeds: Annotated[int, typer.Option(min=2, max=1000, help="Number of fresh seeds for each.")] = 5,
    address: AddressOption = None,
    nodes: NodesOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Train the best trials and the baseline again with fresh seeds, and rank them by their means."""
    from analysis.confirmation import load_confirmation
    from core.campaign.study import read_confirmations
    from core.campaign.trials import baseline_of
    from core.errors import UserError
    from core.files.folders import CampaignFolder
    from core.files.ownership import require_ours
    from search.campaign import Cluster, Listeners, advance
    from search.confirm import measure_repeats, propose_confirmation
    from search.progress import CampaignProgress

    require_cluster_first(address)
    campaign = CampaignFolder(folder.resolve())
    proposals = propose_confirmation(campaign, top=top, seeds=seeds)
    require_ours(campaign.root, campaign.NAMES)  # before an hour of training, not when the leaderboard is written
    settings, cluster = proposals.campaign, Cluster(address, nodes)
    features = prepare_campaign_features(settings, campaign, cluster, verify=False)
    known = {(trial.confirms, trial.seed) for trial in read_confirmations(campaign)}
    say(
        f"confirming trials {', '.join(map(str, proposals.parents))} of campaign {settings.name} with seeds "
        f"{proposals.seeds[0]} to {proposals.seeds[-1]}: {len(proposals.repeats)} repeats of "
        f"{settings.base.recipe.epochs} epochs"
    )
    with CampaignProgress(console, settings.objective, lambda: len(known.union(proposals.repeats))) as progress:
        # The best repeat is only the luckiest one.
        listeners = Listeners(
            lambda standing: progress.update(replace(standing, best=None)), lambda note: say(note, style="yellow")
        )
        end = advance(proposals, campaign.confirmation, features, cluster, listeners)
    exit_unless_finished(end)
    with progress_bar() as bar:
        task = bar.add_task("measuring repeats", total=None)
        measure_repeats(campaign, lambda done, total: bar.update(task, completed=done, total=total))
    renew_leaderboard(campaign)
    baseline = baseline_of(proposals.searched)
    confirmed = load_confirmation(campaign)
    if not confirmed:
        raise UserError("every repeat failed", where=campaign.confirmation.root, how="see crossmodal status on it")
    if as_json:
        print_json(confirmation_json(confirmed, settings.name, settings.objective))
        return
    print_confirmation(confirmed, settings.objective, None if baseline is None else baseline.number)
    say(f"next: crossmodal retrain {folder} --output-dir {folder / 'final'}")


def renew_leaderboard(folder: "CampaignFolder") -> None:
    """Write the leaderboard files of a campaign, once a trial is complete, so that they never lag behind it."""
    from analysis.board_formats import write_leaderboard
    from analysis.boards import read_boards

    write_leaderboard(folder, read_boards([folder]))


def exit_unless_finished(end: "SessionEnd") -> None:
    """Say how to go on after a signal, and exit as the signal asks.

    Raises:
        UserError: too many trials failed in a row.
    """
    from core.errors import UserError

    if end.stopped_by:
        kept = end.standing.complete + end.standing.pruned
        say(f"stopped; {kept} trials are kept. Run the same command to continue.")
        raise typer.Exit(128 + end.stopped_by)
    if end.stop_reason:
        raise UserError(end.stop_reason, where="the campaign stopped", how="fix it and run the same command again")


def print_confirmation(confirmed: "Sequence[Confirmed]", objective: str, baseline: int | None) -> None:
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
            str(each.rank), _trial_of(each, baseline), str(len(each.seeds)),
            f"{100 * each.mean.value:.1f}", _bounds(each.mean), f"{100 * each.gain.value:+.1f}", _bounds(each.gain),
            f"{100 * each.searched:.1f}", f"{100 * each.curse:+.1f}",
        )  # fmt: skip
    show(table)
    best = next((each for each in confirmed if not each.broken), None)
    if best is None:
        say("no confirmed trial keeps the constraints by its means", style="yellow")
        return
    if best.trial == baseline:
        say(f"no trial has a better mean than the baseline, {best.mean.value:.4f}", style="yellow")
        return
    beaten = "beats" if best.gain.low > 0 else "cannot be told from"
    say(
        f"trial {best.trial} has the best mean, {best.mean.value:.4f}, and {beaten} the baseline; the search said "
        f"{best.searched:.4f}"
    )


def confirmation_json(confirmed: "Sequence[Confirmed]", campaign: str, objective: str) -> dict[str, Any]:
    """What `print_confirmation` says, as plain data."""
    trials = [{**asdict(each), "curse": each.curse} for each in confirmed]
    return {"campaign": campaign, "objective": objective, "confirmed": trials}


def _trial_of(confirmed: "Confirmed", baseline: int | None) -> str:
    notes = ["baseline"] if confirmed.trial == baseline else []
    notes += [f"breaks {', '.join(confirmed.broken)}"] if confirmed.broken else []
    return f"{confirmed.trial} ({'; '.join(notes)})" if notes else str(confirmed.trial)


def _bounds(interval: "Interval") -> str:
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"


@app.command(epilog="Example: crossmodal retrain output/demo --output-dir output/demo/final")
def retrain(
    folder: FolderArgument,
    output_dir: OutputOption,
    as_searched: Annotated[
        bool, typer.Option("--as-searched", help="Keep the trial's stages, one if it had one, instead of two.")
    ] = False,
    on: Annotated[
        Literal["training", "all"],
        typer.Option(help="Buildings to train on: the training split, or the validation split, too."),
    ] = "training",
    again: AgainOption = False,
    as_json: JsonOption = False,
) -> None:
    """Retrain the best trial as the final two-stage model, and evaluate it once on the test split."""
    from analysis.trials import load_trials, lost_files
    from core.files.folders import CampaignFolder
    from core.files.ownership import require_ours
    from core.terminal.tables import scorecard_tables
    from search.final_run import track_retrained
    from search.retrain import require_free_output
    from search.retrain import retrain as train_winner
    from search.winner import find_as_searched, find_winner, on_all_buildings

    campaign = CampaignFolder(folder)
    winner = find_as_searched(campaign) if as_searched else find_winner(campaign)
    winner = on_all_buildings(winner) if on == "all" else winner
    require_free_output(winner, output_dir)
    require_ours(campaign.root, campaign.NAMES)
    for path in lost_files(campaign, load_trials(campaign)):
        say(f"{path} is missing or torn; the winner is taken from the study", style="yellow")
    _print_plan(winner)
    features = _features_of(winner.config, campaign, with_test=True)
    final = train_winner(
        winner, features, output_dir, on_epoch=print_epoch if on == "training" else print_losses, again=again
    )
    if as_json:
        print_json(final.card.to_json())
    else:
        for table in scorecard_tables(final.card):
            show(table)
    _print_validation(final, winner)
    if campaign.final_metrics.resolve() == (output_dir / "metrics.json").resolve():
        renew_leaderboard(campaign)
    for note in track_retrained(campaign, output_dir):
        say(note, style="yellow")
    say(f"the final model is {final.card.checkpoint}; its model card is {output_dir / 'model_card.md'}")
    say(f"next: crossmodal report {folder}")


def _print_plan(winner: "Winner") -> None:
    recipe, confirmed = winner.config.recipe, winner.confirmed
    known = f"validation {winner.value:.4f}"
    if confirmed is not None:
        known += f", mean {confirmed.mean.value:.4f} over {len(confirmed.seeds)} seeds, the best of those confirmed"
    stages = (
        f"in two stages: {recipe.stage1_epochs} alignment epochs, {recipe.epochs - recipe.stage1_epochs} joint"
        if winner.has_two_stages
        else f"in one stage of {recipe.epochs} epochs, as searched"
    )
    say(f"retraining trial {winner.number} ({known}) {stages}")
    if winner.split_of is not None:
        scale = f"{recipe.stage2_lr_scale:g} × the learning rate in the second"
        say(f"the trial was single-stage; its stages are those of {winner.split_of}, with {scale}", style="yellow")
    if winner.config.data.train_on == "all":
        say(f"on the training and validation buildings, for the {recipe.epochs} epochs that validation chose")


def print_losses(metrics: "EpochMetrics") -> None:
    """Print an epoch of a model that is trained on the validation buildings, too: without figures on these."""
    say(f"epoch {metrics.epoch}  stage {metrics.stage}  loss {metrics.loss:.3f}  ({metrics.train_seconds:.1f} s)")


def _features_of(config: "TrainConfig", campaign: "CampaignFolder", *, with_test: bool = False) -> "Features":
    """The features that trials of a campaign read, if they are still those that it started with."""
    from core.features.inputs import absences, read_inputs
    from core.features.opening import open_features
    from search.campaign import CampaignFeatures, extraction_variant, require_unchanged_features

    inputs = read_inputs(config)
    say_lines(absences(inputs, config))
    require_unchanged_features(
        CampaignFeatures({extraction_variant(config): inputs.parts}, config.readings.all), campaign
    )
    with FeatureDisplay() as display:
        return open_features(config, inputs=inputs, with_test=with_test, display=display)


def _print_validation(final: "FinalModel", winner: "Winner") -> None:
    from search.model_card import difference_in_words

    if len(final.reads) > 1:
        say(f"the test split was read {len(final.reads)} times for this model", style="yellow")
    if final.value is None:
        return
    say_reranking(final.checkpoint.reranking)
    summary = f"validation {winner.config.objective} {final.value:.4f}; trial {winner.number} had {winner.value:.4f}"
    if final.difference is None:
        say(f"{summary}; its checkpoint is lost, so the two cannot be compared query by query", style="yellow")
        return
    say(summary)
    worse = final.difference.verdict == "worse"
    say(difference_in_words(final.difference), style="yellow" if worse else None)


@app.command(epilog="Example: crossmodal rerun output/demo --trial 7")
def rerun(
    folder: FolderArgument,
    trial: Annotated[int, typer.Option(min=0, help="Number of the trial.")],
    as_json: JsonOption = False,
) -> None:
    """Repeat a trial without keeping anything, and say whether its figures are the same; if not, the exit code is 1."""
    from core.files.folders import CampaignFolder
    from search.rerun import find_trial, repeat

    campaign = CampaignFolder(folder)
    found = find_trial(campaign, trial)
    features = _features_of(found.config, campaign)
    say(f"repeating trial {trial}: {len(found.epochs)} of {found.config.recipe.epochs} epochs, {found.threads} threads")
    repeated = repeat(found, features, on_epoch=print_epoch)
    if as_json:
        print_json({"trial": trial, "epochs": len(found.epochs), **asdict(repeated)})
    for note in repeated.notes:
        say(note, style="yellow")
    for change in repeated.changes:
        difference = f"{change.after - change.before:+.2g}"
        say(f"epoch {change.epoch}: {change.name} {change.before:.6g} → {change.after:.6g} ({difference})")
    if repeated.changes:
        differing = len({change.epoch for change in repeated.changes})
        say(f"trial {trial}: the figures of {differing} of {len(found.epochs)} epochs differ", style="red")
        raise typer.Exit(1)
    say(f"trial {trial}: all figures of {len(found.epochs)} epochs are the same")
