"""The full GeoText-1652 test gallery, random vectors: 55,000 images by 166,000 texts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.evaluation import IMAGES, TEXTS

ROOT = Path(__file__).parents[2]
QUERIES = 2_000


@pytest.mark.slow
def test_the_full_gallery_is_ranked_in_little_memory_and_like_the_direct_way(tmp_path: Path) -> None:
    """Some of the queries against the whole gallery: the other queries are more blocks of the same size."""
    command = [sys.executable, "-m", "benchmarks.evaluation", "--output", str(tmp_path / "evaluation.json")]
    subprocess.run([*command, "--queries", str(QUERIES)], cwd=ROOT, check=True, capture_output=True)
    quarter, full = json.loads((tmp_path / "evaluation.json").read_text())["galleries"]
    assert (full["images"], full["texts"]) == (IMAGES, TEXTS) == (55_000, 166_000)
    assert full["queries"] == QUERIES
    scores_mb = 4 * QUERIES * TEXTS / 2**20
    assert full["beyond_embeddings_mb"] < scores_mb / 3
    growth = full["beyond_embeddings_mb"] - quarter["beyond_embeddings_mb"]
    assert growth < scores_mb / 4  # the scores themselves grow by three quarters
    assert full["peak_memory_mb"] < 1_200
    assert full["sample_equals_direct"] is True
