"""What the texts of a column of items' features mean: numbers, arrays, or words."""

import ast
import json
import re
from collections.abc import Collection
from typing import Any

from recvae.errors import DataError
from recvae.ids import MARKERS, MARKERS_AMONG_INTEGERS

BETWEEN = "|"
"""What stands between the words of a text that lists several, as MovieLens writes genres."""

NO_WORDS = frozenset(["", "(no genres listed)", *MARKERS])
"""Texts that mean that there is no word; MovieLens has one of its own."""

NO_NUMBER = NO_WORDS | MARKERS_AMONG_INTEGERS
"""Texts that mean that there is no number."""

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf(inity)?", re.IGNORECASE)
_CODE = re.compile(r"[+-]?0[0-9]+")  # "007" is a word, as among ids
_WITH_COMMA, _THOUSANDS = re.compile(r"[+-]?[0-9]+,[0-9]+"), re.compile(r"[+-]?[0-9]{1,3}(,[0-9]{3})+")
_TRUTH = {"true": 1.0, "false": 0.0}


def is_number(text: str) -> bool:
    """Whether a text is a number with a decimal point, or infinite."""
    return bool(_NUMBER.fullmatch(text))


def numbers_in(found: Collection[str], where: str, is_sure: bool = False) -> dict[str, float] | None:
    """Return the number that each of the texts of a column means; None if they are not all numbers.

    Parameters
    ----------
    found : collection of str
        The distinct texts, without those that mean that there is none.
    where : str
        How messages call the column.
    is_sure : bool
        Whether the column is known to hold numbers: "007" is then 7, and not a code.

    Returns
    -------
    dict of str to float
        With a decimal point or a decimal comma; "true" is 1, "false" is 0.

    Raises
    ------
    DataError
        If a comma could stand before decimals or between thousands.
    """
    if found and all(text.lower() in _TRUTH for text in found):
        return {text: _TRUTH[text.lower()] for text in found}
    wrong = [text for text in found if not is_number(text)]
    if not wrong:
        return {text: float(text) for text in found} if is_sure or not any(map(_CODE.fullmatch, found)) else None
    if any("." in text for text in found):
        return None
    if all(map(_THOUSANDS.fullmatch, wrong)):
        raise DataError(
            f"{where} holds {min(wrong)!r}, which could be a decimal comma or a thousands separator; write the numbers "
            "without it"
        )
    return {text: float(text.replace(",", ".")) for text in found} if all(map(_WITH_COMMA.fullmatch, wrong)) else None


def are_objects(texts: Collection[str]) -> bool:
    """Whether most texts look like JSON objects."""
    return 2 * sum(text.startswith("{") and text.endswith("}") for text in texts) > len(texts)


def are_arrays(texts: Collection[str]) -> bool:
    """Whether most texts look like arrays; the others are then mistakes."""
    return 2 * sum(text.startswith("[") and text.endswith("]") for text in texts) > len(texts)


def array_of(text: str, split: bool = False) -> list[Any] | None:
    """Return a JSON array, or a list as Python writes it; None if it is neither, or holds more than texts and numbers.

    Parameters
    ----------
    text : str
        What stands in a cell.
    split : bool
        Whether it may also be numbers with blanks between them.
    """
    if split and text and not text.startswith("["):
        numbers = text.split()
        return [float(number) for number in numbers] if all(map(is_number, numbers)) else None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        try:
            found = ast.literal_eval(text)  # it reads values, and runs nothing
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return None
    if not isinstance(found, list | tuple) or any(not isinstance(one, str | int | float | None) for one in found):
        return None
    return list(found)
