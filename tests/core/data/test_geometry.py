import pytest
from hypothesis import given

from core.data.geometry import RELATIONS, Box, clamped, corners_of, relation_of
from tests.strategies import boxes


def test_corners_are_clamped_to_the_image() -> None:
    corners = corners_of(0.9, 0.5, 0.4, 0.2)
    assert corners == pytest.approx((0.7, 0.4, 1.1, 0.6))
    assert clamped(corners) == pytest.approx((0.7, 0.4, 1.0, 0.6))
    assert clamped((-0.5, -0.1, 2.0, 0.0)) == (0.0, 0.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("box", "relation"),
    [
        ((0.42, 0.42, 0.58, 0.58), "inside"),
        ((0.0, 0.0, 1.0, 1.0), "outside"),
        ((0.0, 0.45, 0.2, 0.65), "left"),
        ((0.8, 0.3, 1.0, 0.5), "right"),
        ((0.45, 0.0, 0.65, 0.2), "above"),
        ((0.4, 0.8, 0.5, 1.0), "below"),
        ((0.4, 0.4, 0.62, 0.6), "inside"),  # 91 % of it
        ((0.45, 0.4, 0.65, 0.6), "right"),  # 75 % of it
    ],
)
def test_the_six_relations_to_a_box_in_the_middle(box: Box, relation: str) -> None:
    assert relation_of(box, (0.4, 0.4, 0.6, 0.6)) == relation


@given(boxes(), boxes())
def test_a_relation_is_reversed_with_its_boxes(a: Box, b: Box) -> None:
    opposite = {"left": "right", "right": "left", "above": "below", "below": "above"}
    there, back = relation_of(a, b), relation_of(b, a)
    if there in opposite and back in opposite and a != b:
        assert back == opposite[there] or a[0] + a[2] == b[0] + b[2] or a[1] + a[3] == b[1] + b[3]


def test_the_relations_are_in_the_order_of_the_methodology() -> None:
    assert RELATIONS == ("left", "right", "above", "below", "inside", "outside")
