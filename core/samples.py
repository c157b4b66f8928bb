"""Samples of a measurement in a file: one value per query or region, by metric."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from core.errors import UserError
from core.files.atomic import write_atomically
from core.records import Samples

VALUES, GROUPS = ".values", ".groups"


def write_samples(path: Path, samples: Mapping[str, Samples]) -> None:
    """Write samples by metric as safetensors."""
    values = {metric + VALUES: each.values for metric, each in samples.items()}
    groups = {metric + GROUPS: each.groups for metric, each in samples.items()}
    write_atomically(path, save({**values, **groups}))


def read_samples(path: Path) -> dict[str, Samples]:
    """What `write_samples` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        stored = load_file(path)
        metrics = [name.removesuffix(VALUES) for name in stored if name.endswith(VALUES)]
        return {metric: Samples(stored[metric + VALUES], stored[metric + GROUPS]) for metric in metrics}
    except (OSError, KeyError, SafetensorError) as error:
        raise UserError(f"cannot be read as samples ({type(error).__name__})", where=path, how="remove it") from None
