import pytest
import torch

from core.model.views import ImageView, TextView, whole


def test_rows_of_a_view_are_those_of_all_its_tables() -> None:
    images, texts = ImageView(torch.randn(4, 3), torch.randn(4, 9, 2).half()), TextView(torch.randn(4, 3))
    index = torch.tensor([2, 0, 2])
    chosen = images.rows(index)
    assert torch.equal(chosen.embedded, images.embedded[index])
    assert torch.equal(whole(chosen.grid), whole(images.grid)[index])
    assert torch.equal(whole(images.rows(slice(1, 3)).grid), whole(images.grid)[1:3])
    assert texts.rows(index).features is None


def test_a_missing_table_is_reported() -> None:
    with pytest.raises(AssertionError, match="need grids and text features"):
        whole(None)
