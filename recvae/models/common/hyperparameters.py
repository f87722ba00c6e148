"""Hyperparameters as dataclass fields that know their meaning, type and range.

A model declares each once, with `hyperparameter(...)`; checking a model, reading `name=value` from a command
line and listing what there is all follow from the declaration.
"""

import dataclasses
import inspect
import itertools
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np

from recvae.errors import UsageError


@dataclass(frozen=True)
class Hyperparameter:
    """What is known of one hyperparameter.

    Parameters
    ----------
    name : str
        Field name, as in `--set name=value`.
    type : type
        int, float, bool, str, or tuple for a list of whole numbers.
    optional : bool
        Whether None is allowed.
    default : object
        The value without further notice.
    meaning : str
        One sentence, with the unit.
    low, high : float, optional
        Range of the value (of each element of a tuple), bounds included.
    choices : tuple of str
        The words allowed, for a str.
    below_high : bool
        Whether `high` itself is excluded.
    only_with : tuple of str
        Name of another hyperparameter and the values of it with which this one has an effect; empty: with all.
    """

    name: str
    type: type
    optional: bool
    default: Any
    meaning: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    below_high: bool = False
    only_with: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        """The type and range in words."""
        words = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
        text = "whole numbers separated by commas" if self.type is tuple else words[self.type]
        if self.choices:
            text = "one of " + ", ".join(self.choices)
        if self.low is not None and self.high is not None:
            end = f"below {_plain(self.high)}" if self.below_high else f"at most {_plain(self.high)}"
            text += f", at least {_plain(self.low)} and {end}"
        elif self.low is not None:
            text += f", {_plain(self.low)} or more"
        return text + (" (or none)" if self.optional else "")

    def allows(self, value: Any) -> bool:
        """Whether a value has the right type and lies in the range."""
        if value is None:
            return self.optional
        if self.type is tuple:
            return isinstance(value, tuple | list) and all(_is_whole(part) and self._in_range(part) for part in value)
        if self.type is int:
            return _is_whole(value) and self._in_range(value)
        if self.type is float:
            is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
            return bool(is_number and abs(value) <= sys.float_info.max and self._in_range(value))
        if self.choices:
            return value in self.choices
        return isinstance(value, self.type)

    def _in_range(self, value: Any) -> bool:
        if self.low is not None and value < self.low:
            return False
        if self.high is None:
            return True
        return value < self.high if self.below_high else value <= self.high

    def parse(self, text: str) -> Any:
        """Read a value from the command line; what cannot be read comes back as it is, for `allows` to refuse."""
        text = text.strip()
        if self.optional and text.lower() in ("none", "null", ""):
            return None
        try:
            if self.type is tuple:
                return tuple(int(part) for part in text.split(",") if part.strip())
            if self.type is bool:
                return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
            return self.type(text)
        except (ValueError, KeyError):
            return text


@dataclass(frozen=True)
class Range:
    """An interval to search for a good value of a hyperparameter.

    Parameters
    ----------
    low, high : float
        Both included; whole numbers are tried for an int.
    log : bool
        Whether factors matter rather than differences, so that as many values are tried from 1 to 10 as from 10 to 100.
    """

    low: float
    high: float
    log: bool = False


Space = Mapping[str, tuple[Any, ...] | Range]
"""What to search, by hyperparameter: some values, or a range of numbers."""


def grid_of(space: Space) -> list[dict[str, Any]]:
    """Return every combination of the values of a space; one empty one where it is empty or holds a range."""
    values = [choices for choices in space.values() if isinstance(choices, tuple)]
    if len(values) < len(space):
        return [{}]
    return [dict(zip(space, point, strict=True)) for point in itertools.product(*values)]


def _plain(number: float) -> str:
    """Write a bound without an exponent."""
    return f"{int(number):,}" if number == int(number) else f"{number:g}"


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def hyperparameter(
    default: Any,
    meaning: str,
    *,
    low: float | None = None,
    high: float | None = None,
    below_high: bool = False,
    choices: tuple[str, ...] = (),
    only_with: tuple[str, ...] = (),
) -> Any:
    """Declare a hyperparameter as a dataclass field; the arguments are those of `Hyperparameter`."""
    bounds = {"low": low, "high": high, "below_high": below_high}
    metadata = {"meaning": meaning, "choices": choices, "only_with": only_with, **bounds}
    return dataclasses.field(default=default, metadata=metadata)


def hyperparameters_of(model: Any) -> dict[str, Hyperparameter]:
    """Return the hyperparameters of a model or model class by name, in the order of declaration."""
    model_class = model if isinstance(model, type) else type(model)
    return _known(model_class, {field.name: (field, field.type) for field in dataclasses.fields(model_class)})


def declared_in(model_class: type) -> dict[str, Hyperparameter]:
    """Return the same also of a class that `dataclass` has not seen yet, with what it inherits."""
    if "__dataclass_fields__" in vars(model_class):
        return hyperparameters_of(model_class)
    found: dict[str, tuple[Any, Any]] = {}
    for base in reversed(model_class.__mro__[1:]):
        found |= {name: (field, field.type) for name, field in getattr(base, "__dataclass_fields__", {}).items()}
    found |= {name: (vars(model_class).get(name), hint) for name, hint in inspect.get_annotations(model_class).items()}
    return _known(model_class, {k: one for k, one in found.items() if isinstance(one[0], dataclasses.Field)})


def _known(model_class: type, fields: Mapping[str, tuple[dataclasses.Field[Any], Any]]) -> dict[str, Hyperparameter]:
    fields = {name: (field, hint) for name, (field, hint) in fields.items() if "meaning" in field.metadata}
    hints = {name: hint for name, (_, hint) in fields.items()}
    if any(isinstance(hint, str) for hint in hints.values()):  # a file of yours, with annotations as text
        hints = typing.get_type_hints(model_class)
    known = {}
    for name, (field, _) in fields.items():
        hint = hints[name]
        arguments = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        plain = next(argument for argument in arguments if argument is not type(None))
        known[name] = Hyperparameter(
            name=name,
            type=typing.get_origin(plain) or plain,
            optional=type(None) in arguments,
            default=field.default,
            **field.metadata,
        )
    return known


def values_of(model: Any) -> dict[str, Any]:
    """Return the current hyperparameters of a model as a plain dictionary, ready for JSON."""
    values = {name: getattr(model, name) for name in hyperparameters_of(model)}
    return {name: _for_json(value) for name, value in values.items()}


def _for_json(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_for_json(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value


def check_hyperparameters(model: Any, *, effects: bool = True) -> None:
    """Check every hyperparameter of a model against its declaration.

    Parameters
    ----------
    model : Model
        Fitted or not.
    effects : bool
        Whether one that was changed must have an effect; not so for a model that was fitted before.

    Raises
    ------
    UsageError
        For the first one of the wrong type or out of range, or changed where it has no effect, or not with another.
    """
    for name, known in hyperparameters_of(model).items():
        value = getattr(model, name)
        if not known.allows(value):
            raise UsageError(f"got {name}={value!r}, expected {known.expected}; {known.meaning}")
        if effects and value != known.default and not has_effect(known, model):
            other, *wanted = known.only_with
            allowed = [word for word in wanted if hyperparameters_of(model)[other].allows(word)]
            raise UsageError(
                f"got {name}={value!r} with {other}={getattr(model, other)}, where it has no effect; leave it out"
                + (f", or set {other}={' or '.join(allowed)}" if allowed else "")
            )
    model.check_together()


def has_effect(known: Hyperparameter, model: Any) -> bool:
    """Whether a hyperparameter matters, given the other ones of a model."""
    other, *wanted = known.only_with or ("",)
    return not hasattr(model, other) or getattr(model, other) in wanted


def build(model_class: Any, values: dict[str, Any], *, effects: bool = True) -> Any:
    """Make a model from hyperparameters by name, as they come from JSON or from `parse_settings`.

    Parameters
    ----------
    model_class : type
        Of the model.
    values : dict
        By name; what is not there has its default.
    effects : bool
        See `check_hyperparameters`; False reads what earlier versions wrote, see `Model.retired` and `earlier`.

    Raises
    ------
    UsageError
        If a name is unknown, with the list of those there are, or a value is not allowed.
    """
    known = hyperparameters_of(model_class)
    if not effects:
        values = {name: value for name, value in values.items() if name not in model_class.retired}
        values = {name: value for name, value in model_class.earlier.items() if name in known} | values
    for name in values:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            names = ", ".join(known) or "none"
            raise UsageError(f"got unknown hyperparameter '{name}'; {hint}{model_class.__name__} has: {names}")
    cleaned = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    model = model_class(**cleaned)
    check_hyperparameters(model, effects=effects)
    return model


def parse_settings(model_class: type, settings: Sequence[str]) -> dict[str, Any]:
    """Read settings written as "name=value".

    Parameters
    ----------
    model_class : type
        The model they are for.
    settings : sequence of str
        One "name=value" each; a later one wins.

    Returns
    -------
    dict
        Values by name, of the declared type where they could be read as such.

    Raises
    ------
    UsageError
        If one is not of the form name=value.
    """
    known = hyperparameters_of(model_class)
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip()
        if not equals or not name:
            raise UsageError(
                f"got --set {setting!r}, expected name=value, such as --set {next(iter(known), 'name')}=..."
            )
        values[name] = known[name].parse(text) if name in known else text
    return values
