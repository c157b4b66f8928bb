"""What a campaign optimises: one figure or several, and the trials that no other one beats in all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import BeforeValidator

from core.campaign.constraints import CONSTRAINED
from core.campaign.trials import TrialRecord
from core.sections import Section


class Goal(Section):
    """A figure of a trial to maximise or to minimise."""

    figure: str
    direction: Literal["max", "min"]

    def at_least_as_good(self, value: float, other: float) -> bool:
        """Whether a value is as good as another one, or better."""
        return value >= other if self.direction == "max" else value <= other


def _read_goal(content: object) -> object:
    """`recall_mean`, which is maximised, or `{box_iou: max}`."""
    if isinstance(content, str):
        figure, direction = content, "max"
    elif isinstance(content, Mapping) and len(content) == 1:
        ((figure, direction),) = content.items()
    elif isinstance(content, Goal) or (isinstance(content, Mapping) and set(content) == {"figure", "direction"}):
        return content
    else:
        raise ValueError("must be a figure, or like box_iou: max")
    if figure not in CONSTRAINED:
        raise ValueError(f"{figure} is not a figure of a trial; choose from {', '.join(CONSTRAINED)}")
    return {"figure": figure, "direction": direction}


Goals = tuple[Annotated[Goal, BeforeValidator(_read_goal)], ...]


def mark_front(trials: Sequence[TrialRecord], goals: Goals) -> list[TrialRecord]:
    """The same trials; with several goals, those that no other trial beats are marked.

    Only complete trials that keep the constraints take part. One beats another if it is at least as good in every goal
    and better in one.
    """
    if len(goals) < 2:
        return list(trials)
    values = {trial.number: values for trial in trials if (values := _values(trial, goals)) is not None}
    beaten = {
        number
        for number, mine in values.items()
        for other in values.values()
        if other != mine and all(goal.at_least_as_good(*pair) for goal, *pair in zip(goals, other, mine, strict=True))
    }
    return [replace(trial, on_front=trial.number in values.keys() - beaten) for trial in trials]


def _values(trial: TrialRecord, goals: Goals) -> list[float] | None:
    if trial.state != "complete" or trial.broken:
        return None
    found = [trial.figure(goal.figure) for goal in goals]
    return None if None in found else [value for value in found if value is not None]
