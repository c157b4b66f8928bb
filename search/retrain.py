"""Retraining the winner as the final model, and evaluating it on the test split, whose reads are counted."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from analysis.comparison import Difference, compare_objective
from core.device import choose_device
from core.errors import UserError
from core.evaluation.read_count import METRICS, TEST_READS, counted_read, finished_reads
from core.evaluation.reranking import chosen_reranking
from core.evaluation.scorecard import measure, sample_checkpoint
from core.features.store import Features
from core.files.atomic import write_atomically
from core.files.folders import RunFolder
from core.files.json_files import read_json, write_json
from core.files.ownership import read_identity
from core.model.checkpoints import Checkpoint, load_checkpoint, restore_model, save_checkpoint
from core.records import Reranking, Scorecard
from core.training.runs import (
    OnEpoch,
    hold_run,
    hold_two_stage,
    require_free_run,
    require_free_two_stage,
    run,
    run_two_stage,
)
from search.model_card import FinalModel, model_card
from search.winner import Winner

MODEL_CARD = "model_card.md"
FILES = (METRICS, MODEL_CARD, TEST_READS)
"""Beside those of the run."""


def retrain(
    winner: Winner,
    features: Features,
    output: Path,
    *,
    on_epoch: OnEpoch = lambda metrics: None,
    again: bool = False,
) -> FinalModel:
    """Train the final model, compare it with the winner on validation, and evaluate it once on the test split.

    Writes the files of its run or of its two stages, when the test split was read, the scorecard as metrics.json, and
    the model card. If the test split was read before, its figures are those that were written then.

    Args:
        features: opened with the test split.
        again: read the test split once more, which is counted.
    """
    assert features.test is not None, "the caller opens the test split"
    torch.set_num_threads(winner.threads)
    with _hold(winner, output):
        checkpoint, path = _train(winner, features, output, on_epoch)
        difference = _compare(winner, checkpoint, features)
        if again or not finished_reads(output):
            with counted_read(output, again=again) as reads:
                measured = measure(checkpoint, features, name=str(path), settings=winner.config.evaluation)
                card = replace(measured.scorecard, test_reads=reads)
                write_json(output / METRICS, {"trial": winner.number, **card.to_json()})
        final = FinalModel(checkpoint, path, difference, _read_metrics(output / METRICS), finished_reads(output))
        write_atomically(output / MODEL_CARD, model_card(final, winner, features))
        return final


def _train(winner: Winner, features: Features, output: Path, on_epoch: OnEpoch) -> tuple[Checkpoint, Path]:
    """Train to the end, or what is missing; returns the final weights, with the receipt of all epochs, and the file."""
    config = winner.config
    if winner.has_two_stages:
        path = RunFolder(output / "stage2").best_checkpoint
        best = run_two_stage(config, features, output, on_epoch=on_epoch).stage2.best
    else:
        path = RunFolder(output).best_checkpoint
        best = run(config, features, RunFolder(output), on_epoch=on_epoch).best
    if config.data.train_on == "all":
        best = replace(best, reranking=_reranking_of(winner, features))
        if best.reranking != load_checkpoint(path).reranking:
            save_checkpoint(path, best)
    return best, path


def _reranking_of(winner: Winner, features: Features) -> Reranking | None:
    """How the trial's own candidates are best re-ranked: no building is left to choose it by for the final model."""
    searched = _searched(winner)
    if searched is None:
        return None
    model = restore_model(searched).to(choose_device(searched.config.device))
    return chosen_reranking(searched, model, features, winner.config.evaluation)


def _compare(winner: Winner, final: Checkpoint, features: Features) -> Difference | None:
    """Final model minus winner on the validation split, query by query."""
    searched = None if final.config.data.train_on == "all" else _searched(winner)
    if searched is None:
        return None
    first, second = sample_checkpoint(searched, features), sample_checkpoint(final, features)
    return compare_objective(first, second, winner.config.objective)


def _searched(winner: Winner) -> Checkpoint | None:
    """The checkpoint of the trial; None if it is lost."""
    try:
        return load_checkpoint(winner.checkpoint)
    except UserError:
        return None


def _read_metrics(path: Path) -> Scorecard:
    try:
        return Scorecard.from_json({name: value for name, value in read_json(path).items() if name != "trial"})
    except (UserError, AttributeError, ValueError):
        raise UserError("holds no figures of the test split", where=path, how="measure again with --again") from None


@contextmanager
def _hold(winner: Winner, output: Path) -> Iterator[None]:
    _require_same_stages(winner, output)
    with (hold_two_stage if winner.has_two_stages else hold_run)(output, *FILES):
        yield


def require_free_output(winner: Winner, output: Path) -> None:
    """Check that `retrain` can write its final model there.

    Raises:
        UserError: the folder has foreign files, another process, or a final model with another number of stages.
    """
    (require_free_two_stage if winner.has_two_stages else require_free_run)(output, *FILES)
    _require_same_stages(winner, output)


def _require_same_stages(winner: Winner, output: Path) -> None:
    other = "config.yaml" if winner.has_two_stages else "stage2"
    if output.is_dir() and other in read_identity(output)["files"]:
        stages = "one stage" if winner.has_two_stages else "two stages"
        raise UserError(f"holds a final model of {stages}", where=output, how="choose another --output-dir")
