import numpy as np
import pytest
import torch

from core.features.tables import ROWS_AT_ONCE, _distinct_share, mean_and_deviation


@pytest.mark.parametrize("shape", [(ROWS_AT_ONCE * 2 + 3, 3), (ROWS_AT_ONCE + 1, 4, 3)])
def test_statistics_over_parts_are_those_of_the_whole(shape: tuple[int, ...]) -> None:
    table = (np.random.default_rng(0).normal(5.0, 2.0, shape)).astype(np.float16)
    rows = torch.from_numpy(table.astype(np.float64)).reshape(-1, shape[-1])
    for given in (table, torch.from_numpy(table)):
        mean, std = mean_and_deviation(given)
        torch.testing.assert_close(mean, rows.mean(dim=0))
        torch.testing.assert_close(std, rows.std(dim=0, correction=0))


def test_vectors_that_differ_by_rounding_alone_count_as_the_same() -> None:
    table = np.array([[1.0, 2.0], [1.0 + 1e-7, 2.0], [3.0, 2.0], [3.0, 2.0 - 1e-7]])
    mean, std = mean_and_deviation(table)
    assert _distinct_share(table, mean, std) == 0.5
