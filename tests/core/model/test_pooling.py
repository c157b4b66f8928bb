import torch
from hypothesis import given
from hypothesis import strategies as st

from core.model.attention import GridAttention
from core.model.pooling import QUERIES, VALUE_WIDTH, GridPooling


def pooling(seed: int) -> GridPooling:
    torch.manual_seed(seed)
    return GridPooling(GridAttention(9, 6, "standardize"))


@given(st.permutations(range(9)), st.integers(0, 1000))
def test_pooling_sees_a_set_of_cells_until_it_learns_places(order: list[int], seed: int) -> None:
    made, grid = pooling(seed), torch.randn(3, 9, 6)
    pooled = made(grid)
    assert pooled.shape == (3, QUERIES * VALUE_WIDTH) == (3, made.width)
    torch.testing.assert_close(made(grid[:, order]), pooled, atol=1e-5, rtol=1e-4)
    torch.nn.init.normal_(made.positions)
    if order != list(range(9)):
        assert not torch.allclose(made(grid[:, order]), made(grid), atol=1e-4)


def test_pooling_learns_to_read_one_cell() -> None:
    """The target is a dimension of the middle cell: neither a mean over cells nor anything but its place tells it."""
    made, generator = pooling(0), torch.Generator().manual_seed(0)
    read = torch.nn.Linear(made.width, 1)
    optimizer = torch.optim.Adam([*made.parameters(), *read.parameters()], lr=0.02)
    losses = []
    for _ in range(300):
        grid = torch.randn(64, 9, 6, generator=generator)
        loss = (read(made(grid)).squeeze(1) - grid[:, 4, 0]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 0.8
    assert sum(losses[-20:]) / 20 < 0.1


def test_all_of_pooling_is_trained() -> None:
    made = pooling(0)
    made(torch.randn(3, 9, 6)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in made.parameters())
