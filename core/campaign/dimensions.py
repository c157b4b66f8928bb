"""How one setting is searched: a range or a choice, and the conditions under which it is drawn at all."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Protocol, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from core.config import Integer, Number, Scalar, Section, parse, shown


def _require_value(value: object) -> object:
    if not isinstance(value, Scalar) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError("a word, a finite number, true or false is needed")
    return value


def _require_pair(bounds: object) -> object:
    if not isinstance(bounds, list | tuple) or len(bounds) != 2:
        raise ValueError("two bounds are needed, like [1, 10]")
    return bounds


def _require_different(values: list[Scalar]) -> list[Scalar]:
    """1, 1.0 and true are equal to Optuna."""
    for number, value in enumerate(values):
        if value in values[:number]:
            raise ValueError(f"{shown(value)} is there twice")
    return values


Value = Annotated[Scalar, BeforeValidator(_require_value)]
Values = Annotated[list[Value], AfterValidator(_require_different)]
NumberPair = Annotated[tuple[Number, Number], BeforeValidator(_require_pair)]
IntegerPair = Annotated[tuple[Integer, Integer], BeforeValidator(_require_pair)]


class Suggests(Protocol):
    """Draws values by name, as an Optuna trial does."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...

    def suggest_int(self, name: str, low: int, high: int) -> int: ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


class Condition(Section):
    """What another setting's value must fulfil; all of the given bounds."""

    min: Number | None = None
    """At least this."""
    max: Number | None = None
    """At most this."""
    one_of: Annotated[Values, Field(min_length=1)] | None = Field(default=None, alias="in")
    """One of these."""

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if self.min is None and self.max is None and self.one_of is None:
            raise ValueError("a condition needs min, max or in")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self

    def holds(self, value: Scalar) -> bool:
        if self.one_of is not None and value not in self.one_of:
            return False
        if self.min is not None and float(value) < self.min:
            return False
        return self.max is None or float(value) <= self.max


def _parse_conditions(when: object) -> object:
    if not isinstance(when, dict):
        return when
    return {other: parse(Condition, content, where=f"when {other}") for other, content in when.items()}


class _Dimension(Section):
    when: Annotated[dict[str, Condition], BeforeValidator(_parse_conditions)] = {}
    """Other settings on which it depends."""


class _Range(_Dimension):
    off: bool = False
    """Adds a switch that sets 0."""

    @property
    def bounds(self) -> tuple[float, float]:
        raise NotImplementedError

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        low, high = self.bounds
        if not low < high:
            raise ValueError(f"the lower bound {low} is not below the upper bound {high}")
        return self

    def corners(self) -> list[Scalar]:
        return [*self.bounds, *([0] if self.off else [])]

    def contains(self, value: Scalar) -> bool:
        low, high = self.bounds
        return low <= float(value) <= high or (self.off and value == 0)

    def can_meet(self, condition: Condition) -> bool:
        """Whether a value that it may draw fulfils a condition."""
        if condition.one_of is not None:
            return any(self.contains(value) and condition.holds(value) for value in condition.one_of)
        low, high = self.bounds
        inside = (condition.min is None or condition.min <= high) and (condition.max is None or low <= condition.max)
        return inside or (self.off and condition.holds(0))


class LogUniform(_Range):
    """`{log: [low, high]}`: uniform in the logarithm."""

    log: NumberPair

    @property
    def bounds(self) -> tuple[float, float]:
        return self.log

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if self.log[0] <= 0:
            raise ValueError(f"a logarithmic range must be above 0, not {self.log[0]}")
        return self

    def draw(self, trial: Suggests, name: str) -> Scalar:
        return float(trial.suggest_float(name, *self.log, log=True))


class Uniform(_Range):
    """`{uniform: [low, high]}`."""

    uniform: NumberPair

    @property
    def bounds(self) -> tuple[float, float]:
        return self.uniform

    def draw(self, trial: Suggests, name: str) -> Scalar:
        return float(trial.suggest_float(name, *self.uniform))


class IntRange(_Range):
    """`{int: [low, high]}`, both included."""

    int_: IntegerPair = Field(alias="int")

    @property
    def bounds(self) -> tuple[int, int]:
        return self.int_

    def draw(self, trial: Suggests, name: str) -> Scalar:
        return int(trial.suggest_int(name, *self.int_))


class Choice(_Dimension):
    """`{choice: [a, b, c]}`."""

    choice: Annotated[Values, Field(min_length=2, max_length=100)]

    def draw(self, trial: Suggests, name: str) -> Scalar:
        return trial.suggest_categorical(name, self.choice)  # type: ignore[no-any-return]

    def corners(self) -> list[Scalar]:
        return list(self.choice)

    def contains(self, value: Scalar) -> bool:
        return value in self.choice

    def can_meet(self, condition: Condition) -> bool:
        """Whether a value that it may draw fulfils a condition."""
        return any(condition.holds(value) for value in self.choice)


Dimension = LogUniform | Uniform | IntRange | Choice
KINDS: dict[str, type[Dimension]] = {"log": LogUniform, "uniform": Uniform, "int": IntRange, "choice": Choice}


def is_number(value: Scalar) -> bool:
    """True and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
