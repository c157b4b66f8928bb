"""What a CUDA graph does, without a GPU: operations recorded at the tensor library's lowest level and replayed.

As with the real thing, recording leaves no trace in any tensor, a replay runs no line of Python of what was recorded,
works on the very same memory, and an operation that asks for a tensor's value cannot be recorded.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

READS_A_VALUE = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "is_nonzero"}
"""Operations that wait for the device, or whose result has a size that depends on values."""


class Recording(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]] = []
        self._before: list[tuple[Tensor, Tensor]] = []
        self._made: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in READS_A_VALUE:
            raise RuntimeError(f"{name} cannot be recorded: it reads a value back")
        self._remember(func, args, kwargs)
        result = func(*args, **kwargs)
        outputs = tensors_in(result)
        self._made |= set(map(place_of, outputs)) - set(map(place_of, tensors_in((args, kwargs))))  # views are not new
        self.operations.append((func, args, kwargs, outputs))
        return result

    def _remember(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep what an operation is about to overwrite, so that recording can be undone."""
        for place, argument in enumerate(func._schema.arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            given = args[place] if place < len(args) else kwargs.get(argument.name)
            overwritten = [tensor for tensor in tensors_in(given) if place_of(tensor) not in self._made]
            self._before += [(tensor, tensor.clone()) for tensor in overwritten]

    @torch.no_grad()
    def undo(self) -> None:
        for tensor, value in reversed(self._before):
            tensor.copy_(value)

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, outputs in self.operations:
            for held, new in zip(outputs, tensors_in(func(*args, **kwargs)), strict=True):
                if place_of(held) != place_of(new):
                    held.copy_(new)


def tensors_in(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor)]


def place_of(tensor: Tensor) -> int:
    """Of the memory that it looks into."""
    return tensor.untyped_storage().data_ptr()


def record_operations(act: Callable[[], None], generator: torch.Generator) -> Callable[[], None]:
    """Stands in for `core.training.step.record_cuda_graph`."""
    drawn, drawn_globally = generator.get_state(), torch.get_rng_state()
    recording = Recording()
    with recording:
        act()
    recording.undo()
    generator.set_state(drawn)
    torch.set_rng_state(drawn_globally)
    return recording.replay
