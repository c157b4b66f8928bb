"""How a setting is searched: a range or a choice, and the conditions under which it is drawn."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Protocol, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from core.sections import Integer, Number, Scalar, Section, parse, shown


def _require_value(value: object) -> object:
    if not isinstance(value, Scalar) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError("must be a string, a finite number, true or false")
    return value


def _require_pair(bounds: object) -> object:
    if not isinstance(bounds, list | tuple) or len(bounds) != 2:
        raise ValueError("must be two bounds, like [1, 10]")
    return bounds


def _require_different(values: list[Scalar]) -> list[Scalar]:
    """Refuse repeated values; 1, 1.0 and true are equal to Optuna."""
    for number, value in enumerate(values):
        if value in values[:number]:
            raise ValueError(f"{shown(value)} is given twice")
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
    """Condition on the value of another setting; everything given must hold."""

    min: Number | None = None
    """Minimum, included."""
    max: Number | None = None
    """Maximum, included."""
    one_of: Annotated[Values, Field(min_length=1)] | None = Field(default=None, alias="in")
    """Allowed values."""

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if self.min is None and self.max is None and self.one_of is None:
            raise ValueError("a condition needs min, max or in")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self

    def holds(self, value: Scalar) -> bool:
        """Whether a value fulfils the condition; it must be a number if there is a bound."""
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
    """Condition on each setting that this one depends on."""


class _Range(_Dimension):
    off: bool = False
    """Also search whether the setting is 0."""

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest value, both included."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        low, high = self.bounds
        if not low < high:
            raise ValueError(f"the lower bound {low} is not below the upper bound {high}")
        return self

    def corners(self) -> list[Scalar]:
        """The extreme values: both bounds, and 0 if it can be switched off."""
        return [*self.bounds, *([0] if self.off else [])]

    def contains(self, value: Scalar) -> bool:
        """Whether the setting may be drawn with this value."""
        low, high = self.bounds
        return low <= float(value) <= high or (self.off and value == 0)

    def can_meet(self, condition: Condition) -> bool:
        """Whether a value that may be drawn fulfils a condition on this setting."""
        if condition.one_of is not None:
            return any(self.contains(value) and condition.holds(value) for value in condition.one_of)
        low, high = self.bounds
        inside = (condition.min is None or condition.min <= high) and (condition.max is None or low <= condition.max)
        return inside or (self.off and condition.holds(0))


class LogUniform(_Range):
    """`{log: [low, high]}`: uniform in the logarithm, both bounds above 0."""

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
        """Draw a value, without regard to `off`."""
        return float(trial.suggest_float(name, *self.log, log=True))


class Uniform(_Range):
    """`{uniform: [low, high]}`: uniform real numbers."""

    uniform: NumberPair

    @property
    def bounds(self) -> tuple[float, float]:
        return self.uniform

    def draw(self, trial: Suggests, name: str) -> Scalar:
        """Draw a value, without regard to `off`."""
        return float(trial.suggest_float(name, *self.uniform))


class IntRange(_Range):
    """`{int: [low, high]}`: uniform whole numbers, both bounds included."""

    int_: IntegerPair = Field(alias="int")

    @property
    def bounds(self) -> tuple[int, int]:
        return self.int_

    def draw(self, trial: Suggests, name: str) -> Scalar:
        """Draw a value, without regard to `off`."""
        return int(trial.suggest_int(name, *self.int_))


class Choice(_Dimension):
    """`{choice: [a, b, c]}`: one of up to 100 values, in no order; a single one needs a condition."""

    choice: Annotated[Values, Field(min_length=1, max_length=100)]

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if len(self.choice) == 1 and not self.when:
            raise ValueError("a choice of one value needs a when; without one, set it in the training configuration")
        return self

    def draw(self, trial: Suggests, name: str) -> Scalar:
        """Draw one of the values."""
        return trial.suggest_categorical(name, self.choice)  # type: ignore[no-any-return]

    def corners(self) -> list[Scalar]:
        """All values, since they have no order."""
        return list(self.choice)

    def contains(self, value: Scalar) -> bool:
        """Whether the setting may be drawn with this value."""
        return value in self.choice

    def can_meet(self, condition: Condition) -> bool:
        """Whether a value that may be drawn fulfils a condition on this setting."""
        return any(condition.holds(value) for value in self.choice)


Dimension = LogUniform | Uniform | IntRange | Choice
KINDS: dict[str, type[Dimension]] = {"log": LogUniform, "uniform": Uniform, "int": IntRange, "choice": Choice}


def is_number(value: Scalar) -> bool:
    """Whether a value is a number; booleans are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)
