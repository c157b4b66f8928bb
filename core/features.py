"""placeholder"""
from dataclasses import dataclass
from torch import Tensor

@dataclass(frozen=True, slots=True)
class FeatureSplit:
    """Pooled features of one split, memory-mapped as extracted, with who belongs to whom."""

    images: Tensor
    """[N, vision_dim] float32"""
    groups: Tensor
    """[N] int64, building of each image"""
    texts: Tensor
    """[T, text_dim] float32, one row a distinct text"""
    caption_text: Tensor
    """[M] int64, row of `texts`"""
    caption_image: Tensor
    """[M] int64, row of `images`"""
    sentence_text: Tensor
    """[R] int64, row of `texts`"""
    sentence_image: Tensor
    """[R] int64, row of `images`"""
    boxes: Tensor
    """[R, 4] float32, x1 y1 x2 y2 in 0..1"""
    relations: Tensor
    """[R] int64 in 0..5, -1 where there is none"""
