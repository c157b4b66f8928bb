import torch

from core.backbone.pooling import pool_images, pool_texts


def test_padding_never_contributes() -> None:
    hidden = torch.arange(12.0).view(1, 4, 3)
    mask = torch.tensor([[1, 1, 0, 0]])
    pooled = pool_texts(hidden, mask)
    assert pooled["first"].tolist() == [[0, 1, 2]]
    assert pooled["last"].tolist() == [[3, 4, 5]]
    assert pooled["mean"].tolist() == [[1.5, 2.5, 3.5]]


def test_image_pooling_takes_the_cls_token_apart_from_the_patches() -> None:
    pooled = pool_images(torch.tensor([[[9.0, 9.0], [1.0, 2.0], [3.0, 4.0]]]))
    assert pooled["cls"].tolist() == [[9, 9]]
    assert pooled["mean"].tolist() == [[2, 3]]
