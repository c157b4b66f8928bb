"""The full GeoText-1652 test gallery, random vectors: 55,000 images by 166,000 texts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_full_gallery_is_ranked_in_little_memory_and_like_the_direct_way() -> None:
    subprocess.run([sys.executable, "-m", "benchmarks.evaluation"], cwd=ROOT, check=True, capture_output=True)
    found = json.loads((ROOT / "benchmarks" / "results" / "evaluation.json").read_text())
    assert (found["images"], found["texts"]) == (55_000, 166_000)
    assert found["peak_memory_mb"] < 2_500
    assert found["sample_equals_direct"] is True
