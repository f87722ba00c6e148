"""Where to look for good hyperparameters: a model's space without what is fixed, its points, their names.

A point gives a value to each hyperparameter that is searched. Everything else of a model stays as it is fixed.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recvae.errors import UsageError
from recvae.models import MODELS
from recvae.models.common.base import Model
from recvae.models.common.hyperparameters import Range, build, has_effect, hyperparameters_of, values_of

_DIGITS = 3  # of a number drawn from a range: enough for any hyperparameter, and short to type
_LISTED = 10_000  # points; a space with more is never searched to its end

Point = dict[str, Any]


@dataclass(frozen=True)
class Search:
    """What is searched, and what is not.

    Parameters
    ----------
    model_class : type of Model
        Whose hyperparameters.
    fixed : dict
        Values that are the same at every point; those of the space are not searched.

    Raises
    ------
    UsageError
        If the model has no space, nothing of it is left to search, or a fixed value is unknown or not allowed.
    """

    model_class: type[Model]
    fixed: Mapping[str, Any]

    def __post_init__(self) -> None:
        build(self.model_class, dict(self.fixed))
        if not self.model_class.space:
            others = ", ".join(name for name, model in MODELS.items() if model.space) or "none"
            raise UsageError(
                f"{self.model_class.name} has nothing to tune: it states no search space; models that do: {others}"
            )
        if not self.space:
            raise UsageError(
                f"got a fixed value for each of {', '.join(self.model_class.space)}, so nothing is left to tune; "
                "fix fewer, or use `recvae train`"
            )

    @property
    def space(self) -> dict[str, tuple[Any, ...] | Range]:
        """What is searched, by hyperparameter: the part of the model's space that is not fixed and has an effect."""
        model, known = self.model_class(**self.fixed), hyperparameters_of(self.model_class)
        searched = [name for name in self.model_class.space if name not in self.fixed]
        return {name: self._domain(name) for name in searched if has_effect(known[name], model)}

    def _domain(self, name: str) -> tuple[Any, ...] | Range:
        """Return where a hyperparameter is searched, without values that do not go with what is fixed."""
        domain = self.model_class.space[name]
        if isinstance(domain, Range):
            return domain
        return tuple(value for value in domain if self._goes_with_fixed(name, value)) or domain

    def _goes_with_fixed(self, name: str, value: Any) -> bool:
        try:
            self.model_class(**{**self.fixed, name: value}).check_together()
        except UsageError:
            return False
        return True

    def build(self, point: Mapping[str, Any]) -> Model:
        """Return the model of a point, not fitted."""
        return build(self.model_class, {**self.fixed, **point})

    def default(self) -> Point | None:
        """Return the point of the model's defaults, None where one of them is outside the space."""
        model = self.model_class()
        point = {name: getattr(model, name) for name in self.space}
        for name, domain in self.space.items():
            if isinstance(domain, Range):
                inside = point[name] is not None and domain.low <= point[name] <= domain.high
            else:
                inside = point[name] in domain
            if not inside:
                return None
        return point

    def is_whole(self, name: str) -> bool:
        """Whether a hyperparameter takes whole numbers only."""
        return hyperparameters_of(self.model_class)[name].type is int

    def rounded(self, point: Mapping[str, Any]) -> Point:
        """Return a point whose numbers have few digits and lie in their ranges, so that a person can type them."""
        return {name: self._rounded(name, value) for name, value in point.items()}

    def _rounded(self, name: str, value: Any) -> Any:
        domain = self.space[name]
        if not isinstance(domain, Range) or self.is_whole(name):
            return value
        return min(max(float(f"{value:.{_DIGITS}g}"), float(domain.low)), float(domain.high))

    def points(self) -> list[Point] | None:
        """Return every point of the space, None where they are too many to list."""
        values: list[tuple[Any, ...] | range] = []
        for name, domain in self.space.items():
            if not isinstance(domain, Range):
                values.append(domain)
            elif self.is_whole(name):
                values.append(range(int(domain.low), int(domain.high) + 1))
            else:
                return None
        if math.prod(map(len, values)) > _LISTED:
            return None
        return [dict(zip(self.space, point, strict=True)) for point in itertools.product(*values)]

    def describe(self) -> dict[str, str]:
        """Say of each hyperparameter of the model what it is at every point, or where it is searched."""
        model = self.build({})
        texts = {name: setting_text(getattr(model, name)) for name in hyperparameters_of(model)}
        for name, domain in self.space.items():
            if isinstance(domain, Range):
                texts[name] = f"searched from {domain.low:g} to {domain.high:g}{' by factors' if domain.log else ''}"
            else:
                texts[name] = f"searched in {' / '.join(setting_text(value) or '(none)' for value in domain)}"
        return texts


def setting_text(value: Any) -> str:
    """Write a value as `--set name=value` takes it, in full precision."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return repr(float(value)) if isinstance(value, float) else str(value)


def settings_text(settings: Mapping[str, Any]) -> str:
    """Write several settings for people, in one line."""
    return " ".join(f"{name}={setting_text(value)}" for name, value in settings.items())


def settings_of(model: Model) -> list[str]:
    """Return the settings of a model that differ from the defaults, as "name=value" each, in full precision.

    Parameters
    ----------
    model : Model
        Fitted or not.

    Returns
    -------
    list of str
        Enough for `parse_settings` and `build` to make the same model again.
    """
    defaults = values_of(type(model)())
    return [f"{name}={setting_text(value)}" for name, value in values_of(model).items() if value != defaults[name]]
