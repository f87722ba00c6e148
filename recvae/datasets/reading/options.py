"""What a user says about a table: whatever is not said is guessed, and the guess is shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from recvae.errors import UsageError

ON_BAD_ROW = ("stop", "skip")
ROLES_THAT_MAY_BE_LEFT_OUT = ("rating", "time")


@dataclass(frozen=True, kw_only=True)
class LogFormat:
    """What is known about the files of a log or another table. None means "to be guessed".

    Parameters
    ----------
    separator : str, optional
        Separator of columns: one character, or `::`.
    header : bool, optional
        Whether the first line names the columns.
    quote : str, optional
        The character around values that contain separators; "" if quotes are ordinary letters.
    escape : str, optional
        What stands before a quote inside quotes; by default the quote itself.
    encoding : str, optional
        Encoding of the text, e.g. "latin-1"; by default UTF-8, or UTF-16 where the file begins so.
    lists : bool
        Whether each line is a user and the items of this user, separated by spaces. Lines of unequal length are taken
        for lists without it.
    user, item, rating, time, weight, title : str, optional
        The names of the columns; without a header their positions, "1" for the first.
    usual : tuple of (str, str)
        Roles and the columns that they have in files like these: taken where there is such a column.
    without : tuple of str
        Roles that are not looked for: "rating", "time".
    null : tuple of str
        Further words that mean a missing id.
    kept : tuple of str
        Words that are ids here, although they mean a missing id elsewhere, e.g. a band called "null".
    time_format : str, optional
        How times are written, in the letters of `strptime`, e.g. "%d/%m/%Y %H:%M".
    only : tuple of (str, tuple of str)
        Columns and the values that they must have; other rows are left out and counted, e.g. `("event", ("view",))`.
    on_bad_row : str
        What a row does that has too many or too few columns, or a rating or time that cannot be read: "stop" or "skip".
    """

    separator: str | None = None
    header: bool | None = None
    quote: str | None = None
    escape: str | None = None
    encoding: str | None = None
    lists: bool = False
    user: str | None = None
    item: str | None = None
    rating: str | None = None
    time: str | None = None
    weight: str | None = None
    title: str | None = None
    usual: tuple[tuple[str, str], ...] = ()
    without: tuple[str, ...] = ()
    null: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    time_format: str | None = None
    only: tuple[tuple[str, tuple[str, ...]], ...] = ()
    on_bad_row: str = field(default="stop")

    def __post_init__(self) -> None:
        if (
            self.separator is not None
            and self.separator != "::"
            and not (len(self.separator) == 1 and self.separator.isascii() and self.separator not in "\r\n")
        ):
            raise UsageError(
                f"got separator {self.separator!r}, expected '::' or one ASCII character, e.g. a comma or tab"
            )
        if self.quote is not None and not (len(self.quote) <= 1 and self.quote.isascii()):
            raise UsageError(f"got quote {self.quote!r}, expected one ASCII character, or none")
        if self.on_bad_row not in ON_BAD_ROW:
            raise UsageError(f"got {self.on_bad_row!r} for bad rows, expected one of: {', '.join(ON_BAD_ROW)}")
        for role in self.without:
            if getattr(self, role, None) is not None:
                raise UsageError(f"got a {role} column and --no-{role}, expected one of the two; leave one out")
        if self.encoding is not None:
            try:
                "".encode(self.encoding)
            except LookupError as error:
                raise UsageError(f"got encoding {self.encoding!r}, expected e.g. utf-8, utf-16 or latin-1") from error

    @property
    def columns(self) -> Mapping[str, str | None]:
        """The columns that the user named, by role."""
        return {role: getattr(self, role) for role in ("user", "item", "rating", "time", "weight", "title")}

    def without_names(self, names: Sequence[str] | None = None) -> "LogFormat":
        """Return the same without the columns that the user named, or without those of these names."""
        return replace(self, **{role: None for role, name in self.columns.items() if names is None or name in names})

    def named_in(self, names: Sequence[str]) -> dict[str, str | None]:
        """Return the column of each role in a file with these columns, where it is known; None where it is not."""
        named = dict(self.columns)
        taken = set(named.values())
        for role, name in self.usual:
            if named.get(role) is None and list(names).count(name) == 1 and name not in taken:
                named[role] = name
        return named
