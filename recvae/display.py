"""How objects show themselves: one line at a prompt, an HTML table in a notebook; nothing from data is read as HTML.

Importing this takes the standard library alone.
"""

import html
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

_COMMANDS = ("Cc", "Cs", "Zl", "Zp")  # categories: control, half of a pair, separators of lines
_TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def one_line(text: object, most: int = 0) -> str:
    """Return a text from data, such as a title, without line breaks and control characters.

    Parameters
    ----------
    text : object
        What is shown.
    most : int
        Characters kept; what is longer ends in "...". 0 keeps all.
    """
    plain = " ".join("".join(sign if sign.isprintable() else " " for sign in str(text)).split())
    return plain if not most or len(plain) <= most else plain[: max(0, most - 3)].rstrip() + "..."


def visible(text: str) -> str:
    """Return a text for a terminal, which reads none of it as a command: control characters become their escapes.

    So do what turns the direction of writing, and half characters, which cannot be printed. Line breaks stay.
    """
    if text.isprintable():
        return text
    return "".join(repr(sign)[1:-1] if _is_command(sign) else sign for sign in text)


def shown_id(value: object, *, listed: bool = False) -> str:
    """Return an id as messages and tables show it: one line, in quotes where it could be misread.

    Parameters
    ----------
    value : object
        The id, of any type.
    listed : bool
        Whether others follow it, after a comma.

    Examples
    --------
    >>> [shown_id(one) for one in (12, "a b", " a", "a\\nb", "")]
    ['12', 'a b', "' a'", "'a\\\\nb'", "''"]
    """
    text = str(value)
    is_plain = bool(text) and text == " ".join(text.split()) and visible(text) == text
    return repr(text) if not is_plain or (listed and ("," in text or " " in text)) else text


def _is_command(sign: str) -> bool:
    return sign != "\n" and (unicodedata.category(sign) in _COMMANDS or sign in _TURNS)


def plural(count: int, one: str, many: str = "") -> str:
    """Return a number with its word, such as "1 item" and "3,706 items"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def html_table(
    title: str, headers: Sequence[str], rows: Iterable[Sequence[object]], remarks: Sequence[str] = ()
) -> str:
    """Return a table for a notebook.

    Parameters
    ----------
    title, remarks : str, sequence of str
        What stands above it, and below it.
    headers : sequence of str
        One per column; none for a table without a header.
    rows : iterable of sequences
        Numbers are set flush right, all else flush left; None is an empty cell.

    Returns
    -------
    str
        HTML, with every text escaped.
    """
    head = "".join(f'<th style="text-align:left">{html.escape(header)}</th>' for header in headers)
    parts = [f"<p><strong>{html.escape(one_line(title))}</strong></p>"]
    lines = [f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows]
    if lines:
        header = f"<thead><tr>{head}</tr></thead>" if headers else ""
        parts += [f"<table>{header}<tbody>", *lines, "</tbody></table>"]
    return "\n".join([*parts, *(f"<p>{html.escape(one_line(remark))}</p>" for remark in remarks)])


def html_facts(title: str, facts: Mapping[str, object], remarks: Sequence[str] = ()) -> str:
    """Return names with their values as a table for a notebook; see `html_table`."""
    return html_table(title, [], facts.items(), remarks)


def _cell(value: object) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    text = "" if value is None else one_line(value)
    if is_number:
        text = f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
    return f'<td style="text-align:{"right" if is_number else "left"}">{html.escape(text)}</td>'
