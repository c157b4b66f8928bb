import pytest
import torch

from core.features.store import HostTable
from core.model.views import ImageView, TextView, whole


@pytest.mark.parametrize("index", [torch.tensor([2, 0, 2]), slice(1, 3)])
@pytest.mark.parametrize("on_host", [False, True])
def test_rows_of_a_view_are_those_of_its_parts(index: torch.Tensor | slice, on_host: bool) -> None:
    embedded, grid, features = torch.randn(4, 3), torch.randn(4, 5, 2).half(), torch.randn(4, 6)
    table = HostTable(grid, torch.device("cpu")) if on_host else grid
    images, texts = ImageView(embedded, table).rows(index), TextView(embedded, features).rows(index)
    assert torch.equal(images.embedded, embedded[index])
    assert isinstance(images.grid, torch.Tensor)
    assert torch.equal(images.grid, grid[index])
    assert isinstance(texts.features, torch.Tensor)
    assert torch.equal(texts.features, features[index])


def test_views_without_tables_have_rows_without_tables() -> None:
    assert ImageView(torch.randn(4, 3)).rows(slice(0, 2)).grid is None
    assert TextView(torch.randn(4, 3)).rows(torch.tensor([1])).features is None


def test_a_missing_table_is_reported() -> None:
    with pytest.raises(AssertionError, match="need grids and text features"):
        whole(None)
