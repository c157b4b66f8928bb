from pathlib import Path

import numpy as np
import pytest

from core.errors import UserError
from core.records import Samples
from core.samples import read_samples, write_samples


def test_what_was_written_is_read(tmp_path: Path) -> None:
    recall = Samples(np.array([0.0, 1.0, 1.0]), np.array([4, 4, 9]))
    boxes = Samples(np.array([0.25]), np.array([9]))
    write_samples(tmp_path / "samples", {"t2i_r1": recall, "box_iou": boxes})
    read = read_samples(tmp_path / "samples")
    assert set(read) == {"t2i_r1", "box_iou"}
    assert read["t2i_r1"].values.tolist() == [0.0, 1.0, 1.0]
    assert read["t2i_r1"].groups.tolist() == [4, 4, 9]


@pytest.mark.parametrize("content", [b"", b"torn", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "[:12]])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "samples").write_bytes(content)
    with pytest.raises(UserError, match=r"samples: cannot be read as samples"):
        read_samples(tmp_path / "samples")
