"""The search space: what a campaign file says about each searched setting, and how a trial draws from it.

Every key is a dotted path into TrainConfig. A numeric setting may have a switch (`off: true`) that sets it to 0, and
a setting may depend on another one (`when`), in which case it is only drawn where the condition holds.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

import optuna
from pydantic import Field, RootModel, model_validator

from core.config import Integer, Number, Scalar, Section, TrainConfig, dotted_keys, parse, unknown_key
from core.errors import UserError

SWITCH = ".on"
NOT_SEARCHED = {
    "data": "all trials must see the same data",
    "seed": "the best seed is luck, not a setting",
    "evaluation": "it does not change training",
    "features.backbone": "a campaign compares adapters on one backbone",
    "features.store": "it is a place, not a setting",
    "features.device": "it is a place, not a setting",
    "features.micro_batch": "it changes memory, not results",
    "features.allow_degenerate": "it is a permission, not a setting",
    "features.source": "it changes time, not results",
}
CORNERS_AT_MOST = 4096


class Condition(Section):
    """What another setting's value must fulfil; all of the given bounds."""

    min: Number | None = None
    """At least this."""
    max: Number | None = None
    """At most this."""
    one_of: list[Scalar] | None = Field(default=None, alias="in")
    """One of these."""

    def holds(self, value: Scalar) -> bool:
        if self.one_of is not None and value not in self.one_of:
            return False
        if self.min is not None and float(value) < self.min:
            return False
        return self.max is None or float(value) <= self.max


class _Dimension(Section):
    when: dict[str, Condition] = {}
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


class LogUniform(_Range):
    """`{log: [low, high]}`: uniform in the logarithm."""

    log: tuple[Number, Number]

    @property
    def bounds(self) -> tuple[float, float]:
        return self.log

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if self.log[0] <= 0:
            raise ValueError(f"a logarithmic range must be above 0, not {self.log[0]}")
        return self

    def draw(self, trial: optuna.Trial, name: str) -> Scalar:
        return float(trial.suggest_float(name, *self.log, log=True))


class Uniform(_Range):
    """`{uniform: [low, high]}`."""

    uniform: tuple[Number, Number]

    @property
    def bounds(self) -> tuple[float, float]:
        return self.uniform

    def draw(self, trial: optuna.Trial, name: str) -> Scalar:
        return float(trial.suggest_float(name, *self.uniform))


class IntRange(_Range):
    """`{int: [low, high]}`, both included."""

    int_: tuple[Integer, Integer] = Field(alias="int")

    @property
    def bounds(self) -> tuple[int, int]:
        return self.int_

    def draw(self, trial: optuna.Trial, name: str) -> Scalar:
        return int(trial.suggest_int(name, *self.int_))


class Choice(_Dimension):
    """`{choice: [a, b, c]}`."""

    choice: Annotated[list[Scalar], Field(min_length=2)]

    def draw(self, trial: optuna.Trial, name: str) -> Scalar:
        return trial.suggest_categorical(name, self.choice)  # type: ignore[no-any-return]

    def corners(self) -> list[Scalar]:
        return list(self.choice)

    def contains(self, value: Scalar) -> bool:
        return value in self.choice


Dimension = LogUniform | Uniform | IntRange | Choice
KINDS: dict[str, type[Dimension]] = {"log": LogUniform, "uniform": Uniform, "int": IntRange, "choice": Choice}


class Space(RootModel[dict[str, Any]]):
    """The searched settings of a campaign, in the order in which they are drawn."""

    _dimensions: dict[str, Dimension]

    @model_validator(mode="after")
    def _parse(self) -> Self:
        parsed = {key: _parse_dimension(key, content) for key, content in self.root.items()}
        self._dimensions = _in_drawing_order(parsed)
        return self

    @property
    def dimensions(self) -> dict[str, Dimension]:
        """Dotted path → dimension; one comes after those it depends on."""
        return self._dimensions

    def check(self, base: TrainConfig) -> None:
        """Make sure before anything starts that no trial can be an invalid configuration.

        Raises:
            UserError: a key is no setting or may not be searched, the baseline lies outside of the space, or a
                corner of the space is not a valid configuration.
        """
        settings = set(dotted_keys(TrainConfig))
        for key in [*self.dimensions, *(other for d in self.dimensions.values() for other in d.when)]:
            if key not in settings:
                raise UserError(unknown_key(key, TrainConfig), where="space")
        for key, dimension in self.dimensions.items():
            for frozen, reason in NOT_SEARCHED.items():
                if key == frozen or key.startswith(f"{frozen}."):
                    raise UserError(f"{key} is not to be searched: {reason}", where="space")
            value = setting(base, key)
            if self._is_drawn(key, base, {}) and not dimension.contains(value):
                raise UserError(f"{key}: the baseline's value {value} lies outside of the space", where="space")
        for overrides in self._corners():
            try:
                base.with_overrides(overrides)
            except UserError as error:
                raise UserError(f"has an invalid corner {overrides}: {error}", where="space") from None

    def suggest(self, trial: optuna.Trial, base: TrainConfig) -> dict[str, Scalar]:
        """Draw the settings whose conditions hold; a switched-off one is 0.

        Args:
            base: holds the values that conditions on settings outside of the space look at.
        Returns:
            Overrides of `base`.
        """
        overrides: dict[str, Scalar] = {}
        for key, dimension in self.dimensions.items():
            if not self._is_drawn(key, base, overrides):
                continue
            if getattr(dimension, "off", False) and not trial.suggest_categorical(key + SWITCH, [True, False]):
                overrides[key] = 0
            else:
                overrides[key] = dimension.draw(trial, key)
        return overrides

    def baseline(self, base: TrainConfig) -> dict[str, Scalar]:
        """The parameters that make a trial exactly the baseline."""
        parameters: dict[str, Scalar] = {}
        for key, dimension in self.dimensions.items():
            if not self._is_drawn(key, base, {}):
                continue
            value = setting(base, key)
            switched = getattr(dimension, "off", False)
            if switched:
                parameters[key + SWITCH] = value != 0
            if not (switched and value == 0):
                parameters[key] = value
        return parameters

    def _is_drawn(self, key: str, base: TrainConfig, overrides: Mapping[str, Scalar]) -> bool:
        return all(
            condition.holds(overrides.get(other, setting(base, other)))
            for other, condition in self.dimensions[key].when.items()
        )

    def _corners(self) -> Iterator[dict[str, Scalar]]:
        """All combinations of extremes where they are few; else each extreme alone, and in pairs."""
        corners = {key: dimension.corners() for key, dimension in self.dimensions.items()}
        total = 1
        for values in corners.values():
            total *= len(values)
        if total <= CORNERS_AT_MOST:
            yield from (dict(zip(corners, values, strict=True)) for values in itertools.product(*corners.values()))
            return
        for (a, a_values), (b, b_values) in itertools.combinations(corners.items(), 2):
            yield from ({a: x, b: y} for x, y in itertools.product(a_values, b_values))


def setting(config: TrainConfig, path: str) -> Scalar:
    """The value of a dotted path."""
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value  # type: ignore[no-any-return]


def _parse_dimension(key: str, content: Any) -> Dimension:
    kinds = [kind for kind in KINDS if isinstance(content, dict) and kind in content]
    if len(kinds) != 1:
        raise ValueError(f"{key} needs exactly one of log, uniform, int and choice")
    try:
        return parse(KINDS[kinds[0]], content, where=key)
    except UserError as error:
        raise ValueError(str(error)) from None


def _in_drawing_order(dimensions: dict[str, Dimension]) -> dict[str, Dimension]:
    ordered: dict[str, Dimension] = {}
    waiting = dict(dimensions)
    while waiting:
        ready = [key for key, d in waiting.items() if not any(other in waiting for other in d.when)]
        if not ready:
            raise ValueError(f"the conditions of {' and '.join(waiting)} depend on each other")
        ordered[ready[0]] = waiting.pop(ready[0])
    return ordered
