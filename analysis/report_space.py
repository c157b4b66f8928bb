"""Which settings are stuck at a bound of the space, and the space to search next.

A setting is stuck if the best trial and most of the best trials lie in the outermost tenth of its range, on one side:
the optimum may be beyond. The next space is wider there, as far as the configuration allows, and otherwise the same.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import yaml

from core.campaign.campaign import Campaign
from core.campaign.dimensions import Choice, Dimension, IntRange, LogUniform
from core.campaign.space import Space
from core.errors import UserError
from core.sections import Scalar

EDGE = 0.1
"""Share of a range that counts as its end."""
TOP_SHARE, TOP_AT_LEAST = 0.1, 3
"""How many of the complete trials are looked at, the best first."""
WIDER = (0.5, 0.25, 0.1)
"""Shares of its present width by which a range may grow; the first that the configuration allows is taken."""

Side = Literal["lower", "upper"]


@dataclass(frozen=True, slots=True)
class Stuck:
    """A setting whose best values lie at a bound."""

    key: str
    side: Side
    value: Scalar
    """Of the best trial."""
    bound: float
    trials: int
    """How many of the best trials lie there."""
    looked_at: int
    proposed: float | None
    """The next bound; None if the configuration allows none beyond."""


@dataclass(frozen=True, slots=True)
class NextSpace:
    """The settings that are stuck, and a space that gives them room."""

    stuck: Sequence[Stuck]
    space: Space

    @property
    def is_wider(self) -> bool:
        return any(each.proposed is not None for each in self.stuck)

    def as_yaml(self) -> str:
        """The `space:` of a campaign file, a line for each setting."""
        content = {
            key: yaml.safe_dump(dimension, sort_keys=False, default_flow_style=True, width=math.inf).strip()
            for key, dimension in self.space.root.items()
        }
        return "space:\n" + "".join(f"  {key}: {dimension}\n" for key, dimension in content.items())


def propose_space(campaign: Campaign, ranked: pd.DataFrame) -> NextSpace:
    """Find what is stuck, and widen the space there.

    Args:
        ranked: as returned by `leaderboard.rank`, the best trial first.
    """
    complete = ranked[ranked["state"] == "complete"]
    top = complete.head(max(TOP_AT_LEAST, math.ceil(TOP_SHARE * len(complete))))
    stuck, content = [], copy.deepcopy(campaign.space.root)
    for key, dimension in campaign.space.dimensions.items():
        for side, trials in _sides(dimension, top, f"param:{key}"):
            bound = dimension.bounds[side == "upper"]  # type: ignore[union-attr]
            proposed = _widen(campaign, content, key, side)
            value = top[f"param:{key}"].iloc[0]
            stuck.append(Stuck(key, side, value, bound, trials, len(top), proposed))
    return NextSpace(stuck, Space(content))


def _sides(dimension: Dimension, top: pd.DataFrame, column: str) -> Iterator[tuple[Side, int]]:
    """The side, if any, at which the best trial and most of the best trials lie, and how many of them."""
    if isinstance(dimension, Choice) or column not in top or len(top) < TOP_AT_LEAST:
        return
    low, high = (_place(dimension, bound) for bound in dimension.bounds)
    places = top[column].map(lambda value: (_place(dimension, value) - low) / (high - low), na_action="ignore")
    sides: tuple[tuple[Side, pd.Series[bool]], ...] = (("lower", places <= EDGE), ("upper", places >= 1 - EDGE))
    for side, at_end in sides:
        if at_end.iloc[0] and 2 * at_end.sum() > len(top):
            yield side, int(at_end.sum())


def _place(dimension: Dimension, value: Scalar) -> float:
    return math.log(float(value)) if isinstance(dimension, LogUniform) else float(value)


def _widen(campaign: Campaign, content: dict[str, Any], key: str, side: Side) -> float | None:
    """Move one bound of a setting outwards in the content of a space; None if no configuration beyond it is valid."""
    dimension = campaign.space.dimensions[key]
    kind = next(kind for kind in ("log", "uniform", "int") if kind in content[key])
    before = list(content[key][kind])
    for share in WIDER:
        bound = _beyond(dimension, side, share)
        content[key][kind] = [bound, before[1]] if side == "lower" else [before[0], bound]
        try:
            Space(content).check(campaign.base)
        except (UserError, ValueError):
            continue
        return bound
    content[key][kind] = before
    return None


def _beyond(dimension: Dimension, side: Side, share: float) -> float:
    """A bound further out by a share of the width, of two digits if that is still further out."""
    assert not isinstance(dimension, Choice)
    low, high = (_place(dimension, bound) for bound in dimension.bounds)
    bound, sign = dimension.bounds[side == "upper"], 1 if side == "upper" else -1
    if isinstance(dimension, IntRange):
        return int(bound) + sign * max(1, round(share * (high - low)))
    moved = (high if side == "upper" else low) + sign * share * (high - low)
    exact = math.exp(moved) if isinstance(dimension, LogUniform) else moved
    rounded = float(f"{exact:.2g}")
    return rounded if sign * (rounded - bound) > 0 else exact
