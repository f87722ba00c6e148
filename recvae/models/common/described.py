"""How a model describes itself: hyperparameters in its docstring, one line at a prompt, a table in a notebook."""

import dataclasses
import inspect
import re
from typing import Any, ClassVar

from recvae.display import html_table, plural
from recvae.models.common.fitted_on import FittedOn
from recvae.models.common.hyperparameters import Hyperparameter, declared_in

_SECTION = re.compile(r"^[A-Z][\w ]*\n-{3,}$", flags=re.MULTILINE)
_TYPES = {int: "int", float: "float", bool: "bool", str: "str", tuple: "tuple of int"}


class Described:
    """The part of a model that people see; docstrings of subclasses get their hyperparameters by themselves."""

    name: ClassVar[str]
    n_items_: int
    fitted_on_: FittedOn | None

    def __init_subclass__(cls, **options: Any) -> None:
        """Complete the docstring of a model class, and keep `dataclass` from writing another `__repr__`."""
        super().__init_subclass__(**options)
        cls.__repr__ = cls.__repr__  # that of this class, or of a model of your own between the two
        cls.__doc__ = documented(cls, cls.__dict__.get("__doc__"))

    def __repr__(self) -> str:
        """Return the model in one line: what differs from its defaults, and whether it is fitted."""
        changed = ", ".join(f"{name}={value!r}" for name, value in _changed(self).items())
        return f"<{type(self).__name__}({changed}), {self._state()}>"

    def _repr_html_(self) -> str:
        known = [field.name for field in dataclasses.fields(self) if "meaning" in field.metadata]  # type: ignore[arg-type]
        changed, meanings = _changed(self), _meanings(type(self))
        rows = [(name, repr(value), meanings.get(name, "")) for name, value in changed.items()]
        rest = plural(len(known) - len(changed), "hyperparameter")
        remarks = [f"{rest} with defaults; help({type(self).__name__}) lists all"] if len(known) > len(changed) else []
        headers = ["hyperparameter", "value", "meaning"] if rows else []
        return html_table(f"{type(self).__name__}, {self._state()}", headers, rows, remarks)

    def _state(self) -> str:
        if not self.n_items_:
            return "not fitted"
        data = f" of {self.fitted_on_.name}" if self.fitted_on_ else ""
        return f"fitted on {plural(self.n_items_, 'item')}{data}"


def _changed(model: Any) -> dict[str, Any]:
    """Return the hyperparameters of a model that have not their defaults."""
    fields = [field for field in dataclasses.fields(model) if "meaning" in field.metadata]
    values = {field.name: (getattr(model, field.name), field.default) for field in fields}
    return {name: value for name, (value, default) in values.items() if repr(value) != repr(default)}


def _meanings(model_class: Any) -> dict[str, str]:
    return {field.name: field.metadata.get("meaning", "") for field in dataclasses.fields(model_class)}


def documented(model_class: Any, text: str | None) -> str:
    """Return the docstring of a model with its hyperparameters as numpydoc has parameters.

    Parameters
    ----------
    model_class : type of Model
        As `dataclass` is given it, or after that.
    text : str or None
        The docstring as it was written; one that lists parameters itself stays as it is.

    Returns
    -------
    str
        The parameters come before the first section, such as the examples.
    """
    plain = inspect.cleandoc(text or f"{model_class.__name__}, from {getattr(model_class, 'paper', 'no paper')}.")
    try:
        known = list(declared_in(model_class).values())
    except (AttributeError, KeyError, NameError, StopIteration, TypeError):  # of your own model, which `fit` refuses
        return plain
    if not known or re.search(r"^Parameters\n-{3,}$", plain, flags=re.MULTILINE):
        return plain
    section = "\n".join(["Parameters", "----------", *map(_described, known)])
    first = _SECTION.search(plain)
    before, after = (plain, "") if first is None else (plain[: first.start()].rstrip(), plain[first.start() :])
    return "\n\n".join(part for part in (before, section, after) if part)


def _described(known: Hyperparameter) -> str:
    """Return an entry of the section: type, default, meaning, range."""
    kind = "{" + ", ".join(f'"{word}"' for word in known.choices) + "}" if known.choices else _TYPES[known.type]
    kind += " or None" if known.optional else ""
    allowed = known.expected.replace(" separated by commas", "").removesuffix(" (or none)")
    meaning = known.meaning.rstrip(".")
    lines = [f"{known.name} : {kind}, default {known.default!r}", f"    {meaning[:1].upper()}{meaning[1:]}."]
    if not known.choices:
        lines.append(f"    {allowed[:1].upper()}{allowed[1:]}.")
    if known.only_with:
        other, *wanted = known.only_with
        lines.append(f"    Only with {other} = {' or '.join(wanted)}.")
    return "\n".join(lines)
