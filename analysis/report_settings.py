"""The searched settings of a campaign as a report shows them: which ones, what they are called, and in what ranges.

Weights of boxes and relations are left out where the data has none: they were drawn, but changed nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from core.campaign.dimensions import Choice, Condition, Dimension, IntRange, LogUniform
from core.campaign.space import SWITCH, Space
from core.sections import Scalar

NEEDS = {"loss.box": "box_iou", "loss.giou": "box_iou", "loss.spatial": "relation_accuracy"}
"""Setting → the metric that the data must have for it to change anything."""


@dataclass(frozen=True, slots=True)
class Searched:
    """A setting that a campaign draws, or the switch that turns it off."""

    name: str
    """Optuna's: the dotted path, and for a switch `.on` behind it."""
    dimension: Dimension

    @property
    def column(self) -> str:
        """Its column in the table of trials."""
        return f"param:{self.name}"

    @property
    def is_logarithmic(self) -> bool:
        return isinstance(self.dimension, LogUniform)


def searched_settings(space: Space, trials: pd.DataFrame) -> list[Searched]:
    """The settings of a space that can differ between trials and can matter for this data.

    Args:
        trials: as returned by `load_trials`.
    """
    found = []
    for key, dimension in space.dimensions.items():
        if key in NEEDS and not trials[NEEDS[key]].notna().any():
            continue
        if getattr(dimension, "off", False):
            found.append(Searched(key + SWITCH, Choice(choice=[True, False])))
        if not (isinstance(dimension, Choice) and len(dimension.choice) == 1):
            found.append(Searched(key, dimension))
    return [each for each in found if each.column in trials and trials[each.column].notna().any()]


def values_of(setting: Searched, trials: pd.DataFrame) -> "pd.Series[float]":
    """Where the trials lie on the axis of a setting: numbers as they are, choices as 0, 1, …; NaN where not drawn."""
    column = trials[setting.column]
    if not isinstance(setting.dimension, Choice):
        return pd.to_numeric(column)
    positions = {value: float(number) for number, value in enumerate(setting.dimension.choice)}
    return column.map(lambda value: positions.get(value, float("nan"))).astype(float)


def choice_labels(setting: Searched) -> list[str]:
    """What stands on the axis of a choice, in the order of `values_of`."""
    assert isinstance(setting.dimension, Choice)
    return [worded_value(value) for value in setting.dimension.choice]


def worded_value(value: Scalar | None) -> str:
    """A value for a reader: at most three digits; – for none."""
    if value is None or (isinstance(value, float) and value != value):
        return "–"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def worded_range(dimension: Dimension) -> str:
    """A dimension in words, like `0.1 to 10 (log), or 0`."""
    if isinstance(dimension, Choice):
        return ", ".join(map(worded_value, dimension.choice))
    low, high = map(worded_value, dimension.bounds)
    kind = " (log)" if isinstance(dimension, LogUniform) else " (whole)" if isinstance(dimension, IntRange) else ""
    return f"{low} to {high}{kind}" + (", or 0" if dimension.off else "")


def worded_condition(dimension: Dimension) -> str:
    """When a setting is drawn, like `model.fusion is attention`; empty if always."""
    return " and ".join(f"{other} is {_worded(condition)}" for other, condition in dimension.when.items())


def _worded(condition: Condition) -> str:
    parts: Sequence[str] = [
        *([] if condition.one_of is None else [" or ".join(map(worded_value, condition.one_of))]),
        *([] if condition.min is None else [f"at least {condition.min:g}"]),
        *([] if condition.max is None else [f"at most {condition.max:g}"]),
    ]
    return " and ".join(parts)
