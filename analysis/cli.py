"""Commands that report on and compare finished runs. Each imports what it needs when it is called."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from core.terminal.cli import AgainOption, JsonOption, OutputOption
from core.terminal.console import FeatureDisplay, print_json, say, show

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from analysis.board_tables import Table as BoardTable
    from analysis.boards import Board
    from analysis.geotext_entry import Submission
    from core.evaluation.scorecard import Measured
    from core.files.folders import CampaignFolder
    from core.records import Examples, Scorecard

app = typer.Typer()
Format = Literal["table", "csv", "md", "latex", "json", "html", "geotext"]
TOP = 15
"""Trials in the terminal, if no other number is asked for."""


@app.command(epilog="Example: crossmodal leaderboard output/demo --format latex")
def leaderboard(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of campaigns.")],
    format: Annotated[
        Format,
        typer.Option(
            help="table writes leaderboard.csv, .md, .tex and .html into the folder, too; the others are only "
            "printed. geotext: the final model's entry for the official leaderboard."
        ),
    ] = "table",
    metric: Annotated[
        str | None, typer.Option("--metric", "--by", help="Metric to rank by; default: the campaign's objective.")
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help=f"Trials to print; default: {TOP} in the terminal, otherwise all.")
    ] = None,
    submitter: Annotated[str, typer.Option(help="geotext: person, team or organisation.")] = "",
    method: Annotated[str, typer.Option(help="geotext: name of the method.")] = "crossmodal-search",
    affiliation: Annotated[str, typer.Option(help="geotext: affiliation of the submitter.")] = "",
    paper: Annotated[str, typer.Option(help="geotext: address of the paper.")] = "",
    code: Annotated[str, typer.Option(help="geotext: address of the code.")] = "",
    checkpoint: Annotated[str, typer.Option(help="geotext: address of the published weights.")] = "",
    training_data: Annotated[str, typer.Option(help="geotext: all training data.")] = "GeoText-1652 train",
    notes: Annotated[str, typer.Option(help="geotext: remarks.")] = "",
    id: Annotated[str, typer.Option(help="geotext: identifier; default: of the method and the folder.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Rank the trials of campaigns, confirmed ones first, each with its gain over the baseline and the gain's noise.

    Campaigns share a table if they have the same objective and data, and get one each otherwise.
    """
    from analysis.board_formats import to_csv, to_html, to_json, to_latex, to_markdown, write_leaderboard
    from analysis.board_tables import tables
    from analysis.boards import read_boards
    from analysis.geotext_entry import Submission
    from core.files.folders import CampaignFolder

    submission = Submission(
        submitter, method, affiliation, paper, code, checkpoint, training_data=training_data, notes=notes, identifier=id
    )
    campaigns = list(map(CampaignFolder, folders))
    format = _as_json(format) if as_json else format
    if format == "geotext":
        _print_entry(campaigns, submission)
        return
    _require_no_submission(submission)
    boards = read_boards(campaigns, metric)
    match format:
        case "csv":
            typer.echo(to_csv(boards, top), nl=False)
        case "json":
            typer.echo(to_json(boards, top), nl=False)
        case "md":
            typer.echo(to_markdown(tables(boards, top)), nl=False)
        case "latex":
            typer.echo(to_latex(tables(boards, top)), nl=False)
        case "html":
            typer.echo(to_html(tables(boards, top)), nl=False)
        case "table":
            if len(campaigns) == 1:
                write_leaderboard(campaigns[0], boards if metric is None else read_boards(campaigns))
            _show_boards(boards, top or TOP)
            if len(campaigns) == 1:
                say(f"all trials in {campaigns[0].leaderboard}.csv, .md, .tex and .html")


def _as_json(format: Format) -> Format:
    """`--json` is `--format json`, and the only way to say that beside other commands."""
    from core.errors import UserError

    if format not in ("table", "json"):
        raise UserError(f"--json and --format {format} contradict each other", how="drop one of them")
    return "json"


def _print_entry(campaigns: "list[CampaignFolder]", submission: "Submission") -> None:
    from analysis.geotext_entry import official_entry
    from core.errors import UserError

    if len(campaigns) != 1:
        raise UserError(
            f"{len(campaigns)} campaigns", where="--format geotext", how="name one, whose final model it is"
        )
    split, entry = official_entry(campaigns[0], submission)
    typer.echo(entry, nl=False)
    typer.echo(f"to be added to the entries of {split} in leaderboard/data.json of GeoText-1652", err=True)


def _require_no_submission(submission: "Submission") -> None:
    from analysis.geotext_entry import Submission
    from core.errors import UserError

    if submission != Submission(""):
        raise UserError("options of an entry need --format geotext", where="leaderboard", how="add it, or drop them")


def _show_boards(boards: "list[Board]", top: int) -> None:
    from analysis.board_tables import narrow, tables
    from analysis.trials import lost_files

    for board in boards:
        for table in tables([board], top):
            show(_terminal_table(narrow(table, board.metric)))
        for folder, trials in board.sources:
            name = f"{folder.root}/" if len(boards) + len(board.sources) > 2 else ""
            _name_lost_files(f"{name}{path.relative_to(folder.root)}" for path in lost_files(folder, trials))


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
    again: AgainOption = False,
    as_json: JsonOption = False,
) -> None:
    """Evaluate both on the same split and test, for each metric, whether their difference is distinguishable."""
    from analysis import comparison, figures
    from analysis.report import Report, json_rows, require_free_report, write_report

    require_free_report(output_dir, "comparison")
    single, two = _measure([single_stage_checkpoint, two_stage_checkpoint], again=again)
    differences = comparison.compare(single.samples, two.samples)
    table = comparison.comparison_table(differences, single.scorecard, two.scorecard)
    notes = [
        _gallery(single.scorecard),
        "Differences are two-stage minus single-stage, query by query; 95 % intervals by bootstrap over buildings.",
        "Training epochs and seconds count the run that a checkpoint began with: stage 1, for a stage 2.",
        *comparison.grounding_notes({"single-stage": single.scorecard, "two-stage": two.scorecard}),
        *comparison.tie_notes([single.scorecard, two.scorecard]),
        *comparison.read_notes([single.scorecard, two.scorecard]),
    ]
    report = Report("Single-stage vs. two-stage", table, notes, [figures.differences(table)])
    write_report(output_dir, "comparison", report)
    if as_json:
        print_json(json_rows(table))
    else:
        _print_frame(table, notes)
    say(f"comparison.md, .csv, .json and .html in {output_dir}")


@app.command(
    epilog="Example: crossmodal benchmark --checkpoints A.pth B.pth --labels single two --output-dir output/benchmark"
)
def benchmark(
    checkpoints: Annotated[list[Path], typer.Option(help="Checkpoints to measure, in order.")],
    labels: Annotated[list[str], typer.Option(help="One label per checkpoint, in the same order.")],
    output_dir: OutputOption,
    again: AgainOption = False,
    as_json: JsonOption = False,
) -> None:
    """Evaluate several checkpoints on the same split, and write one table and one plot."""
    from analysis import comparison, figures
    from analysis.report import Report, json_rows, require_free_report, write_report
    from core.errors import UserError

    if len(checkpoints) != len(labels):
        raise UserError(
            f"{len(checkpoints)} checkpoints and {len(labels)} labels", how="give each checkpoint one label"
        )
    if len(set(labels)) < len(labels):
        raise UserError(f"a label is given twice in {', '.join(labels)}", how="give each checkpoint its own")
    require_free_report(output_dir, "benchmark")
    measured = _measure(checkpoints, again=again)
    table = comparison.benchmark_table(dict(zip(labels, (each.scorecard for each in measured), strict=True)))
    cards = [each.scorecard for each in measured]
    notes = [_gallery(cards[0]), *comparison.tie_notes(cards), *comparison.read_notes(cards)]
    write_report(output_dir, "benchmark", Report("Benchmark", table, notes, [figures.recall_bars(table)]))
    if as_json:
        print_json(json_rows(table))
    else:
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
    as_json: JsonOption = False,
) -> None:
    """Compare epochs and seconds to convergence, and to the other run's best."""
    from analysis import efficiency as convergence
    from analysis import figures
    from analysis.report import Report, json_rows, require_free_report, write_report

    require_free_report(output_dir, "efficiency")
    single, two = convergence.read_single_stage(single_stage_log), convergence.read_two_stage(two_stage_log)
    table = convergence.efficiency_table(single, two)
    curves = convergence.curves_frame([single, two])
    notes = ["Converged: first epoch within 1 % of the run's best validation recall_mean. –: never reached."]
    plots = [figures.learning_curves(curves), figures.learning_curves(curves, against="seconds")]
    write_report(output_dir, "efficiency", Report("Training efficiency", table, notes, plots))
    if as_json:
        print_json(json_rows(table))
    else:
        _print_frame(table, notes)
    say(f"efficiency.md, .csv, .json and .html in {output_dir}")


@app.command(epilog="Example: crossmodal status output/demo")
def status(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a campaign.")], as_json: JsonOption = False
) -> None:
    """Show trials by state, failures by reason, the best and the confirmed trial and the driver; needs no Ray."""
    from analysis.status import read_status
    from core.files.folders import CampaignFolder

    current = read_status(CampaignFolder(folder))
    if as_json:
        print_json(current.to_json())
        return
    campaign, standing = current.campaign, current.standing
    say(f"campaign {campaign.name}: limits {campaign.limits}; driver: {current.driver}")
    say(", ".join(f"{count} {state}" for state, count in standing.states.items()))
    if standing.best is not None:
        number, value = standing.best
        gain = "" if standing.gain is None else f", {standing.gain:+.4f} over the baseline"
        say(f"best: trial {number}, {campaign.objective} {value:.4f}{gain}")
    if confirmed := current.confirmed_in_words:
        say(f"confirmed: {confirmed}")
    for trial in current.running:
        say(f"running: trial {trial.number}, {trial.epochs} epochs reported")
    for reason, count in current.failures.items():
        say(f"failed: {count} × {reason}", style="red")
    _name_lost_files(current.lost)


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


def _measure(paths: list[Path], *, again: bool) -> "list[Measured]":
    """Measure checkpoints under their own configurations; all must have been trained on the same features."""
    from core.errors import UserError
    from core.evaluation.read_count import read_by
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
        if checkpoint.config.evaluation.unique_texts != checkpoints[0].config.evaluation.unique_texts:
            raise UserError(
                "counts equal texts otherwise than the first one (evaluation.unique_texts)",
                where=path,
                how="compare checkpoints that were trained with the same setting",
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
        with read_by(path, on_test=features.test is not None, again=again) as reads:
            each = measure(checkpoint, features, name=str(path), settings=config.evaluation)
        measured.append(replace(each, scorecard=replace(each.scorecard, test_reads=reads)))
    return measured


def _gallery(card: "Scorecard") -> str:
    first = card.find("building", reranked=False)
    regions = f"; boxes and relations on the {card.regions_split} split" if card.regions_split else ""
    return (
        f"Retrieval on the {first.split} split by building: {first.queries_image} images, {first.texts_in_words}, "
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


def _terminal_table(table: "BoardTable") -> Table:
    shown = Table(
        title=escape(table.title),
        title_justify="left",
        caption=escape("\n".join(table.notes)),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
    )
    for column in table.columns:
        shown.add_column(column.heading, justify="left" if column.kind == "text" else "right")
    for row in table.rows:
        shown.add_row(*(f"[bold]{escape(cell.shown)}[/bold]" if cell.is_best else escape(cell.shown) for cell in row))
    return shown
