"""Several files as one log: the same columns, and times in the same form; what is selected of each.

Files without a row among others are left out and named; a file that is given twice is refused.
"""

from collections.abc import Sequence
from dataclasses import replace

from recvae.datasets.reading import times
from recvae.datasets.reading.dialects import LISTS
from recvae.datasets.reading.opening import Opener
from recvae.datasets.reading.scans import Scan
from recvae.datasets.reading.sources import EmptyFileError, Source
from recvae.datasets.reading.sql import shown_name
from recvae.errors import DataError, UsageError


def open_all(opener: Opener, sources: Sequence[Source]) -> tuple[list[Scan], list[str]]:
    """Open the files of one log.

    Parameters
    ----------
    opener : Opener
        Opens each of them.
    sources : sequence of Source
        At least one.

    Returns
    -------
    scans : list of Scan
        How to read them, at least one.
    empty : list of str
        The names of those without a row.

    Raises
    ------
    UsageError, DataError
        If one is given twice, or cannot be read, or if all are empty, or they are not files of one log.
    """
    _refuse_twice(sources)
    scans: list[Scan] = []
    empty: list[str] = []
    names: tuple[str, ...] = ()  # of the first header, which other parts of the file may lack
    for source in sources:
        try:
            scan = opener.file(source, names)
        except EmptyFileError as error:
            if len(sources) == 1:
                raise
            empty.append(source.name)
            names = names or error.names
        else:
            if not scans and not names and scan.dialect is not None and scan.dialect.header:
                names = scan.dialect.names
            scans.append(scan)
    if not scans:
        raise DataError(f"all {len(sources)} files are empty, the first is {empty[0]}; expected one row per event")
    return _alike(scans, opener.roles), empty


def _refuse_twice(sources: Sequence[Source]) -> None:
    """Refuse a file that is named twice, also by another path: each of its rows would be two events."""
    seen: dict[tuple[str, str | None], Source] = {}
    for source in sources:
        place = (str(source.path.resolve()), source.member)
        if place in seen:
            raise UsageError(f"got {source.name} twice (also as {seen[place].name}); give each file once")
        seen[place] = source


def selected(scan: Scan, roles: Sequence[str], as_text: bool = False, weighted: bool = False) -> str:
    """Return the SQL of the columns, each named by its role.

    Where another file has ids of another type they must become texts, and where another one has weights each row gets
    one, if only null.
    """
    chosen = {}
    for role in roles:
        if getattr(scan.columns, role) or (role == "weight" and scan.has_json_items):
            chosen[role] = scan.select(role) + ("::VARCHAR" if as_text and role in ("user", "item") else "")
        elif role == "weight" and weighted:
            chosen[role] = "NULL::FLOAT"
    return ", ".join(f"{value} AS {role}" for role, value in chosen.items())


def others_of(found: list[Scan]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the columns without a role that are read, and the types of those that cannot be."""
    names = _without_role(found[0])
    unreadable = {name: scan.kinds[name] for name in names for scan in found if scan.other(name) is None}
    return tuple(name for name in names if name not in unreadable), unreadable


def unused_of(scan: Scan) -> list[str]:
    """Return how messages call what is not read of a log: columns without a role, and weights of items."""
    if scan.form == LISTS:
        return []
    weights = scan.dialect is not None and scan.dialect.has_weights
    found = [f"the weights in {scan.columns.item}"] if weights else []
    return found + [shown_name(name) or "one without a name" for name in _without_role(scan)]


def _without_role(scan: Scan) -> list[str]:
    taken = {name for name in vars(scan.columns).values() if name}
    return [name for name in scan.kinds if name not in taken]


def time_form_of(scan: Scan) -> str | None:
    """Return how times are written in a file: "number" or the name of a form; None without times."""
    if scan.columns.time is None:
        return None
    kind = scan.kinds[scan.columns.time]
    if scan.time_format or scan.time_form:
        return times.OWN if scan.time_format else scan.time_form
    return times.DATES if kind == "DATE" or kind.startswith("TIMESTAMP") else times.NUMBER


def in_one_form(found: list[Scan]) -> list[Scan]:
    """Return the scans with a form of times for the files that hold none: such a part is no other log."""
    forms = (form for scan in found if (form := time_form_of(scan)) not in (None, times.UNSEEN))
    usual = next(forms, times.NUMBER)
    return [replace(scan, time_form=usual) if scan.time_form == times.UNSEEN else scan for scan in found]


def _alike(found: list[Scan], roles: Sequence[str]) -> list[Scan]:
    """Return the scans of several files, if they have the same columns, and times in the same form."""
    found = in_one_form(found)
    for scan in found[1:]:
        for role in roles:
            names = [getattr(one.columns, role, None) for one in (found[0], scan)]
            if bool(names[0]) != bool(names[1]):
                raise DataError(
                    f"{found[0].name} has {names[0] or 'no column'} for the {role}, but {scan.name} has "
                    f"{names[1] or 'no column'}; expected the files of one log; name the columns, or leave them out "
                    "with --no-rating and --no-time"
                )
        forms = [time_form_of(one) for one in (found[0], scan)]
        if (forms[0] in times.NUMBERS) != (forms[1] in times.NUMBERS):
            raise DataError(
                f"the times of {found[0].name} are written as {forms[0]}, those of {scan.name} as {forms[1]}; expected "
                "one form; convert one of the files"
            )
        if set(scan.kinds) != set(found[0].kinds):
            comes_late = scan.has_header and not found[0].has_header
            way_out = "give the file with the header first" if comes_late else "give only those"
            raise DataError(
                f"{found[0].name} has the columns {', '.join(found[0].kinds)}, but {scan.name} has "
                f"{', '.join(scan.kinds)}; expected the files of one log; {way_out}"
            )
    return found
