"""What was read of a log, and how: every guess, and every row that was left out."""

import time
from dataclasses import dataclass, field
from typing import Any

from recvae.datasets.columns import LOG, Columns
from recvae.datasets.reading.lines import FileReport
from recvae.datasets.reading.ratings import RatingScale
from recvae.datasets.reading.times import FIRST_LOGS, TimeSpan
from recvae.datasets.reading.twins import Twins
from recvae.display import plural

_SHOWN = 8  # columns that are named
_YEAR = 31_536_000


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What was read, what was guessed, and what was left out: rows = events + what was dropped.

    Parameters
    ----------
    files : list of FileReport
        The files, in order.
    columns : Columns
        The columns that were read.
    rows, events : int
        Rows read, and events made of them.
    dropped : dict of str to int
        Rows that are no events, by reason; only counts above 0.
    marks : dict of str to dict
        For "user" and "item": what stands where an id is missing, and how often.
    doubtful : dict of str to dict
        For "user" and "item": ids that mean "missing" elsewhere, and how often they occur.
    alike : dict of str to Twins
        For "user" and "item": ids that look like another one.
    times : TimeSpan, optional
        How times are written, and the first and the last.
    ratings : RatingScale, optional
        The scale of the ratings.
    empty : list of str
        The names of files without a row, where others have some.
    unused : list of str
        The columns that are not read, and weights of items.
    """

    files: list[FileReport]
    columns: Columns
    rows: int
    events: int
    dropped: dict[str, int] = field(default_factory=dict)
    marks: dict[str, dict[str, int]] = field(default_factory=dict)
    doubtful: dict[str, dict[str, int]] = field(default_factory=dict)
    alike: dict[str, Twins] = field(default_factory=dict)
    times: TimeSpan | None = None
    ratings: RatingScale | None = None
    empty: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    @property
    def skipped(self) -> dict[str, int]:
        """Lines that are no rows, by reason, over all files; only counts above 0."""
        total: dict[str, int] = {}
        for file in self.files:
            for reason, count in file.skipped.items():
                if count:
                    total[reason] = total.get(reason, 0) + count
        return total

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values, for the manifest, without the names of files."""
        found: dict[str, Any] = {
            "columns": {role: getattr(self.columns, role) for role in LOG},
            "rows": self.rows,
            "events": self.events,
            "dropped": self.dropped,
            "skipped": self.skipped,
            **({"empty_files": len(self.empty)} if self.empty else {}),
            **({"unused": self.unused} if self.unused else {}),
            **({"missing": self.marks} if self.marks else {}),
            **({"doubtful": self.doubtful} if self.doubtful else {}),
            **({"alike": {role: one._asdict() for role, one in self.alike.items()}} if self.alike else {}),
        }
        if self.files:
            found["form"] = self.files[0].form
        if self.times is not None:
            found["times"] = {"form": self.times.form, "first": self.times.first, "last": self.times.last}
        if self.ratings is not None:
            found["ratings"] = str(self.ratings)
        return found

    def lines(self) -> list[str]:
        """Return what a person should see, in lines: every guess, and every row that was left out."""
        form = self.files[0].form if self.files else {}
        how = [str(form.get("form", "table"))]
        if "packing" in form:
            how.append(str(form["packing"]))
        if form.get("encoding", "utf-8") != "utf-8":
            how.append(str(form["encoding"]))
        if "separator" in form:
            names = {"\t": "tab", ",": "comma", ";": "semicolon", " ": "space", "|": "bar"}
            shown = form["separator"] if form["separator"].isprintable() else repr(form["separator"])
            how.append(f"separator {names.get(form['separator'], shown)}")
            how.append(f"quotes {form['quote']}")
            how.append("header" if form["header"] else "no header")
        found = [f"read: {plural(self.rows, 'row')}" + (f" in {len(self.files)} files" if len(self.files) > 1 else "")]
        found[0] += f" ({', '.join(how)})"
        columns = ", ".join(f"{role} = {getattr(self.columns, role) or 'none'}" for role in LOG)
        more = f" and {len(self.unused) - _SHOWN:,} more" if len(self.unused) > _SHOWN else ""
        unused = f"; not used: {', '.join(self.unused[:_SHOWN])}{more}" if self.unused else ""
        found.append(f"columns: {columns}{unused}")
        if self.times is not None:
            is_odd = self.times.first < FIRST_LOGS or self.times.last > time.time() + _YEAR
            doubt = "; is this how they are written?" if is_odd else ""
            found.append(f"times: {self.times}{doubt}")
        if self.ratings is not None:
            found.append(f"ratings: {self.ratings}")
        if self.empty:
            files = "1 empty file" if len(self.empty) == 1 else f"{len(self.empty):,} empty files"
            found.append(f"left out: {files} ({', '.join(self.empty[:3])}{', ...' if len(self.empty) > 3 else ''})")
        for reason, count in self.skipped.items():
            found.append(f"left out: {counted(count, reason)}")
        for reason, count in self.dropped.items():
            role = "user" if "user" in reason else "item"
            marks = ", ".join(f"{mark}: {number:,}" for mark, number in self.marks.get(role, {}).items())
            found.append(f"left out: {counted(count, reason)}" + (f" ({marks})" if reason.endswith(" id") else ""))
        return found

    def warnings(self) -> list[str]:
        """Return what a person should look at again."""
        found = []
        for role, words in self.doubtful.items():
            for word, count in words.items():
                found.append(
                    f"{count:,} rows have the {role} '{word}', which may be no id; if so, give --null '{word}'"
                )
        for role, twins in self.alike.items():
            look, stay = ("looks", "stays") if twins.n_ids == 1 else ("look", "stay")
            found.append(
                f"{plural(twins.n_ids, f'{role} id')} {look} like another one, e.g. {twins.first!a} and "
                f"{twins.second!a}, and {stay} apart; if they are one, write the file {twins.as_one}"
            )
        return found


def counted(count: int, reason: str) -> str:
    """Return a number with what was left out, such as "1 row without an item" for "rows without an item"."""
    return plural(count, reason.replace("rows", "row", 1).replace("lines", "line", 1), reason)
