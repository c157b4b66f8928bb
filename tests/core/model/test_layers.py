import torch
from torch import Tensor

from core.model.layers import interaction


def test_interaction_is_the_pair_its_product_and_its_distance_at_a_norm_of_the_root_of_the_width() -> None:
    image, text = Tensor([[1.0, 0.0, 0.0, 0.0]]), Tensor([[0.6, 0.8, 0.0, 0.0]])
    fused = interaction(image, text)
    assert fused.shape == (1, 16)
    torch.testing.assert_close(
        fused.view(4, 4), Tensor([[2, 0, 0, 0], [1.2, 1.6, 0, 0], [2.4, 0, 0, 0], [0.8, 1.6, 0, 0]])
    )
