import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.time_to_quality import best_within, compare, time_to, watch
from core.records import ALIGN, JOINT

CURVE = [(5.0, 0.2), (6.0, 0.5), (20.0, 0.4), (30.0, 0.6)]
FASTER = [(2.0, 0.59), (3.0, 0.61)]


@pytest.mark.parametrize(("seconds", "best"), [(4.0, 0.0), (5.0, 0.2), (25.0, 0.5), (99.0, 0.6)])
def test_an_epoch_counts_when_it_has_arrived(seconds: float, best: float) -> None:
    assert best_within(CURVE, seconds) == best


@pytest.mark.parametrize(("level", "seconds"), [(0.1, 5.0), (0.45, 6.0), (0.6, 30.0), (0.7, float("inf"))])
def test_a_level_is_reached_by_the_first_epoch_at_or_above_it(level: float, seconds: float) -> None:
    assert time_to(CURVE, level) == seconds


def test_ways_are_compared_by_the_end_of_plain_tune_with_the_same_seed() -> None:
    plain = [{"seconds": 60.0, "curve": CURVE}] * 3
    never = {"seconds": 60.0, "curve": [(1.0, 0.585)]}
    ours = [{"seconds": 60.0, "curve": FASTER}, {"seconds": 60.0, "curve": FASTER}, never]
    of_plain, of_ours = compare({"plain Tune": plain, "ours": ours})
    assert of_plain["s to −0"] == 30.0
    assert of_plain["times as fast"] == 2.0
    assert of_ours["s to −2"] == of_ours["s to −1"] == 2.0  # the third seed has 0.585 after 1 s, and never 0.59
    assert of_ours["s to −0"] == 3.0
    assert of_ours["reached"] == "2 of 3"
    assert of_ours["times as fast"] == 20.0
    assert of_ours["best at 1 of the time"] == pytest.approx(100 * (0.61 + 0.61 + 0.585) / 3)
    (_, missed) = compare({"plain Tune": plain, "ours": [never] * 3})
    assert missed["s to −0"] is None
    assert missed["times as fast"] == 0.0


def test_rows_are_timed_as_they_arrive_and_only_those_of_the_joint_stage(tmp_path: Path) -> None:
    rows = "".join(f'{{"recall_mean": 0.{n}, "stage": {stage}}}\n' for n, stage in ((1, ALIGN), (2, JOINT), (3, JOINT)))
    script = f"open({str(tmp_path / 'metrics.jsonl')!r}, 'w').write({rows!r})"
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", script])
    curve = watch(process, tmp_path, began, None)
    assert [recall for _, recall in curve] == [0.2, 0.3]
    assert all(0 < arrived <= time.monotonic() - began for arrived, _ in curve)
