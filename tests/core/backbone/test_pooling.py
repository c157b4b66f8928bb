import torch

from core.backbone.pooling import pool_grid, pool_image, pool_text


def test_padding_never_contributes() -> None:
    hidden = torch.arange(12.0).view(1, 4, 3)
    mask = torch.tensor([[1, 1, 0, 0]])
    assert pool_text(hidden, mask, "first").tolist() == [[0, 1, 2]]
    assert pool_text(hidden, mask, "last").tolist() == [[3, 4, 5]]
    assert pool_text(hidden, mask, "mean").tolist() == [[1.5, 2.5, 3.5]]


def test_image_pooling_takes_the_cls_token_apart_from_the_patches() -> None:
    hidden = torch.tensor([[[9.0, 9.0], [1.0, 2.0], [3.0, 4.0]]])
    assert pool_image(hidden, "cls").tolist() == [[9, 9]]
    assert pool_image(hidden, "mean").tolist() == [[2, 3]]


def test_a_grid_holds_the_means_of_its_cells_row_by_row() -> None:
    patches = torch.arange(16.0).view(1, 16, 1)  # four rows of four
    hidden = torch.cat([torch.full((1, 1, 1), 100.0), patches], dim=1)
    assert pool_grid(hidden, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert pool_grid(hidden, 4).flatten().tolist() == list(range(16))
    assert pool_grid(hidden, 1).dtype == torch.float16
