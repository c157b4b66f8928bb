"""Tests of core.data.overlap."""

import pytest
import torch
from hypothesis import given
from transformers.loss.loss_for_object_detection import generalized_box_iou

from core.data.geometry import Box
from core.data.overlap import paired_giou, paired_iou
from tests.strategies import boxes


@given(boxes(), boxes())
def test_giou_equals_the_one_of_transformers(a: Box, b: Box) -> None:
    first, second = torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64)
    torch.testing.assert_close(paired_giou(first, second), generalized_box_iou(first, second)[0])


@given(boxes(), boxes())
def test_iou_is_symmetric_and_at_most_one(a: Box, b: Box) -> None:
    first, second = torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64)
    iou = paired_iou(first, second).item()
    assert iou == pytest.approx(paired_iou(second, first).item())
    assert 0 <= iou <= 1 + 1e-9
    assert paired_iou(first, first).item() == pytest.approx(1)
