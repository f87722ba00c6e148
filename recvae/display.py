"""How objects show themselves: one line at a prompt, an HTML table in a notebook; nothing from data is read as HTML.

Importing this takes the standard library alone.
"""

import html
from collections.abc import Iterable, Mapping, Sequence


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
