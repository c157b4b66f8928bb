"""Processor and memory: which device a run uses, its free and peak memory, and blocks of rows that fit."""

import math
import resource
from collections.abc import Iterator

import torch

from core.errors import UserError


def choose_device(device: str) -> torch.device:
    """The device of a setting; `auto` is the GPU if there is one.

    Args:
        device: auto, cpu or cuda.
    Raises:
        UserError: the setting is cuda, and there is no usable GPU.
    """
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError("device is cuda, but this machine has no usable GPU", how="set it to auto or cpu")
    return torch.device("cuda", torch.cuda.current_device())  # some functions of torch.cuda refuse a GPU without number


def device_name(device: torch.device) -> str:
    """`cpu`, or the GPU's name as reported by its driver."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def free_memory(device: torch.device) -> float:
    """Bytes that this process may still allocate; unlimited on a CPU, where tables are memory-mapped."""
    if device.type != "cuda":
        return math.inf
    free, total = torch.cuda.mem_get_info(device)
    share = total * torch.cuda.get_per_process_memory_fraction(device) - torch.cuda.memory_reserved(device)
    return min(free, share)


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory so far, in MiB: allocated by tensors on a GPU, else resident in the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def row_blocks(rows: int, columns: int, *, max_bytes: int) -> Iterator[slice]:
    """Consecutive slices of the rows of a float32 table [rows, columns], of at most `max_bytes` or of one row each."""
    size = max(1, max_bytes // (4 * max(1, columns)))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))
