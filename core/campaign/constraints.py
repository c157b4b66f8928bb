"""Constraints of a campaign: what a trial must reach besides its objective to be the best.

A bound is a number, or relative to the baseline: `box_iou: {at_least: baseline - 0.01}`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Self

from pydantic import BeforeValidator, RootModel, model_validator

from core.campaign.trials import TrialRecord, baseline_of
from core.records import GROUNDING_METRICS, RETRIEVAL_KEYS
from core.sections import Section

CONSTRAINED = (*RETRIEVAL_KEYS, "recall_mean", *GROUNDING_METRICS, "trainable_parameters")
"""Figures of a trial that a constraint may bound."""
_RELATIVE = re.compile(r"baseline(?:\s*([+-])\s*([0-9.]+(?:[eE][+-]?[0-9]+)?))?")


def _require_level(level: object) -> object:
    if isinstance(level, str):
        if _RELATIVE.fullmatch(level.strip()) is None:
            raise ValueError("must be a number, or like baseline, baseline - 0.01 or baseline + 0.02")
        return level
    if isinstance(level, bool) or not isinstance(level, int | float):
        raise ValueError("must be a number, or like baseline - 0.01")
    return float(level)


Level = Annotated[float | str, BeforeValidator(_require_level)]


class Bound(Section):
    """The lowest or the highest value of a figure."""

    at_least: Level | None = None
    at_most: Level | None = None

    @model_validator(mode="after")
    def _one_side(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("needs either at_least or at_most")
        return self

    def violation(self, value: float, baseline: float | None) -> float:
        """By how much a value breaks the bound; 0 or less if it does not, or as long as the baseline is unknown."""
        level = self.at_least if self.at_least is not None else self.at_most
        limit = _limit(level, baseline)
        if limit is None:
            return 0.0
        return limit - value if self.at_least is not None else value - limit

    def __str__(self) -> str:
        return f"at least {self.at_least}" if self.at_least is not None else f"at most {self.at_most}"


def _limit(level: float | str | None, baseline: float | None) -> float | None:
    if not isinstance(level, str):
        return level
    match = _RELATIVE.fullmatch(level.strip())
    assert match is not None, "validated when it was read"
    if baseline is None:
        return None
    offset = float(match[2] or 0)
    return baseline + (-offset if match[1] == "-" else offset)


Figures = Callable[[str], float | None]
"""Name → value of a trial's figure; None where it was not measured."""


class Constraints(RootModel[dict[str, Bound]]):
    """Figure → its bound."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        for name in self.root:
            if name not in CONSTRAINED:
                raise ValueError(f"{name} cannot be constrained; choose from {', '.join(CONSTRAINED)}")
        return self

    def violations(self, figures: Figures, baseline: Figures) -> dict[str, float]:
        """Constrained figure → by how much it breaks its bound; 0 or less if it does not.

        A figure that was not measured counts as broken: nothing shows that it keeps the constraint.
        """
        found = {}
        for name, bound in self.root.items():
            value = figures(name)
            found[name] = 1.0 if value is None else bound.violation(value, baseline(name))
        return found

    def broken(self, figures: Figures, baseline: Figures) -> tuple[str, ...]:
        """Names of the figures that break their bounds."""
        return tuple(name for name, excess in self.violations(figures, baseline).items() if excess > 0)

    def judge(self, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
        """The same trials; those with figures name the constraints that they break."""
        if not self.root:
            return list(trials)
        baseline = baseline_figures(trials)
        return [
            trial if trial.best is None else replace(trial, broken=self.broken(trial.figure, baseline))
            for trial in trials
        ]


def baseline_figures(trials: Sequence[TrialRecord]) -> Figures:
    """Figures of the baseline; nothing is known of them before it is complete."""
    baseline = baseline_of(trials)
    return (lambda name: None) if baseline is None else baseline.figure
