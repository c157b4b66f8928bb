import pytest

from core.similar_names import similar_names

SETTINGS = ["loss.itm", "loss.itc", "optimizer.learning_rate", "recipe.epochs", "seed"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("loss.itmm", ["loss.itm"]),
        ("learning-rate", ["optimizer.learning_rate"]),
        ("model.epochs", ["recipe.epochs"]),
        ("Seed", ["seed"]),
        ("los", ["loss"]),
        ("zzz", []),
    ],
)
def test_the_nearest_name_is_found_or_none(written: str, meant: list[str]) -> None:
    assert similar_names(written, SETTINGS, ["loss", "optimizer", "recipe"]) == meant


def test_of_many_settings_of_the_same_name_two_are_listed() -> None:
    assert similar_names("width", ["a.width", "b.width", "c.width"]) == ["a.width", "b.width"]
