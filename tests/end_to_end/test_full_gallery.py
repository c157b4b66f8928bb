"""The full GeoText-1652 test gallery, random vectors: 55,000 images by 166,000 texts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_full_gallery_is_ranked_in_little_memory_and_like_the_direct_way(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.evaluation", "--output", tmp_path / "evaluation.json"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    _, full = json.loads((tmp_path / "evaluation.json").read_text())["galleries"]
    assert (full["images"], full["texts"]) == (55_000, 166_000)
    assert full["peak_memory_mb"] < 2_500
    assert full["sample_equals_direct"] is True
