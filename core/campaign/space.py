"""The search space: the dimension of each searched setting, and how a trial draws from them.

Every key is a dotted path into TrainConfig. A numeric setting may have a switch (`off: true`) that sets it to 0, and
a setting may depend on others (`when`): it is drawn only if their conditions hold.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import RootModel, model_validator

from core.campaign.dimensions import KINDS, Choice, Condition, Dimension, IntRange, Suggests, is_number
from core.config import TrainConfig, accepts
from core.errors import UserError
from core.sections import Scalar, dotted_keys, parse, shown, unknown_key

SWITCH = ".on"
NOT_SEARCHED = {
    "data": "all trials must see the same data",
    "objective": "all trials must be scored by the same metric",
    "seed": "the best seed is luck, not a setting; repeat a configuration with other seeds by crossmodal train --seed",
    "evaluation": "it does not change training",
    "features.backbone": "a campaign compares adapters on one backbone",
    "features.vectors": "it is a location, not a setting of the model; search features.image and features.text",
    "features.store": "it is a location, not a setting of the model",
    "device": "it says where a trial runs, not what it trains",
    "features.micro_batch": "it changes memory, not results",
    "features.allow_degenerate": "it only permits a reading",
    "features.source": "it changes time, not results",
}
CORNERS_AT_MOST = 4096
"""Maximum number of corners that are all checked."""


class Space(RootModel[dict[str, Any]]):
    """The searched settings of a campaign, in the order in which they are drawn."""

    _dimensions: dict[str, Dimension]

    @model_validator(mode="after")
    def _parse(self) -> Self:
        if not self.root:
            raise ValueError("is empty; add a setting and its range, like loss.itm: {log: [0.1, 10]}")
        parsed = {key: _parse_dimension(key, content) for key, content in self.root.items()}
        self._dimensions = _in_drawing_order(parsed)
        return self

    @property
    def dimensions(self) -> dict[str, Dimension]:
        """Dotted path → dimension; each comes after those it depends on."""
        return self._dimensions

    @property
    def always_drawn(self) -> frozenset[str]:
        """Settings that every trial draws: those without conditions and switch."""
        return frozenset(key for key, each in self.dimensions.items() if not each.when and not getattr(each, "off", 0))

    def check(self, base: TrainConfig) -> None:
        """Check before anything starts that no trial can draw an invalid configuration.

        Args:
            base: the baseline.
        Raises:
            UserError: a setting cannot be searched, a condition never holds, the baseline is outside the space, or a
                corner of the space is not a valid configuration.
        """
        try:
            for key, dimension in self.dimensions.items():
                _require_searchable(key, dimension, setting(base, key))
            self._check_conditions(base)
            for overrides in self._extremes():
                self._check_corner(base, overrides)
            self._check_baseline(base)
            for overrides in self._corners():
                self._check_corner(base, overrides)
        except UserError as error:
            raise UserError(str(error), where="space") from None

    def _check_conditions(self, base: TrainConfig) -> None:
        for key, dimension in self.dimensions.items():
            for other, condition in dimension.when.items():
                value, searched = setting(base, other), self.dimensions.get(other)
                _require_possible(condition, other, value, where=f"{key}: when {other}")
                keeps_value = searched is None or searched.when  # it may have the baseline's value
                if not (searched and searched.can_meet(condition)) and not (keeps_value and condition.holds(value)):
                    raise UserError("never holds", where=f"{key}: when {other}", how="change it, or leave the key out")

    def _check_corner(self, base: TrainConfig, overrides: dict[str, Scalar]) -> None:
        try:
            base.with_overrides(overrides)
        except UserError as error:
            raise UserError(f"has an invalid corner {overrides}: {error.what}") from None

    def _check_baseline(self, base: TrainConfig) -> None:
        for key, dimension in self.dimensions.items():
            value = setting(base, key)
            if self._is_drawn(key, base, {}) and not dimension.contains(value):
                raise UserError(
                    f"{key}: the baseline's value {value} is outside the space", how="extend the space to include it"
                )

    def suggest(self, trial: Suggests, base: TrainConfig) -> dict[str, Scalar]:
        """Draw the settings whose conditions hold; one that is switched off is 0.

        Args:
            base: provides the values of settings that are not drawn, for conditions on them.
        Returns:
            Dotted path → value, to override in `base`.
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
        """The parameters, as Optuna names them, with which a trial is exactly the baseline."""
        parameters: dict[str, Scalar] = {}
        for key, dimension in self.dimensions.items():
            if not self._is_drawn(key, base, {}):
                continue
            value = setting(base, key)
            has_switch = getattr(dimension, "off", False)
            if has_switch:
                parameters[key + SWITCH] = value != 0
            if not (has_switch and value == 0):
                parameters[key] = value
        return parameters

    def value(self, key: str, parameters: Mapping[str, Scalar], base: TrainConfig) -> Scalar:
        """A setting of a trial.

        Args:
            key: dotted path of a setting, searched or not.
            parameters: of the trial, as Optuna names them.
        """
        if parameters.get(key + SWITCH) is False:
            return 0
        return parameters.get(key, setting(base, key))

    def _is_drawn(self, key: str, base: TrainConfig, overrides: Mapping[str, Scalar]) -> bool:
        return all(
            condition.holds(overrides.get(other, setting(base, other)))
            for other, condition in self.dimensions[key].when.items()
        )

    def _extremes(self) -> Iterator[dict[str, Scalar]]:
        """Extreme values of one setting at a time, so that an error names that setting alone."""
        for key, dimension in self.dimensions.items():
            yield from ({key: value} for value in dimension.corners())

    def _corners(self) -> Iterator[dict[str, Scalar]]:
        """All combinations of extreme values, or only those of each pair of settings if there are too many."""
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
    """The value at a dotted path that is a setting."""
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value  # type: ignore[no-any-return]


def _parse_dimension(key: str, content: Any) -> Dimension:
    _require_setting(key, content)
    kinds = [kind for kind in KINDS if isinstance(content, dict) and kind in content]
    if len(kinds) != 1:
        raise ValueError(f"{key} needs exactly one of log, uniform, int and choice, like {{log: [0.1, 10]}}")
    if kinds == ["choice"] and "off" in content:
        raise ValueError(f"{key}: off belongs to a range; put 0 into the choice instead")
    try:
        dimension = parse(KINDS[kinds[0]], content, where=key)
    except UserError as error:
        raise ValueError(str(error)) from None
    if key in dimension.when:
        raise ValueError(f"{key} depends on itself; remove it from its when")
    for other in dimension.when:
        _require_setting(other, None)
    return dimension


def _require_setting(key: str, content: Any) -> None:
    settings = set(dotted_keys(TrainConfig))
    if key in settings:
        return
    nested = [f"{key}.{name}" for name in content if f"{key}.{name}" in settings] if isinstance(content, dict) else []
    if nested:
        raise ValueError(f"{key} is a section; write its settings as dotted keys here: {nested[0]}: …")
    raise ValueError(unknown_key(key, TrainConfig))


def _require_searchable(key: str, dimension: Dimension, value: Scalar) -> None:
    for frozen, reason in NOT_SEARCHED.items():
        if key == frozen or key.startswith(f"{frozen}."):
            raise UserError(f"{key} cannot be searched: {reason}")
    if isinstance(dimension, Choice):
        return
    if not is_number(value):
        raise UserError(f"{key} is not a number, so it has no range", how="write {choice: [a, b]}")
    if key.startswith("features."):
        raise UserError(f"{key} needs other features for every value", how="write {choice: [a, b]}")
    if isinstance(value, int) != isinstance(dimension, IntRange):
        kind, how = ("a whole number", "int") if isinstance(value, int) else ("a real number", "uniform or log")
        raise UserError(f"{key} is {kind}", how=f"write {how} for its range, or a choice")


def _require_possible(condition: Condition, other: str, value: Scalar, *, where: str) -> None:
    """Check that the other setting can fulfil a condition; `value` is that of the baseline."""
    if (condition.min, condition.max) != (None, None) and not is_number(value):
        raise UserError(f"{other} is not a number, so it has no min or max", where=where, how="write {in: [a, b]}")
    for wanted in condition.one_of or []:
        if not accepts(other, wanted):
            raise UserError(f"{other} can never be {shown(wanted)}", where=where, how="correct or remove it")


def _in_drawing_order(dimensions: dict[str, Dimension]) -> dict[str, Dimension]:
    """Sort dimensions so that each comes after those it depends on."""
    ordered: dict[str, Dimension] = {}
    waiting = dict(dimensions)
    while waiting:
        ready = [key for key, d in waiting.items() if not any(other in waiting for other in d.when)]
        if not ready:
            raise ValueError(f"the conditions of {' and '.join(waiting)} depend on each other; remove one of them")
        ordered[ready[0]] = waiting.pop(ready[0])
    return ordered
