"""A column of times in any usual form, as whole seconds since 1970.

The form (numbers, ISO 8601, or a format of your own) is decided from the first values and must fit all of them. The
unit of numbers (seconds to nanoseconds) is decided from the latest of them: no log reaches the year 5138.

Letters in shape comments: E rows.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from recvae.datasets.reading.growing import Growing
from recvae.errors import DataError

NUMBER, NUMBER_WITH_COMMA, ISO, COMPACT = "number", "number with a comma", "ISO 8601", "days such as 20191101"
OWN, DATES = "your format", "dates"
UNSEEN = "not seen"  # there is no time yet from which to tell
NUMBERS = (NUMBER, NUMBER_WITH_COMMA)

UNITS = (
    ("seconds", 1, 1e11),
    ("milliseconds", 10**3, 1e14),
    ("microseconds", 10**6, 1e17),
    ("nanoseconds", 10**9, 9e99),
)
"""Unit of numbers, how many make a second, and the number that is too late for it: the year 5138."""

FIRST_LOGS = 788_918_400  # 1995
_LAST_MOMENT = 4_102_444_800  # 2100
_IS_NUMBER = re.compile(r"[+-]?\d+([.,]\d*)?([eE][+-]?\d+)?")
_IS_DAY = re.compile(r"(19[7-9]\d|20\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
_IS_ISO = re.compile(r"\d{4}[-/]\d{1,2}[-/]\d{1,2}([T ]\d{1,2}:\d\d.*)?")
_SLASHES = re.compile(r"\d{1,2}[./-]\d{1,2}[./-]\d{2,4}.*")


@dataclass(frozen=True, kw_only=True)
class TimeSpan:
    """How the times of a log are written, and the first and the last.

    Parameters
    ----------
    form : str
        "seconds", "milliseconds", ..., "ISO 8601", "days such as 20191101" or "your format".
    first, last : int
        Seconds since 1970.
    """

    form: str
    first: int
    last: int

    def __str__(self) -> str:
        """Return the form and both dates, e.g. "seconds, 2000-04-25 to 2003-02-28"."""
        first, last = (_date(moment) for moment in (self.first, self.last))
        return f"{self.form}, {first} to {last}"


def _date(moment: int) -> str:
    try:
        return datetime.fromtimestamp(moment, UTC).date().isoformat()
    except (OverflowError, ValueError, OSError):
        return f"{moment:,} seconds after 1970"


def form_of(values: Sequence[str], where: str) -> str:
    """Decide how times are written from some of them: as most are.

    Parameters
    ----------
    values : sequence of str
        The first values of the column that are not empty.
    where : str
        How messages call the column.

    Returns
    -------
    str
        `NUMBER`, `NUMBER_WITH_COMMA`, `ISO` or `COMPACT`.

    Raises
    ------
    DataError
        If most are written in another way.
    """
    forms = [_form(value.strip()) for value in values]
    known = {form for form in forms if form is not None}
    if known != {COMPACT}:
        forms = [NUMBER if form == COMPACT else form for form in forms]
    usual = Counter(forms).most_common(1)[0][0]  # where another stands, the line is named when it is read
    if usual == NUMBER:
        if len(values) > 2 and all(map(_is_rounded, values)):
            raise DataError(
                f"{where}: {values[0]!r} is a rounded number: different times have become one; write the times in "
                "full, or leave the column out with --no-time"
            )
        numbers = (value for value, form in zip(values, forms, strict=True) if form == NUMBER)
        return NUMBER_WITH_COMMA if any("," in value for value in numbers) else NUMBER
    if usual is not None:
        return usual
    other = next(value for value in values if _form(value.strip()) is None)
    if _SLASHES.fullmatch(other.strip()):
        mark, year = re.findall("[./-]", other)[0], "%Y" if re.search(r"\d{4}", other.split()[0]) else "%y"
        clock = ("", " %H:%M", " %H:%M:%S")[min(other.count(":"), 2)]
        forms = [f"'{mark.join(order)}{clock}'" for order in (("%d", "%m", year), ("%m", "%d", year))]
        raise DataError(
            f"{where}: {other!r} may begin with the day or with the month; say which, e.g. --time-format "
            f"{forms[0]} or {forms[1]}, or leave the column out with --no-time"
        )
    raise DataError(
        f"{where}: {other!r} is not a time, expected a number (seconds to nanoseconds since 1970) or ISO 8601, e.g. "
        "2023-01-02T10:00:00Z; say how it is written with --time-format, or leave the column out with --no-time"
    )


def form_of_integers(values: Sequence[str]) -> str:
    """Decide what times that are integers mean, as `form_of` does where they are texts: days, or numbers."""
    return COMPACT if values and all(map(_IS_DAY.fullmatch, values)) else NUMBER


def _is_rounded(value: str) -> bool:
    """Whether a number is written with fewer digits than a time in seconds has, as spreadsheets show them."""
    digits, mark, _ = value.strip().lower().partition("e")
    return bool(mark) and sum(map(str.isdecimal, digits)) < 10


def looks_like_time(value: str) -> bool:
    """Whether a text is a date, or a number that is too large for anything but a time."""
    value = value.strip()
    if _IS_NUMBER.fullmatch(value):
        return abs(float(value.replace(",", "."))) >= 1e8
    return bool(_IS_ISO.fullmatch(value) or _SLASHES.fullmatch(value))


def is_number(value: str) -> bool:
    """Whether a text is a number, with a decimal point or comma."""
    return bool(_IS_NUMBER.fullmatch(value.strip()))


def _form(value: str) -> str | None:
    if _IS_DAY.fullmatch(value):
        return COMPACT
    if _IS_NUMBER.fullmatch(value):
        return NUMBER
    return ISO if _IS_ISO.fullmatch(value) else None


def sql_of(column: str, kind: str, form: str | None, time_format: str | None) -> str:
    """Return the SQL that reads a time as BIGINT: seconds, or the number as it is; null where it cannot be read.

    Parameters
    ----------
    column : str
        The column, quoted for SQL.
    kind : str
        Its DuckDB type.
    form : str, optional
        What `form_of` or `form_of_integers` decided; not for dates.
    time_format : str, optional
        A format of `strptime`.
    """
    seconds = "epoch_us({}) // 1000000"
    if kind == "DATE" or kind.startswith("TIMESTAMP"):
        return seconds.format(f"{column}::TIMESTAMPTZ" if kind != "TIMESTAMP WITH TIME ZONE" else column)
    if kind != "VARCHAR":
        whole = f"floor({column})" if kind == "DOUBLE" or kind.startswith("DECIMAL") else column
        number = f"try_cast({whole} AS BIGINT)"
        if time_format is None and form != COMPACT:
            return number
        column = f"{number}::VARCHAR"
    text = f"trim({column})"
    if time_format is not None:
        return seconds.format(f"try_strptime({text}, {quoted(time_format)})")
    if form == ISO:
        return seconds.format(f"try_cast({text} AS TIMESTAMPTZ)")
    if form == COMPACT:
        return seconds.format(f"try_strptime({text}, '%Y%m%d')")
    if form == NUMBER_WITH_COMMA:
        column = f"replace({column}, ',', '.')"
    # A text with a fraction would be rounded to the next whole second.
    decimal = f"try_cast(floor(try_cast({column} AS DOUBLE)) AS BIGINT)"
    odd = f"contains({column}, '_') OR contains({column}, 'x')"  # DuckDB would read 1_000 and 0x10 as numbers
    whole = f"CASE WHEN {odd} THEN NULL ELSE try_cast({column} AS BIGINT) END"
    return f"CASE WHEN contains({column}, '.') THEN {decimal} ELSE {whole} END"


def unit_of(last: int) -> str:
    """Return the unit of times of which this is the latest."""
    return next(name for name, _, end in UNITS if last < end)


def check_units(latest: Mapping[str, int]) -> None:
    """Refuse files of which one has its times in seconds and another one in milliseconds.

    Parameters
    ----------
    latest : mapping of str to int
        The latest time of each file, as the number it is.

    Raises
    ------
    DataError
        If they are in several units.
    """
    units: dict[str, str] = {}
    for name, last in latest.items():
        if last > 0:
            units.setdefault(unit_of(last), name)
    if len(units) > 1:
        said = ", ".join(f"{unit} in {name}" for unit, name in units.items())
        raise DataError(f"the times are in several units: {said}; expected one; convert the files")


def quoted(text: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def _check_last(last: int, per_second: int, shown: str) -> None:
    """Refuse a last time after 2100: a wrong form, or a mark for "never"."""
    if last // per_second > _LAST_MOMENT:
        raise DataError(
            f"the last time is {shown}{_date(last // per_second)}; expected a time before 2100; say how "
            "times are written, e.g. --time-format '%Y%m%d%H%M%S', or leave them out with --no-time"
        )


def is_recent(value: str) -> bool:
    """Whether a text is a date, or a number that is a time from 1995 to 2100 in any unit."""
    value = value.strip()
    if not _IS_NUMBER.fullmatch(value):
        return bool(_IS_ISO.fullmatch(value) or _SLASHES.fullmatch(value))
    number = float(value.replace(",", "."))
    return any(FIRST_LOGS <= number / per_second <= _LAST_MOMENT for _, per_second, _ in UNITS)


class TimeColumn:
    """Collects a column of times, batch by batch, as `sql_of` has read them.

    Parameters
    ----------
    are_numbers : bool
        Whether the unit must be decided; otherwise the times are seconds already.
    form : str
        What the report calls the form of times that are no numbers.
    """

    def __init__(self, are_numbers: bool, form: str = ISO) -> None:
        self._are_numbers = are_numbers
        self._form = form
        self._moments = Growing(np.dtype(np.int64))

    def append(self, moments: np.ndarray) -> None:
        """Add a batch (E,), all of which could be read."""
        self._moments.append(moments)

    def truncate(self, n_rows: int) -> None:
        """Forget all rows but the first."""
        self._moments.truncate(n_rows)

    def _check_unit(self, moments: np.ndarray, last: int) -> None:
        """Refuse numbers that cannot be in one unit, or that are no times since 1970: their unit would be wrong."""
        number = [name for name, _, _ in UNITS].index(unit_of(last))
        name, per_second, _ = UNITS[number]
        if number and ((moments > 0) & (moments < UNITS[number - 1][2] / 10)).any():
            first = int(moments[moments > 0].min())
            raise DataError(
                f"the times are numbers from {first} to {last}, expected one unit; convert them, or leave them out "
                "with --no-time"
            )
        _check_last(last, per_second, f"{last}, as {name} ")

    def finish(self, check: Callable[[np.ndarray], None] | None = None) -> tuple[np.ndarray, TimeSpan, int | None]:
        """Return seconds since 1970 (E,), int64, what they span, and the first row that is before 1970."""
        moments = self._moments.finish()
        if not len(moments):
            return moments, TimeSpan(form=self._form, first=0, last=0), None
        first, last = int(moments.min()), int(moments.max())
        if first < 0:
            return moments, TimeSpan(form=self._form, first=first, last=last), int((moments < 0).argmax())
        form = self._form
        if not self._are_numbers:
            _check_last(last, 1, "")
        else:
            if check is not None:
                check(moments)
            self._check_unit(moments, last)
            form = unit_of(last)
            divisor = next(number for name, number, _ in UNITS if name == form)
            if divisor > 1:
                moments //= divisor
        first, last = int(moments.min()), int(moments.max())
        return moments, TimeSpan(form=form, first=first, last=last), None
