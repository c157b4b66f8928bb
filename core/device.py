"""Which processor a run uses, and what it took of it."""

import resource

import torch

from core.errors import UserError


def choose_device(device: str) -> torch.device:
    """`auto` is the GPU where there is one.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("features.device is cuda, but this machine has no usable GPU", how="set it to auto or cpu")
    return torch.device(device)


def device_name(device: torch.device) -> str:
    """`cpu`, or the GPU's name as its driver tells it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def peak_memory_mb(device: torch.device) -> float:
    """Most memory held so far: of the GPU by tensors, else of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
