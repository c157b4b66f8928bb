import math
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from core.config import Normalization
from core.model.attention import POSITION, GridAttention, cell_centres, position_code

NORMALIZATIONS = get_args(Normalization)


def attention(kind: Normalization, seed: int, *, cells: int = 9, width: int = 6) -> GridAttention:
    """In double precision, with statistics of its own."""
    generator = torch.Generator().manual_seed(seed)
    made = GridAttention(cells, width, kind).double()
    made.norm.use_statistics(torch.randn(width, generator=generator), torch.rand(width, generator=generator) + 0.1)
    return made


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def textbook(made: GridAttention, grid: Tensor, queries: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """One image and one query after the other, on a grid that is normalised cell by cell."""
    normalised = grid.clone()
    for cell in normalised.view(-1, grid.shape[2]):
        match made.norm.kind:
            case "standardize":
                cell.copy_((cell - made.norm.mean) / made.norm.std)
            case "layernorm":
                cell.copy_(functional.layer_norm(cell, cell.shape))
    images, count = queries.shape[:2]
    weights, values = torch.zeros(images, count, grid.shape[1]), torch.zeros(queries.shape)
    weights, values = weights.double(), values.double()
    for image in range(images):
        for query in range(count):
            logits = normalised[image] @ queries[image, query] / math.sqrt(grid.shape[2]) + bias[image, query]
            weights[image, query] = logits.softmax(dim=0)
            for cell, weight in enumerate(weights[image, query]):
                values[image, query] += weight * normalised[image, cell]
    return weights, values


@given(st.sampled_from(NORMALIZATIONS), st.integers(1, 3), st.integers(1, 4), st.integers(0, 10_000))
def test_attention_equals_that_on_a_grid_normalised_cell_by_cell(
    kind: Normalization, images: int, queries: int, seed: int
) -> None:
    made = attention(kind, seed)
    grid, asked, bias = (
        drawn(seed, images, 9, 6),
        drawn(seed + 1, images, queries, 6),
        drawn(seed + 2, images, queries, 9),
    )
    weights, values = made(grid, asked, bias)
    expected_weights, expected = textbook(made, grid, asked, bias)
    torch.testing.assert_close(weights, expected_weights)
    torch.testing.assert_close(values, expected)


@pytest.mark.parametrize("kind", NORMALIZATIONS)
def test_queries_for_all_images_alike_are_those_repeated_for_each(kind: Normalization) -> None:
    made, grid, asked, bias = attention(kind, 0), drawn(0, 3, 9, 6), drawn(1, 4, 6), drawn(2, 4, 9)
    shared, repeated = made(grid, asked, bias), made(grid, asked.expand(3, 4, 6), bias.expand(3, 4, 9))
    for one, other in zip(shared, repeated, strict=True):
        torch.testing.assert_close(one, other)


@given(st.integers(0, 10_000), st.floats(0.01, 100.0))
def test_a_standardised_grid_may_be_shifted_and_stretched_along_with_its_statistics(seed: int, stretch: float) -> None:
    made, shift = attention("standardize", seed), drawn(seed + 3, 6)
    grid, asked, bias = drawn(seed, 2, 9, 6), drawn(seed + 1, 2, 3, 6), drawn(seed + 2, 2, 3, 9)
    before = made(grid, asked, bias)
    made.norm.use_statistics(made.norm.mean * stretch + shift, made.norm.std * stretch)
    for value, same in zip(made(grid * stretch + shift, asked, bias), before, strict=True):
        torch.testing.assert_close(value, same)


@given(st.sampled_from(NORMALIZATIONS), st.integers(0, 10_000))
def test_where_a_query_looks_does_not_depend_on_a_constant_added_to_a_dimension_of_all_cells(
    kind: Normalization, seed: int
) -> None:
    if kind == "layernorm":
        return  # normalises each cell over its dimensions, so there the same number is added to all of them
    made, shift = attention(kind, seed), drawn(seed + 3, 6)
    grid, asked, bias = drawn(seed, 2, 9, 6), drawn(seed + 1, 2, 3, 6), drawn(seed + 2, 2, 3, 9)
    torch.testing.assert_close(made(grid + shift, asked, bias)[0], made(grid, asked, bias)[0])


@given(st.integers(0, 10_000))
def test_layer_norm_does_not_see_a_number_added_to_a_cell_as_a_whole(seed: int) -> None:
    made, shift = attention("layernorm", seed), drawn(seed + 3, 2, 9, 1)
    grid, asked, bias = drawn(seed, 2, 9, 6), drawn(seed + 1, 2, 3, 6), drawn(seed + 2, 2, 3, 9)
    for value, same in zip(made(grid + shift, asked, bias), made(grid, asked, bias), strict=True):
        torch.testing.assert_close(value, same)


@given(st.permutations(range(9)), st.integers(0, 10_000))
def test_without_a_bias_cells_are_a_set(order: list[int], seed: int) -> None:
    made, none = attention("standardize", seed), torch.zeros(2, 3, 9, dtype=torch.float64)
    grid, asked = drawn(seed, 2, 9, 6), drawn(seed + 1, 2, 3, 6)
    weights, values = made(grid, asked, none)
    shuffled_weights, shuffled = made(grid[:, order], asked, none)
    torch.testing.assert_close(shuffled, values)
    torch.testing.assert_close(shuffled_weights, weights[:, :, order])


def test_cells_lie_in_rows_from_the_top_left() -> None:
    assert cell_centres(4).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]


@pytest.mark.parametrize("side", [1, 2, 3, 4, 8, 32])
def test_position_codes_are_standardised_and_tell_cells_apart(side: int) -> None:
    code = position_code(cell_centres(side * side))
    assert code.shape == (side * side, POSITION)
    assert len({tuple(row) for row in code.tolist()}) == side * side
    torch.testing.assert_close(code.mean(dim=0), torch.zeros(POSITION), atol=1e-5, rtol=0)
    deviation = code.std(dim=0, correction=0)
    varies = deviation > 1e-3
    torch.testing.assert_close(deviation[varies], torch.ones(int(varies.sum())), atol=1e-4, rtol=0)
    assert bool(varies.all()) is (side > 4)  # the shortest wave is but noise or nothing on smaller grids


def test_location_and_spread_by_hand() -> None:
    made = GridAttention(4, 6, "none")
    weights = torch.tensor([[[0.0, 1.0, 0.0, 0.0], [0.5, 0.0, 0.5, 0.0]]])
    mean, spread = made.location(weights)
    torch.testing.assert_close(mean, torch.tensor([[[0.75, 0.25], [0.25, 0.5]]]))
    torch.testing.assert_close(spread, torch.tensor([[[0.0, 0.0], [0.0, 0.25]]]), atol=1.1e-3, rtol=0)


@pytest.mark.parametrize("kind", NORMALIZATIONS)
def test_half_precision_cells_are_attended_in_the_precision_of_the_queries(kind: Normalization) -> None:
    made, grid = attention(kind, 0).float(), drawn(0, 2, 9, 6).half()
    asked, bias = drawn(1, 2, 3, 6).float(), drawn(2, 2, 3, 9).float()
    weights, values = made(grid, asked, bias)
    assert weights.dtype == values.dtype == torch.float32
    torch.testing.assert_close(values, made(grid.float(), asked, bias)[1])
