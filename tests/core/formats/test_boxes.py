import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data.geometry import Box, corners_of
from core.errors import UserError
from core.formats.boxes import LAYOUTS, Layout, corners, four_numbers, settle_layout, settle_unit, to_geotext

SIZE = (640, 480)


@st.composite
def corner_boxes(draw: st.DrawFn) -> Box:
    """x1 y1 x2 y2 in pixels, within an image of 640 × 480, at least two pixels wide and high."""
    x1, y1 = draw(st.integers(0, SIZE[0] - 2)), draw(st.integers(0, SIZE[1] - 2))
    return x1, y1, draw(st.integers(x1 + 2, SIZE[0])), draw(st.integers(y1 + 2, SIZE[1]))


def written(box: Box, layout: Layout) -> Box:
    """A box of corners in another layout."""
    x1, y1, x2, y2 = box
    match layout:
        case "xyxy":
            return box
        case "xywh":
            return x1, y1, x2 - x1, y2 - y1
        case "cxcywh":
            return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1


@given(corner_boxes(), st.sampled_from(LAYOUTS))
def test_every_layout_and_unit_of_a_box_becomes_the_same_geotext_box(box: Box, layout: Layout) -> None:
    pixels, repair = to_geotext(written(box, layout), layout, SIZE)
    assert repair is None
    assert pixels is not None
    x1, y1, x2, y2 = corners_of(*pixels)
    assert (x1 * 640, y1 * 480, x2 * 640, y2 * 480) == pytest.approx(box, abs=2e-3)
    scaled = (box[0] / 640, box[1] / 480, box[2] / 640, box[3] / 480)
    fractions, _ = to_geotext(written(scaled, layout), layout, None)
    assert fractions == pytest.approx(pixels, abs=2e-6)


@given(corner_boxes(), st.sampled_from(LAYOUTS))
def test_corners_undo_what_a_layout_does(box: Box, layout: Layout) -> None:
    assert corners(written(box, layout), layout) == pytest.approx(box)


def test_geotexts_own_numbers_are_kept_to_the_last_digit() -> None:
    box = (0.408688485622406, 0.6883664131164551, 0.38859522342681885, 0.6234817504882812)
    assert to_geotext(box, "cxcywh", None) == (list(box), None)
    assert to_geotext((-100, -100, -100, -100), "cxcywh", None) == ([-100] * 4, None)


@pytest.mark.parametrize(
    ("box", "layout", "why"),
    [
        ((10, 10, 10, 30), "xyxy", "box without area"),
        ((30, 10, 10, 30), "xyxy", "box without area"),
        ((10, 10, -5, 30), "xywh", "box without area"),
        ((700, 10, 800, 30), "xyxy", "box outside the image"),
    ],
)
def test_a_box_of_which_nothing_is_in_the_image_is_dropped_with_its_reason(box: Box, layout: Layout, why: str) -> None:
    assert to_geotext(box, layout, SIZE) == (None, why)


def test_a_box_beyond_the_edge_is_clamped_and_one_by_rounding_is_no_repair() -> None:
    assert to_geotext((320, 0, 960, 480), "xyxy", SIZE) == ([0.75, 0.5, 0.5, 1.0], "box clamped to the image")
    assert to_geotext((0, 0, 640.3, 480), "xyxy", SIZE) == ([0.5, 0.5, 1.0, 1.0], None)


@given(st.lists(st.floats() | st.integers() | st.booleans() | st.text(max_size=2) | st.none(), max_size=5))
def test_four_numbers_are_finite_or_none(raw: list[object]) -> None:
    box = four_numbers(raw)
    assert box is None or (len(raw) == 4 and all(abs(value) < float("inf") for value in box))


def test_a_unit_that_the_numbers_contradict_is_refused_both_ways() -> None:
    assert settle_unit([(0.1, 0.1, 1.2, 0.5)], None, where="a") == "fractions"
    assert settle_unit([(0.1, 0.1, 0.2, 0.5), (3, 4, 90, 80)], None, where="a") == "pixels"
    with pytest.raises(UserError, match=r"read as fractions, but the box .* looks like pixels; .* --box-unit pixels"):
        settle_unit([(3, 4, 90, 80)], "fractions", where="a")
    with pytest.raises(UserError, match=r"read as pixels, but no number exceeds 1.5; .* --box-unit fractions"):
        settle_unit([(0.1, 0.1, 0.2, 0.5)], "pixels", where="a")


def test_a_layout_is_concluded_only_if_no_other_is_possible() -> None:
    assert settle_layout([((600, 400, 640, 480), SIZE)], where="a") == "xyxy"  # else it would leave the image
    assert settle_layout([((100, 100, 50, 40), SIZE), ((10, 10, 200, 300), SIZE)], where="a") == "xywh"
    assert settle_layout([((0.9, 0.9, 0.2, 0.2), None)], where="a") == "cxcywh"
    with pytest.raises(UserError, match=r"may be xyxy or xywh; say which with --boxes xyxy\|xywh"):
        settle_layout([((10, 10, 100, 100), SIZE)], where="a")
    with pytest.raises(UserError, match="are of no layout in which all lie in their images"):
        settle_layout([((600, 400, 640, 480), SIZE), ((600, 400, 20, 20), SIZE), ((5, 5, -3, 9), SIZE)], where="a")
