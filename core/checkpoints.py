"""Checkpoints: weights, configuration, fingerprint and epoch in one file that runs no code when it is read."""

import io
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.config import TrainConfig, parse
from core.errors import UserError
from core.files import write_atomically
from core.records import EpochMetrics, Receipt, best_epoch

ZIP_MAGIC = b"PK\x03\x04"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A run after a whole epoch: enough to continue it exactly, with the best epoch so far beside it."""

    config: TrainConfig
    fingerprint: str
    """Of the features that it was trained on."""
    epoch: int
    """Last finished one, from 0."""
    weights: dict[str, Tensor]
    optimizer: dict[str, Any] | None
    """State of AdamW; None in a checkpoint that is only for use, not for continuing."""
    best_weights: dict[str, Tensor]
    history: list[EpochMetrics]
    """All epochs so far."""
    receipt: Receipt

    @property
    def best_epoch(self) -> int:
        """Of the stage reached, by the configuration's objective."""
        return best_epoch(self.history, self.config.objective).epoch

    def best(self) -> "Checkpoint":
        """The best epoch's weights, for use."""
        return replace(self, epoch=self.best_epoch, weights=self.best_weights, optimizer=None)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write atomically."""
    content = {
        "config": checkpoint.config.model_dump(mode="json"),
        "fingerprint": checkpoint.fingerprint,
        "epoch": checkpoint.epoch,
        "weights": checkpoint.weights,
        "optimizer": checkpoint.optimizer,
        "best_weights": checkpoint.best_weights,
        "history": [metrics.to_json() for metrics in checkpoint.history],
        "receipt": checkpoint.receipt.to_json(),
    }
    stream = io.BytesIO()
    torch.save(content, stream)
    write_atomically(path, stream.getvalue())


def load_checkpoint(path: Path, *, fingerprint: str | None = None) -> Checkpoint:
    """Read a checkpoint onto the CPU.

    Args:
        fingerprint: of the features at hand; None accepts any.
    Raises:
        UserError: there is no such file, it is damaged or no checkpoint of ours, or it belongs to other features.
    """
    try:
        return parse_checkpoint(path.read_bytes(), where=path, fingerprint=fingerprint)
    except FileNotFoundError:
        raise UserError("there is no such checkpoint", where=path) from None


def parse_checkpoint(data: bytes, *, where: object, fingerprint: str | None = None) -> Checkpoint:
    """`load_checkpoint` of what was read from `where`."""
    try:
        if not data.startswith(ZIP_MAGIC):
            raise ValueError("torch would try its old formats on it")
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        content["history"] = [EpochMetrics.from_json(metrics) for metrics in content["history"]]
        content["receipt"] = Receipt.from_json(content["receipt"])
        content["config"] = parse(TrainConfig, content["config"], where=where)
        checkpoint = Checkpoint(**content)
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError, OSError, ValueError):
        raise UserError("is damaged, or no checkpoint written by crossmodal", where=where) from None
    if fingerprint is not None and checkpoint.fingerprint != fingerprint:
        raise UserError(
            f"was trained on features {checkpoint.fingerprint}, not on {fingerprint}",
            where=where,
            how="use the same backbone, data and feature settings",
        )
    return checkpoint
