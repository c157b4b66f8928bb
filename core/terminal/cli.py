"""Commands on single training runs. Each imports what it runs only when it is called."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.terminal.console import (
    FeatureDisplay,
    notes_on_stderr,
    print_epoch,
    print_json,
    say,
    say_if_installed,
    say_lines,
    show,
)

if TYPE_CHECKING:
    from core.config import EvaluationConfig, TrainConfig
    from core.records import EpochMetrics, Reranking
    from core.tracked_runs import Tracker
    from core.training.train import TrainResult

PROJECT = "crossmodal-search"
"""Default project in Weights & Biases; WANDB_PROJECT overrides it."""
app = typer.Typer()

ConfigOption = Annotated[
    Path, typer.Option("--config", callback=say_if_installed, help="Training configuration (YAML).")
]
OutputOption = Annotated[Path, typer.Option("--output-dir", "--output_dir", help="Folder of the run.")]
AgainOption = Annotated[
    bool, typer.Option("--again", help="Read the test split once more for a final model, which is counted.")
]
UniqueTextsOption = Annotated[
    bool,
    typer.Option(
        "--unique-texts",
        "--unique_texts",
        help="When measuring: count equal captions as one text, relevant to all images that they stand under.",
    ),
]
WandbOption = Annotated[
    bool, typer.Option("--use-wandb", "--use_wandb", help="Track in Weights & Biases; offline without an API key.")
]


def _only_json(context: typer.Context, asked: bool) -> bool:
    if asked:
        context.with_resource(notes_on_stderr())
    return asked


JsonOption = Annotated[
    bool,
    typer.Option(
        "--json", callback=_only_json, is_eager=True, help="Print JSON only; notes and progress go to stderr."
    ),
]


@app.command(epilog="Example: crossmodal train --config configs/demo/internvl3_bbox.yaml --output-dir output/single")
def train(
    config: ConfigOption,
    output_dir: OutputOption,
    bs: Annotated[int | None, typer.Option("--bs", help="Batch size; overrides optimizer.batch_size.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Number of epochs; overrides recipe.epochs.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed; overrides seed.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoint to start from, or with --evaluate to measure.")
    ] = None,
    use_wandb: WandbOption = False,
    evaluate: Annotated[bool, typer.Option("--evaluate", help="Evaluate --checkpoint instead of training.")] = False,
    save_embeddings: Annotated[
        bool, typer.Option("--save-embeddings", "--save_embeddings", help="With --evaluate: also write embeddings.npz.")
    ] = False,
    unique_texts: UniqueTextsOption = False,
    again: AgainOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a model (a restarted run continues after its last complete epoch), or evaluate a checkpoint."""
    from core.config import load_config
    from core.errors import UserError

    changes = {"optimizer.batch_size": bs, "recipe.epochs": epochs, "seed": seed}
    settings = load_config(config).with_overrides({key: value for key, value in changes.items() if value is not None})
    if evaluate:
        if checkpoint is None:
            raise UserError("--evaluate needs --checkpoint", how="name the checkpoint to measure")
        if unique_texts:
            settings = settings.with_overrides({"evaluation.unique_texts": True})
        outputs = {"use_wandb": use_wandb, "save_embeddings": save_embeddings, "as_json": as_json}
        _evaluate(settings, checkpoint, output_dir, again=again, **outputs)
        return
    measuring = {
        "--save_embeddings": save_embeddings, "--unique-texts": unique_texts, "--again": again, "--json": as_json,
    }  # fmt: skip
    for option, given in measuring.items():
        if given:
            raise UserError(f"{option} goes with --evaluate", how="train first, then evaluate the checkpoint")
    _train(settings, checkpoint, output_dir, use_wandb=use_wandb)


def _train(config: "TrainConfig", checkpoint: Path | None, output_dir: Path, *, use_wandb: bool) -> None:
    from core.features.inputs import absences, read_inputs
    from core.features.opening import open_features
    from core.files.folders import RunFolder
    from core.model.checkpoints import load_checkpoint
    from core.tracked_runs import RunStart
    from core.training.runs import hold_run, require_free_run, run

    others = _wandb_names(use_wandb)
    require_free_run(output_dir, *others)
    inputs = read_inputs(config)
    say_lines(absences(inputs, config))
    start_from = load_checkpoint(checkpoint, fingerprint=inputs.parts.fingerprint) if checkpoint else None
    with FeatureDisplay() as display:
        features = open_features(config, inputs=inputs, display=display)
    if config.data.train_on == "all":
        say("recalls below are of buildings that are trained on; the last epoch is kept", style="yellow")
    with hold_run(output_dir, *others) as identity, _tracker(output_dir, identity, use_wandb=use_wandb) as tracker:
        tracker.start(RunStart.of_training("train", "train", config))
        result = run(
            config,
            features,
            RunFolder(output_dir),
            start_from=start_from,
            on_epoch=_told_to(tracker, lambda _: "train"),
        )
        _finish(tracker, "train", result)
    say_reranking(result.reranking)
    say(f"best epoch {result.best.epoch}; everything is in {output_dir}")


def _evaluate(
    config: "TrainConfig",
    path: Path,
    output_dir: Path,
    *,
    again: bool,
    use_wandb: bool,
    save_embeddings: bool,
    as_json: bool,
) -> None:
    from core.evaluation import scorecard
    from core.evaluation.read_count import read_by
    from core.features.inputs import read_inputs
    from core.features.opening import open_features
    from core.files.json_files import write_json
    from core.files.ownership import claim_folder, require_ours
    from core.model.checkpoints import load_checkpoint, require_same_features
    from core.terminal.tables import scorecard_tables
    from core.tracked_runs import RunEnd, RunStart

    names = ["metrics.json", *(["embeddings.npz"] if save_embeddings else []), *_wandb_names(use_wandb)]
    require_ours(output_dir, names)
    checkpoint = load_checkpoint(path)
    scorecard.require_same_model(checkpoint, config, path)
    inputs = read_inputs(config)
    require_same_features(checkpoint, inputs.parts.fingerprint, path)  # before minutes of extraction
    with_test = config.data.test_annotations is not None
    with FeatureDisplay() as display:
        features = open_features(config, inputs=inputs, with_test=with_test, display=display)
    say(f"measuring {path}, epoch {checkpoint.epoch}; {_reranked_by(config.evaluation, checkpoint.reranking)}")
    with read_by(path, on_test=features.test is not None, again=again) as reads:
        measured = scorecard.measure(checkpoint, features, name=str(path), settings=config.evaluation)
        card = replace(measured.scorecard, test_reads=reads)
        with _tracker(output_dir, claim_folder(output_dir, names), use_wandb=use_wandb) as tracker:
            tracker.start(RunStart.of_training("evaluate", "evaluate", config))
            tracker.finish("evaluate", RunEnd("complete", card.flat()))
        write_json(output_dir / "metrics.json", card.to_json())
        if save_embeddings:
            images = inputs.images["test" if features.test else "validation"]
            file = output_dir / "embeddings.npz"
            scorecard.save_embeddings(file, measured.embeddings, images, config.data.image_root)
    if as_json:
        print_json(card.to_json())
    else:
        for table in scorecard_tables(card):
            show(table)
    say(f"metrics.json{' and embeddings.npz' if save_embeddings else ''} in {output_dir}")


def _reranked_by(settings: "EvaluationConfig", chosen: "Reranking | None") -> str:
    if settings.rerank_weight is not None:
        return f"best {settings.k_test} re-ranked with weight {settings.rerank_weight:g}, as configured"
    if chosen is None:
        return f"up to {settings.k_test} re-ranked as the validation split favours"
    return f"re-ranked as chosen on validation: {chosen.in_words()}"


@app.command(epilog="Example: crossmodal train-two-stage --config configs/demo/two_stage.yaml --output-dir output/two")
def train_two_stage(
    output_dir: OutputOption,
    config: Annotated[
        Path, typer.Option(callback=say_if_installed, help="Configuration with recipe.stage1_epochs.")
    ] = Path("configs/two_stage.yaml"),
    use_wandb: WandbOption = False,
) -> None:
    """Train stage 1 (align), then stage 2 (joint) from its weights."""
    from core.config import load_config
    from core.features.inputs import absences, read_inputs
    from core.features.opening import open_features
    from core.tracked_runs import RunStart
    from core.training.runs import hold_two_stage, require_free_two_stage, run_two_stage, split_stages

    settings = load_config(config)
    stages = split_stages(settings)
    others = _wandb_names(use_wandb)
    require_free_two_stage(output_dir, *others)
    inputs = read_inputs(settings)
    say_lines(absences(inputs, settings))
    with FeatureDisplay() as display:
        features = open_features(settings, inputs=inputs, display=display)
    with (
        hold_two_stage(output_dir, *others) as identity,
        _tracker(output_dir, identity, use_wandb=use_wandb) as tracker,
    ):
        for number, stage in enumerate(stages, start=1):
            tracker.start(RunStart.of_training(f"stage{number}", "train", stage))
        result = run_two_stage(
            settings, features, output_dir, on_epoch=_told_to(tracker, lambda metrics: f"stage{metrics.stage}")
        )
        _finish(tracker, "stage1", result.stage1)
        _finish(tracker, "stage2", result.stage2)
    say_reranking(result.stage2.reranking)
    say(f"best epoch of stage 2: {result.stage2.best.epoch}; everything is in {output_dir}")


def say_reranking(chosen: "Reranking | None") -> None:
    """Say how candidates of a finished run are re-ranked, if that was chosen."""
    if chosen is not None:
        say(f"re-ranking, chosen on validation: {chosen.in_words()}")


def _wandb_names(use_wandb: bool) -> list[str]:
    from core.tracking import WANDB_FOLDER

    return [WANDB_FOLDER] if use_wandb else []


@contextmanager
def _tracker(output_dir: Path, identity: str, *, use_wandb: bool) -> "Iterator[Tracker]":
    """Open a tracker whose runs are grouped by the output folder; without an API key they are written offline to it."""
    from core.tracking import build_tracker

    tracker = build_tracker(
        project=os.environ.get("WANDB_PROJECT") or PROJECT,
        group=output_dir.resolve().name,
        mode="auto" if use_wandb else "disabled",
        folder=output_dir,
        identity=identity,
    )
    try:
        yield tracker
    finally:
        tracker.close()


def _finish(tracker: "Tracker", name: str, result: "TrainResult") -> None:
    from core.tracked_runs import RunEnd

    tracker.finish(name, RunEnd.of_training(result.history, result.receipt, result.last.config.objective))


def _told_to(tracker: "Tracker", name_of: "Callable[[EpochMetrics], str]") -> "Callable[[EpochMetrics], None]":
    """Callback that prints each epoch and logs it to the tracker under the name of its run."""

    def tell(metrics: "EpochMetrics") -> None:
        print_epoch(metrics)
        tracker.epoch(name_of(metrics), metrics)

    return tell
