"""Item ids as they are typed: lists separated by commas, ids with commas or quotes, ids that begin with a dash."""

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from recvae_cli.console import Verb

if TYPE_CHECKING:
    from recvae.items import ItemIndex

QUOTING = "put an id that has a comma in double quotes: --items '\"Toy Story, The\",318'"


def ids_of(text: str, option: str) -> list[str]:
    """Read ids separated by commas, with the quoting of CSV.

    Parameters
    ----------
    text : str
        E.g. `318,296` or `"Toy Story, The",318`; a double quote within quotes is written twice.
    option : str
        Where it was given, for messages.

    Raises
    ------
    UsageError
        If a double quote is not closed, or anything but a comma follows one.
    """
    from recvae.errors import UsageError

    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise UsageError(
            f"got {option} {text}, whose quotes cannot be read ({error}); {QUOTING}, and write a double quote in it "
            "twice"
        ) from error
    return [word.strip() for line in lines for word in line if word.strip()]


def typed_ids(ids: list[Any]) -> str:
    """Return ids as one word, not quoted for a shell: what `ids_of` reads."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(ids)
    return text.getvalue()


def typed_id(item: object) -> list[str]:
    """Return an id as the last words of a command, not quoted for a shell."""
    return ["--", str(item)] if str(item).startswith("-") else [str(item)]


def name_of(items: "ItemIndex", column: int) -> str:
    """Return the title of an item in one line, or its id, for a table."""
    from recvae.display import one_line, shown_id

    return one_line(items.title_of(column) or "") or shown_id(items.id_of(column))


def named(ids: Sequence[object], most: int = 5) -> str:
    """Return the first ids of a list, for a message, and how many more there are."""
    from recvae.display import shown_id

    more = f" and {len(ids) - most:,} more" if len(ids) > most else ""
    return ", ".join(shown_id(one, listed=True) for one in ids[:most]) + more


class TakesIds(Verb):
    """A command with an id as its argument: an unknown option may be an id that begins with a dash."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, and add to the message of an unknown option how an id is written."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            option = str(getattr(error, "option_name", ""))
            if option.startswith("-") and not option.startswith("--"):
                words: Any = error
                hint = f"put -- before an id that begins with a dash: {ctx.command_path} -- {option}"
                words.message = f"{words.message} ({hint})"
            raise
