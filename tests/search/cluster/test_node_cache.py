from pathlib import Path

import pytest

from search.cluster import node_cache
from search.cluster.node_cache import find_store, write_piece
from tests.conftest import readings


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_cache, "NODE_CACHE", tmp_path / "cache")


def test_the_configured_folder_comes_before_the_nodes_own_copy(tmp_path: Path) -> None:
    assert find_store(tmp_path / "store", "f", []) is None
    write_piece("f/manifest.json", 0, b"{}")
    assert find_store(tmp_path / "store", "f", []) == tmp_path / "cache"
    (tmp_path / "store" / "f").mkdir(parents=True)
    (tmp_path / "store" / "f" / "manifest.json").write_text("{}")
    assert find_store(tmp_path / "store", "f", []) == tmp_path / "store"


def test_a_store_counts_only_with_all_readings_that_are_asked_for(tmp_path: Path) -> None:
    wanted = readings("tower.cls").all
    (tmp_path / "store" / "f").mkdir(parents=True)
    (tmp_path / "store" / "f" / "manifest.json").write_text("{}")
    write_piece("f/manifest.json", 0, b"{}")
    for reading in wanted:
        assert find_store(tmp_path / "store", "f", wanted) is None
        write_piece(f"f/readings/{reading.key}/manifest.json", 0, b"{}")
    assert find_store(tmp_path / "store", "f", wanted) == tmp_path / "cache"


def test_pieces_make_the_file_in_any_order_and_twice(tmp_path: Path) -> None:
    for position, piece in ((3, b"def"), (0, b"abc"), (3, b"def")):
        write_piece("f/train/a.npy", position, piece)
    assert (tmp_path / "cache" / "f" / "train" / "a.npy").read_bytes() == b"abcdef"


def test_the_manifest_appears_whole(tmp_path: Path) -> None:
    """A concurrent reader must not see half of it, since it completes the store."""
    write_piece("f/manifest.json", 0, b"{}")
    held = (tmp_path / "cache" / "f" / "manifest.json").open("rb")
    write_piece("f/manifest.json", 0, b'{"fingerprint": "f"}')
    with held:
        assert held.read() == b"{}"
    assert (tmp_path / "cache" / "f" / "manifest.json").read_bytes() == b'{"fingerprint": "f"}'
