from pathlib import Path

import pytest

from core import RetrievalModel
from core.errors import UserError
from core.inference.encoding import require_backbone, require_list


def test_a_picture_is_read_as_the_model_reads_it(attending_model: RetrievalModel, pictures: Path) -> None:
    paths = sorted(pictures.rglob("*.jpeg"))[:3]
    features, grid = attending_model.encoder.encode_images(paths)
    widths = attending_model.widths
    assert widths.grid is not None
    assert grid is not None
    assert features.shape == (3, widths.images)
    assert grid.shape == (3, *widths.grid)
    assert attending_model.encoder.encode_texts(["a pool"]).shape == (1, widths.texts)


def test_a_backbone_of_the_hub_is_not_looked_for_on_disk(model: RetrievalModel) -> None:
    require_backbone(model.config.with_overrides({"features.backbone": "owner/name"}), "m")
    with pytest.raises(UserError, match="m: its backbone /gone is not there"):
        require_backbone(model.config.with_overrides({"features.backbone": "/gone"}), "m")


def test_one_item_is_no_list_of_items() -> None:
    require_list(["a"], "texts")
    with pytest.raises(UserError, match="a list of texts is needed, not one of them"):
        require_list("a", "texts")
    with pytest.raises(UserError, match="a list of pictures is needed"):
        require_list(Path("a.png"), "pictures")
    with pytest.raises(UserError, match="there are no texts"):
        require_list([], "texts")
