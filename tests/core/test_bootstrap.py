import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.bootstrap import bootstrap_mean
from core.records import Samples


def samples(values: list[float], groups: list[int]) -> Samples:
    return Samples(np.array(values, dtype=float), np.array(groups))


def test_the_value_is_the_mean_of_the_means() -> None:
    few, many = samples([1.0, 0.0], [7, 9]), samples([1.0, 1.0, 1.0, 0.0], [7, 7, 9, 9])
    found = bootstrap_mean([few, many])
    assert found.value == 0.625  # of 0.5 and 0.75, whatever their sizes
    assert (found.low, found.high) == (0.25, 1.0)  # one building alone: (0 + 0.5) / 2, or (1 + 1) / 2


@given(st.lists(st.tuples(st.floats(-1, 1), st.integers(0, 5)), min_size=1, max_size=30))
def test_equal_parts_are_as_one(rows: list[tuple[float, int]]) -> None:
    part = samples([value for value, _ in rows], [group for _, group in rows])
    one, three = bootstrap_mean([part]), bootstrap_mean([part, part, part])
    assert (one.value, one.low, one.high) == pytest.approx((three.value, three.low, three.high), abs=1e-12)


def test_rows_of_one_building_count_as_one_observation() -> None:
    """All the gain is in one of four buildings: rows that were drawn one by one would exclude 0."""
    gain = samples([1.0] * 50 + [0.0] * 150, [number // 50 for number in range(200)])
    assert bootstrap_mean([gain]).low == 0


def test_the_interval_covers_what_it_should() -> None:
    """Of 200 experiments with a true mean of 0.3, about 95 % of intervals contain it."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(60), 3)
    covered = 0
    for _ in range(200):
        values = 0.3 + np.repeat(rng.normal(0, 0.5, 60), 3) + rng.normal(0, 0.2, 180)
        found = bootstrap_mean([Samples(values, groups)])
        covered += found.low <= 0.3 <= found.high
    assert 0.88 <= covered / 200 <= 0.99
