import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config import TrainConfig
from core.errors import UserError
from core.readings import POOLINGS, Kind, distinct, grid_reading, parse_readings
from tests.conftest import readings

KINDS: tuple[Kind, ...] = ("images", "texts")
NAMES = {kind: [f"{place}.{one}" for place, all_ in POOLINGS[kind].items() for one in all_] for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_names_are_read_back_as_they_were_written(kind: Kind, data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(NAMES[kind]), min_size=1, unique=True))
    layers = [data.draw(st.none() | st.integers(-99, 99)) if "projector" not in name else None for name in names]
    written = [name if layer is None else f"{name}@{layer}" for name, layer in zip(names, layers, strict=True)]
    parsed = parse_readings(kind, "+".join(written), prompt="In one word:")
    assert [reading.name for reading in parsed] == written
    assert len({reading.key for reading in parsed}) == len(parsed)
    assert all(re.fullmatch(r"[a-z0-9_.@-]+", reading.key) for reading in parsed)


@given(st.text(max_size=30))
def test_any_other_text_is_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="is no reading of images") as caught:
        parse_readings("images", text, prompt="")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("tower.clss", "'tower.clss' is no reading of images; there are tower.cls, tower.mean, projector.mean"),
        ("lm.last", "'lm.last' is no reading of images"),
        ("tower.mean+tower.mean", "tower.mean is given twice"),
        ("projector.mean@3", "projector has no layers to choose from, so write projector.mean"),
        ("", "'' is no reading of images"),
        ("tower.cls+", "'' is no reading of images"),
    ],
)
def test_a_mistake_is_named_where_it_was_written(names: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"features.image: {message}")):
        TrainConfig().with_overrides({"features.image": names})


def test_vectors_are_readings_of_both_kinds_and_never_a_grid() -> None:
    for kind in KINDS:
        (reading,) = parse_readings(kind, "vectors.grid8", prompt="In one word:")
        assert (reading.name, reading.key) == ("vectors.grid8", f"{kind}.vectors.grid8")
        assert (reading.is_vector, reading.side, reading.prompt) == (True, None, None)
    assert not any(reading.is_vector for reading in readings(grid=4).all)


def test_only_readings_that_ask_depend_on_the_prompt() -> None:
    def keys(prompt: str) -> list[str]:
        images = parse_readings("images", "tower.cls+projector.mean+lm.image_mean+lm.prompt", prompt=prompt)
        return [reading.key for reading in images]

    same = [one == other for one, other in zip(keys("What is it?"), keys("In one word:"), strict=True)]
    assert same == [True, True, False, False]


def test_a_configuration_names_the_grid_only_for_models_that_look_at_it() -> None:
    config = TrainConfig().with_overrides({"features.image": "tower.cls + tower.mean", "features.grid": 4})
    assert [reading.name for reading in config.readings.all] == ["tower.cls", "tower.mean", "lm.last"]
    for key in ("model.fusion", "model.image_pooling"):
        assert config.with_overrides({key: "attention"}).readings.grid == grid_reading(4)


def test_repetition_goes_and_order_stays() -> None:
    one, other = readings("tower.cls").all, readings("tower.mean", grid=8).all
    assert distinct([*one, *other, *one]) == (one[0], one[1], other[0], other[2])
