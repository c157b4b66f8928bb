"""Checkpoints: weights, configuration, fingerprint and history of a run in one file; reading it runs no code."""

import io
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.config import TrainConfig
from core.errors import UserError
from core.features.store import Features, Widths
from core.files.atomic import write_atomically
from core.model.grounding import HEADS, WIDTH
from core.model.model import CrossModalModel, new_model
from core.model.pooling import QUERIES, VALUE_WIDTH
from core.records import EpochMetrics, Receipt, Reranking, kept_epoch
from core.sections import parse

ZIP_MAGIC = b"PK\x03\x04"
FINGERPRINT_LENGTH = 64
"""Maximum number of characters."""
NAME_SHOWN = 60
"""Maximum number of characters of a foreign name in a message."""
PROBLEM_SHOWN = 200
"""Maximum number of characters of a configuration error in a message."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """State of a run after an epoch: all that is needed to continue it exactly, and the weights of its best epoch."""

    config: TrainConfig
    fingerprint: str
    """Fingerprint of the features that it was trained on."""
    epoch: int
    """Number of the epoch that the weights are from, from 0."""
    weights: dict[str, Tensor]
    optimizer: dict[str, Any] | None
    """State of AdamW; None in a checkpoint for inference, which cannot be continued."""
    best_weights: dict[str, Tensor]
    history: list[EpochMetrics]
    """Metrics of all epochs so far, in order."""
    receipt: Receipt
    reranking: Reranking | None = None
    """How its candidates are re-ranked, in the best checkpoint of a run that ended; None if that was not chosen."""

    @property
    def best_epoch(self) -> int:
        """Number of the best epoch of the latest stage, by the configuration's objective; see `kept_epoch`."""
        return kept_epoch(self.history, self.config).epoch

    def best(self) -> "Checkpoint":
        """A checkpoint for inference, with the weights of the best epoch."""
        return replace(self, epoch=self.best_epoch, weights=self.best_weights, optimizer=None)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically."""
    tensors = {
        "weights": checkpoint.weights,
        "optimizer": checkpoint.optimizer,
        "best_weights": checkpoint.best_weights,
    }
    stream = io.BytesIO()
    torch.save({**plain_fields(checkpoint), **tensors}, stream)
    write_atomically(path, stream.getvalue())


def plain_fields(checkpoint: Checkpoint) -> dict[str, Any]:
    """All fields of a checkpoint but its tensors, as JSON data."""
    fields = {
        "config": checkpoint.config.model_dump(mode="json"),
        "fingerprint": checkpoint.fingerprint,
        "epoch": checkpoint.epoch,
        "history": [metrics.to_json() for metrics in checkpoint.history],
        "receipt": checkpoint.receipt.to_json(),
    }
    return fields if checkpoint.reranking is None else {**fields, "reranking": checkpoint.reranking.to_json()}


def load_checkpoint(path: Path, *, fingerprint: str | None = None) -> Checkpoint:
    """Read a checkpoint onto the CPU.

    Args:
        fingerprint: fingerprint that the checkpoint must have; None accepts any.
    Raises:
        UserError: there is no such file, it is damaged or not one of our checkpoints, or it belongs to other features.
    """
    try:
        return parse_checkpoint(path.read_bytes(), where=path, fingerprint=fingerprint)
    except FileNotFoundError:
        raise UserError("there is no such checkpoint", where=path) from None
    except IsADirectoryError:
        raise UserError("is a folder, not a checkpoint", where=path, how="name a file in it") from None


def parse_checkpoint(data: bytes, *, where: object, fingerprint: str | None = None) -> Checkpoint:
    """Parse the content of a checkpoint file; see `load_checkpoint`.

    Args:
        where: prefix of error messages, usually the file.
    Raises:
        UserError: as `load_checkpoint`.
    """
    try:
        if not data.startswith(ZIP_MAGIC):
            raise ValueError("not a ZIP file; torch would try its legacy formats")
        if zipfile.ZipFile(io.BytesIO(data)).testzip() is not None:
            raise ValueError("a byte differs from what was written, which torch does not check")
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:  # on damaged bytes torch may raise anything
        raise _damaged(where) from None
    checkpoint = checkpoint_of(content, where=where)
    if fingerprint is not None:
        require_same_features(checkpoint, fingerprint, where)
    return checkpoint


def checkpoint_of(content: Any, *, where: object) -> Checkpoint:
    """A checkpoint from its fields, tensors included, all of which are validated.

    Args:
        where: prefix of error messages, usually the file.
    Raises:
        UserError: they are not those of a checkpoint.
    """
    try:
        return _read(content, where)
    except UserError:
        raise
    except Exception:  # of any type, as the content may be
        raise _damaged(where) from None


def _damaged(where: object) -> UserError:
    return UserError("is damaged, or not a checkpoint written by crossmodal", where=where)


def require_same_features(checkpoint: Checkpoint, fingerprint: str, where: object) -> None:
    """Check that a checkpoint was trained on the features with a fingerprint.

    Args:
        where: prefix of the error message, usually the file.
    Raises:
        UserError: it was trained on other features.
    """
    if checkpoint.fingerprint != fingerprint:
        raise UserError(
            f"was trained on features {checkpoint.fingerprint}, not on {fingerprint}",
            where=where,
            how="use the same backbone, data and feature settings",
        )


def restore_model(checkpoint: Checkpoint) -> CrossModalModel:
    """The model of a checkpoint, in evaluation mode, on the CPU; its weights hold the statistics of the features.

    Raises:
        UserError: the weights do not fit the configuration.
    """
    model = new_model(checkpoint.config, widths_of(checkpoint))
    _load(model, checkpoint)
    return model.eval()


def widths_of(checkpoint: Checkpoint) -> Widths:
    """Widths of the features that the model of a checkpoint reads, by the shapes of its weights.

    Raises:
        UserError: the weights do not fit the configuration.
    """
    model = checkpoint.config.model
    images, grid = _columns(checkpoint, "vision_adapter.0.weight", model.adapter_width), None
    texts = _columns(checkpoint, "text_adapter.0.weight", model.adapter_width)
    if model.fusion == "attention":
        grid = _columns(checkpoint, "grounding.value.weight", WIDTH) // HEADS
    if model.image_pooling == "attention":
        grid = _columns(checkpoint, "image_pooling.value.weight", VALUE_WIDTH)
        images -= QUERIES * VALUE_WIDTH
    if images < 1:
        raise _unfit("holds vision_adapter.0.weight, which is too narrow")
    cells = checkpoint.config.features.grid**2
    return Widths(images, texts, None if grid is None else (cells, grid))


def load_weights(model: CrossModalModel, checkpoint: Checkpoint, features: Features) -> None:
    """Load the weights of a checkpoint into a model.

    Raises:
        UserError: the checkpoint belongs to other features, or to a model with other parameters.
    """
    require_same_features(checkpoint, features.fingerprint, "the checkpoint")
    _load(model, checkpoint)


def _load(model: CrossModalModel, checkpoint: Checkpoint) -> None:
    expected = model.state_dict()
    problems = [f"has no {name}" for name in expected if name not in checkpoint.weights]
    for name, value in checkpoint.weights.items():
        if name not in expected:
            problems.append(f"holds {name[:NAME_SHOWN]}, which the model does not have")
        elif (value.shape, value.dtype) != (expected[name].shape, expected[name].dtype):
            stored, needed = (f"{list(tensor.shape)} {tensor.dtype}" for tensor in (value, expected[name]))
            problems.append(f"holds {name} as {stored}, not {needed}")
    if problems:
        raise _unfit(problems[0])
    model.load_state_dict(checkpoint.weights)


def _columns(checkpoint: Checkpoint, name: str, rows: int) -> int:
    """Columns of a weight that is really as large as it says, since a model of that size is made."""
    weight = checkpoint.weights.get(name)
    if weight is None:
        raise _unfit(f"has no {name}")
    if weight.dim() != 2 or weight.shape[0] != rows or not weight.shape[1] or not weight.is_contiguous():
        raise _unfit(f"holds {name} as {list(weight.shape)}")
    return int(weight.shape[1])


def _unfit(problem: str) -> UserError:
    return UserError(f"the checkpoint does not fit the configured model: it {problem}")


def _read(content: Any, where: object) -> Checkpoint:
    """Validate all fields; raises any exception, or a UserError if it has something more specific to say."""
    match content:
        case {
            "config": {**config},
            "fingerprint": str(fingerprint),
            "epoch": int(epoch),
            "weights": {**weights},
            "optimizer": None | {"state": dict()} as optimizer,
            "best_weights": {**best_weights},
            "history": [*history],
            "receipt": dict(),
            **others,
        } if others.keys() <= {"reranking"}:
            checkpoint = Checkpoint(
                config=_config(config, where),
                fingerprint=fingerprint,
                epoch=epoch,
                weights=_tensors(weights),
                optimizer=optimizer,
                best_weights=_tensors(best_weights),
                history=[EpochMetrics.from_json(metrics) for metrics in history],
                receipt=Receipt.from_json(content["receipt"]),
                reranking=Reranking.from_json(content["reranking"]) if others else None,
            )
        case _:
            raise ValueError("fields are missing, unknown or of the wrong type")
    _require_one_run(checkpoint)
    if not all(value.isfinite().all() for value in (*checkpoint.weights.values(), *checkpoint.best_weights.values())):
        raise UserError("holds weights that are not finite", where=where, how="use an earlier checkpoint of the run")
    return checkpoint


def _config(content: dict[Any, Any], where: object) -> TrainConfig:
    try:
        return parse(TrainConfig, content, where=where)
    except UserError as error:  # it quotes keys and values, here of a file that may be foreign
        raise UserError(" ".join(error.what.split())[:PROBLEM_SHOWN], where=where) from None


def _tensors(weights: dict[Any, Any]) -> dict[str, Tensor]:
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.layout != torch.strided:
            raise TypeError("a weight is not a dense tensor with a name")
    return weights


def _require_one_run(checkpoint: Checkpoint) -> None:
    """Check that the fields are consistent with each other, as every reader of a checkpoint assumes."""
    epochs = [metrics.epoch for metrics in checkpoint.history]
    last, groups, reranking = len(epochs) - 1, checkpoint.receipt.optimizer_groups, checkpoint.reranking
    weights, best = (
        {name: value.shape for name, value in tensors.items()}
        for tensors in (checkpoint.weights, checkpoint.best_weights)
    )
    consistent = (
        epochs == list(range(len(epochs)))
        and type(checkpoint.epoch) is int  # isinstance would accept True
        and (checkpoint.epoch == last if checkpoint.optimizer else checkpoint.epoch in epochs)
        and checkpoint.fingerprint.isprintable()
        and len(checkpoint.fingerprint) <= FINGERPRINT_LENGTH
        and last < checkpoint.config.recipe.epochs
        and weights == best
        and all(group.keys() == {"stage", "learning_rate", "weight_decay"} for group in groups)
        and (reranking is None or (reranking.depth > 0 and reranking.weight >= 0))
    )
    if not consistent:
        raise ValueError("the fields contradict each other")
