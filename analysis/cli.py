"""Commands that report on and compare finished runs. Each imports what it needs when it is called."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from core.terminal.cli import OutputOption
from core.terminal.console import FeatureDisplay, say, show

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from core.evaluation.scorecard import Measured
    from core.records import Examples, Scorecard

app = typer.Typer()
TERMINAL_COLUMNS = {
    "rank": "#", "number": "trial", "state": "state", "recall_mean": "mean", "gain_over_baseline": "gain",
    "t2i_r1": "t2i@1", "t2i_r10": "t2i@10", "i2t_r1": "i2t@1", "i2t_r10": "i2t@10", "seconds": "s",
}  # fmt: skip
"""Columns that fit in 80 characters; the files hold the rest."""


@app.command(epilog="Example: crossmodal leaderboard output/demo --format latex")
def leaderboard(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a campaign.")],
    by: Annotated[str, typer.Option(help="Metric to rank by.")] = "recall_mean",
    top: Annotated[int, typer.Option(min=1, help="Rows to show in the terminal.")] = 15,
    format: Annotated[
        Literal["csv", "md", "latex", "json", "geotext"] | None,
        typer.Option(help="Print all rows in this format only; geotext: the final model's official entry."),
    ] = None,
) -> None:
    """Rank the trials; prints a table and writes leaderboard.csv and leaderboard.md into the campaign's folder."""
    from analysis.leaderboard import caption, official_entry, rank, to_csv, to_json, to_latex, to_markdown
    from analysis.trials import load_trials, lost_files
    from core.files.atomic import write_atomically
    from core.files.folders import CampaignFolder
    from core.files.ownership import claim_folder

    campaign = CampaignFolder(folder)
    if format == "geotext":
        typer.echo(official_entry(campaign), nl=False)
        return
    trials = load_trials(campaign)
    table = rank(trials, by)
    match format:
        case "csv":
            typer.echo(to_csv(table), nl=False)
        case "md":
            typer.echo(to_markdown(table), nl=False)
        case "latex":
            typer.echo(to_latex(table), nl=False)
        case "json":
            typer.echo(to_json(table), nl=False)
        case None:
            claim_folder(folder, ["leaderboard.*"])
            write_atomically(campaign.leaderboard.with_suffix(".csv"), to_csv(table))
            write_atomically(campaign.leaderboard.with_suffix(".md"), to_markdown(table))
            show(_terminal_table(table.head(top), caption(table)))
            say(f"{len(table)} trials in {campaign.leaderboard}.csv and .md{_unscored(trials, len(table))}")
            _name_lost_files(str(path.relative_to(folder)) for path in lost_files(campaign, trials))


@app.command(
    epilog="Example: crossmodal compare --single-stage-checkpoint A.pth --two-stage-checkpoint B.pth --output-dir out"
)
def compare(
    single_stage_checkpoint: Annotated[
        Path,
        typer.Option(
            "--single-stage-checkpoint", "--single_stage_checkpoint", help="Checkpoint of a single-stage run."
        ),
    ],
    two_stage_checkpoint: Annotated[
        Path, typer.Option("--two-stage-checkpoint", "--two_stage_checkpoint", help="Checkpoint of a two-stage run.")
    ],
    output_dir: OutputOption,
) -> None:
    """Evaluate both on the same split and test, for each metric, whether their difference is distinguishable."""
    from analysis import comparison, figures
    from analysis.report import Report, require_free_report, write_report

    require_free_report(output_dir, "comparison")
    single, two = _measure([single_stage_checkpoint, two_stage_checkpoint])
    differences = comparison.compare(single.samples, two.samples)
    table = comparison.comparison_table(differences, single.scorecard, two.scorecard)
    notes = [
        _gallery(single.scorecard),
        "Differences are two-stage minus single-stage, query by query; 95 % intervals by bootstrap over buildings.",
        "Training epochs and seconds count the run that a checkpoint began with: stage 1, for a stage 2.",
        *comparison.grounding_notes({"single-stage": single.scorecard, "two-stage": two.scorecard}),
    ]
    report = Report("Single-stage vs. two-stage", table, notes, [figures.differences(table)])
    write_report(output_dir, "comparison", report)
    _print_frame(table, notes)
    say(f"comparison.md, .csv, .json and .html in {output_dir}")


@app.command(
    epilog="Example: crossmodal benchmark --checkpoints A.pth B.pth --labels single two --output-dir output/benchmark"
)
def benchmark(
    checkpoints: Annotated[list[Path], typer.Option(help="Checkpoints to measure, in order.")],
    labels: Annotated[list[str], typer.Option(help="One label per checkpoint, in the same order.")],
    output_dir: OutputOption,
) -> None:
    """Evaluate several checkpoints on the same split, and write one table and one plot."""
    from analysis import comparison, figures
    from analysis.report import Report, require_free_report, write_report
    from core.errors import UserError

    if len(checkpoints) != len(labels):
        raise UserError(
            f"{len(checkpoints)} checkpoints and {len(labels)} labels", how="give each checkpoint one label"
        )
    if len(set(labels)) < len(labels):
        raise UserError(f"a label is given twice in {', '.join(labels)}", how="give each checkpoint its own")
    require_free_report(output_dir, "benchmark")
    measured = _measure(checkpoints)
    table = comparison.benchmark_table(dict(zip(labels, (each.scorecard for each in measured), strict=True)))
    notes = [_gallery(measured[0].scorecard)]
    write_report(output_dir, "benchmark", Report("Benchmark", table, notes, [figures.recall_bars(table)]))
    _print_frame(table.set_index("label").T.rename_axis("metric").reset_index(), notes)
    say(f"benchmark.md, .csv, .json and .html in {output_dir}")


@app.command(
    epilog="Example: crossmodal efficiency --single-stage-log log.txt --two-stage-log summary.json --output-dir out"
)
def efficiency(
    single_stage_log: Annotated[
        Path, typer.Option("--single-stage-log", "--single_stage_log", help="log.txt of a single-stage run.")
    ],
    two_stage_log: Annotated[
        Path, typer.Option("--two-stage-log", "--two_stage_log", help="experiment_summary.json of a two-stage run.")
    ],
    output_dir: OutputOption,
) -> None:
    """Compare epochs and seconds to convergence, and to the other run's best."""
    from analysis import efficiency as convergence
    from analysis import figures
    from analysis.report import Report, require_free_report, write_report

    require_free_report(output_dir, "efficiency")
    single, two = convergence.read_single_stage(single_stage_log), convergence.read_two_stage(two_stage_log)
    table = convergence.efficiency_table(single, two)
    curves = convergence.curves_frame([single, two])
    notes = ["Converged: first epoch within 1 % of the run's best validation recall_mean. –: never reached."]
    plots = [figures.learning_curves(curves), figures.learning_curves(curves, against="seconds")]
    write_report(output_dir, "efficiency", Report("Training efficiency", table, notes, plots))
    _print_frame(table, notes)
    say(f"efficiency.md, .csv, .json and .html in {output_dir}")


@app.command(epilog="Example: crossmodal status output/demo")
def status(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a campaign.")]) -> None:
    """Show trials by state, failures by reason, the best trial and the running driver; needs no Ray."""
    from analysis.status import read_status
    from core.files.folders import CampaignFolder

    current = read_status(CampaignFolder(folder))
    campaign, standing = current.campaign, current.standing
    limits = ", ".join(f"{value:g} {name}" for name, value in campaign.limits.model_dump().items() if value is not None)
    say(f"campaign {campaign.name}: limits {limits}; driver: {current.driver}")
    say(", ".join(f"{count} {state}" for state, count in standing.states.items()))
    if standing.best is not None:
        number, value = standing.best
        gain = "" if standing.gain is None else f", {standing.gain:+.4f} over the baseline"
        say(f"best: trial {number}, {campaign.objective} {value:.4f}{gain}")
    for trial in current.running:
        say(f"running: trial {trial.number}, {trial.epochs} epochs reported")
    for reason, count in current.failures.items():
        say(f"failed: {count} × {reason}", style="red")
    _name_lost_files(current.lost)


def _unscored(trials: "pd.DataFrame", ranked: int) -> str:
    from core.campaign.trials import SCORED

    left_out = int(trials["state"].isin(SCORED).sum()) - ranked
    return f"; {left_out} others were pruned before their joint stage and have no score" if left_out else ""


def _name_lost_files(paths: "Iterable[str]") -> None:
    for path in paths:
        say(f"{path} is missing or torn; figures come from the study", style="yellow")


@app.command(epilog="Example: crossmodal report output/demo")
def report(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a campaign.")]) -> None:
    """Write one HTML page: what was searched, found and confirmed, with plots and pictures."""
    from analysis.report_findings import read_findings
    from analysis.report_page import write_campaign_page
    from analysis.trials import lost_files
    from core.files.folders import CampaignFolder
    from core.files.ownership import claim_folder, require_ours

    require_ours(folder, ["report.html"])
    findings = read_findings(CampaignFolder(folder))
    pictures = _pictures(findings.model)
    claim_folder(folder, ["report.html"])
    path = folder / "report.html"
    write_campaign_page(path, findings, pictures)
    say(f"{path}")
    if isinstance(pictures, str):
        say(f"without pictures: {pictures}", style="yellow")
    _name_lost_files(str(path.relative_to(folder)) for path in lost_files(CampaignFolder(folder), findings.trials))


def _pictures(model: Path | None) -> "Examples | str":
    """Examples of a model, or why there are none: no one needs the images and features to read a report."""
    from core.errors import UserError
    from core.evaluation.examples import load_examples

    if model is None:
        return "no trial is complete"
    try:
        return load_examples(model)
    except UserError as error:
        return str(error)


def _measure(paths: list[Path]) -> "list[Measured]":
    """Measure checkpoints under their own configurations; all must have been trained on the same features."""
    from core.errors import UserError
    from core.evaluation.scorecard import measure
    from core.features.inputs import read_inputs
    from core.features.opening import open_features
    from core.model.checkpoints import load_checkpoint, require_same_features

    checkpoints = [load_checkpoint(path) for path in paths]
    for path, checkpoint in zip(paths, checkpoints, strict=True):
        if checkpoint.fingerprint != checkpoints[0].fingerprint:
            raise UserError(
                f"was trained on features {checkpoint.fingerprint}, but {paths[0]} on {checkpoints[0].fingerprint}",
                where=path,
                how="compare checkpoints of the same backbone, data and extraction",
            )
    inputs_of_each = [read_inputs(checkpoint.config) for checkpoint in checkpoints]
    for path, checkpoint, inputs in zip(paths, checkpoints, inputs_of_each, strict=True):
        require_same_features(checkpoint, inputs.parts.fingerprint, path)  # all of them, before any extraction
    measured = []
    for path, checkpoint, inputs in zip(paths, checkpoints, inputs_of_each, strict=True):
        config = checkpoint.config
        say(f"measuring {path}, epoch {checkpoint.epoch}")
        with_test = config.data.test_annotations is not None
        with FeatureDisplay() as display:
            features = open_features(config, inputs=inputs, with_test=with_test, display=display)
        measured.append(measure(checkpoint, features, name=str(path), settings=config.evaluation))
    return measured


def _gallery(card: "Scorecard") -> str:
    first = card.find("building", reranked=False)
    regions = f"; boxes and relations on the {card.regions_split} split" if card.regions_split else ""
    return (
        f"Retrieval on the {first.split} split by building: {first.queries_image} images, {first.queries_text} texts, "
        f"{first.groups} buildings{regions}."
    )


def _print_frame(table: "pd.DataFrame", notes: list[str]) -> None:
    from analysis.report import printed

    shown = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for name in table.columns:
        worded = name in ("metric", "verdict")
        shown.add_column(escape(str(name)), justify="left" if worded else "right", no_wrap=name == "metric")
    for row in printed(table):
        shown.add_row(*map(escape, row))
    show(shown)
    for note in notes:
        say(note)


def _terminal_table(table: "pd.DataFrame", caption: str) -> Table:
    from analysis.leaderboard import printed_rows

    shown = Table(caption=caption, box=box.SIMPLE_HEAD)
    for heading in TERMINAL_COLUMNS.values():
        shown.add_column(heading, justify="right")
    for row in printed_rows(table, TERMINAL_COLUMNS):
        shown.add_row(*row)
    return shown
