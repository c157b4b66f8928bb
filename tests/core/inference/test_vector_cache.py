from pathlib import Path

import pytest
import torch

from core.errors import UserError
from core.inference.vector_cache import VectorCache


def digest(number: int) -> str:
    return f"{number:064x}"


def test_what_was_added_reads_back_in_any_order(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path)
    rows = torch.randn(40, 3)
    grids = torch.randn(40, 4, 2).half()
    cache.add([digest(n) for n in range(30)], {"a": rows[:30], "g": grids[:30]})
    cache.add([digest(n) for n in range(30, 40)], {"a": rows[30:], "g": grids[30:]})
    again = VectorCache(tmp_path)
    order = [39, 0, 17, 31]
    for each in (cache, again):
        assert torch.equal(each.gather("a", [digest(n) for n in order]), rows[order])
        assert torch.equal(each.gather("g", [digest(n) for n in order]), grids[order])
        assert torch.equal(each.gather("a", [digest(n) for n in range(40)]), rows)
    assert digest(39) in again
    assert digest(40) not in again
    assert again.holds("g", [digest(0)])
    assert not again.holds("b", [digest(0)])


def test_a_damaged_file_counts_as_missing_and_is_replaced(tmp_path: Path) -> None:
    names, rows = [digest(1), digest(2)], torch.randn(2, 3)
    VectorCache(tmp_path).add(names, {"a": rows})
    (path,) = tmp_path.glob("shard_*")
    path.write_bytes(path.read_bytes()[:40])
    cache = VectorCache(tmp_path)
    assert names[0] not in cache
    cache.add(names, {"a": rows})
    assert torch.equal(VectorCache(tmp_path).gather("a", names), rows)


def test_a_foreign_file_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "shard_0.safetensors").write_text("mine")
    with pytest.raises(UserError, match="which crossmodal did not write"):
        VectorCache(tmp_path)
