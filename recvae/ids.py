"""The form of an id, the same for files, tables, Python and HTTP: 12, "12", 12.0 and " 12" are one id, "007" is a word.

Importing this takes the standard library alone.
"""

import math
import re
from decimal import Decimal
from numbers import Integral, Real

BLANKS = "".join(map(chr, (*range(9, 14), *range(28, 33), 0x85, 0xA0, 0x1680, *range(0x2000, 0x200C)))) + (
    "\u2028\u2029\u202f\u205f\u3000\ufeff"
)
"""What is stripped from both ends of an id: every kind of space, and the invisible marks that programs leave."""

MARKERS = frozenset(
    [
        *("NULL", "Null", "null", "(null)", "[NULL]", "<null>", "None", "none", "nil", "undefined"),
        *("NaN", "nan", "NAN", "-nan", "NaT", "<NA>", "#N/A", "N/A", "n/a", "\\N", "#NULL!"),
    ]
)
"""Words that programs write where an id is missing. The empty text is one too."""

MARKERS_AMONG_INTEGERS = frozenset(["NA", "na", "-", "--", "?", ".", "*", "missing", "unknown"])
"""Words that mean a missing id only in a column whose other ids are integers; elsewhere they may be ids."""

REMARKS = ("#", "%", "//")
"""How a line begins that is a remark, and no id, in a column whose other ids are integers."""

MOST_EXACT = 2**53
"""Up to here a float64 can hold every integer; beyond, two ids may have become one."""

_EXACT = {"bfloat16": 2**8, "float16": 2**11, "halffloat": 2**11, "float32": 2**24, "float": 2**24, "f": 2**24}
"""Up to where shorter floats hold every integer, by what numpy, pandas, polars, PyTorch, Arrow and Python call them."""

_WHOLE = re.compile(r"-?\d+\.0*")


def most_exact(given: object) -> int:
    """Return up to where the type of an array or a column holds every integer; of other things, what a float does."""
    kind = next((getattr(given, name) for name in ("dtype", "type", "typecode") if hasattr(given, name)), None)
    return _EXACT.get(str(kind).lower().removeprefix("torch.").removesuffix("[pyarrow]"), MOST_EXACT)


def plain_id(value: object) -> str:
    """Return the text by which an id is known, however a caller has written it.

    Parameters
    ----------
    value : object
        An integer, a text, a whole float or decimal, a UUID, or anything else.

    Returns
    -------
    str
        Without blanks around it; a whole number without a decimal point.

    Examples
    --------
    >>> [plain_id(one) for one in (12, " 12", 12.0, "007", "a b ")]
    ['12', '12', '12', '007', 'a b']
    """
    if isinstance(value, str):
        return value.strip(BLANKS)
    if isinstance(value, Integral):
        return str(value if isinstance(value, bool) else int(value))
    if isinstance(value, Decimal):
        return str(int(value)) if value.is_finite() and value == value.to_integral_value() else str(value)
    if isinstance(value, Real):
        number = float(value)
        return str(int(number)) if math.isfinite(number) and number.is_integer() else str(value)
    return str(value).strip(BLANKS)


def spellings(value: object) -> list[str]:
    """Return the texts under which an id may be known, the likeliest first: as written, then as a whole number.

    Examples
    --------
    >>> spellings("12.0"), spellings(12)
    (['12.0', '12'], ['12', '12.0'])
    """
    plain = plain_id(value)
    if _WHOLE.fullmatch(plain):  # data frames make floats of integers where one is missing, and files texts of floats
        whole = str(int(plain.partition(".")[0]))
        return [plain, whole]
    try:
        is_integer = str(int(plain)) == plain
    except ValueError:
        is_integer = False
    return [plain, f"{plain}.0"] if is_integer else [plain]
