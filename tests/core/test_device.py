import pytest
import torch

from core.device import choose_device, device_name, free_memory, peak_memory_mb
from core.errors import UserError


def test_auto_takes_the_gpu_exactly_where_there_is_one() -> None:
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_gpu_that_is_not_there_is_the_users_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"this machine has no usable GPU; set it to auto or cpu"):
        choose_device("cuda")


def test_the_processor_is_named_and_its_memory_measured() -> None:
    cpu = torch.device("cpu")
    assert device_name(cpu) == "cpu"
    before = peak_memory_mb(cpu)
    block = torch.ones(64 * 2**18)  # 64 MiB
    assert peak_memory_mb(cpu) >= max(before, block.numel() * 4 / 2**20)


@pytest.mark.parametrize(("share", "expected"), [(1.0, 30), (0.25, 20)])
def test_room_on_a_gpu_is_what_is_free_within_the_share_of_this_process(
    monkeypatch: pytest.MonkeyPatch, share: float, expected: int
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (30, 100))
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: share)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5)
    assert free_memory(torch.device("cuda")) == expected
    assert free_memory(torch.device("cpu")) == float("inf")
