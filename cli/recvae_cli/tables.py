"""Tables for a terminal of any width, and for pipes: no name is ever cut."""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

WIDTH_ELSEWHERE = 160  # columns, where the output is not a terminal


def console() -> "Console":
    """Return a console for the standard output."""
    from rich.console import Console

    from recvae.display import visible

    class Plain(Console):
        """What is in a text of a file commands no terminal."""

        def render_str(self, text: str, **options: Any) -> "Text":
            return super().render_str(visible(text), **options)

    width = None if sys.stdout.isatty() else WIDTH_ELSEWHERE
    return Plain(width=width, highlight=False, markup=False, emoji=False)  # a path may look like markup


def print_whole(thing: Any, console: "Console") -> None:
    """Print a text or a table; what is too wide is wrapped between words, or set one item below the other.

    Parameters
    ----------
    thing : str, Text or Table
        What is printed; a text of type str is never broken, so that paths can be copied.
    console : Console
        Where; on a console that is no terminal, a table has the width that it needs.
    """
    from rich.table import Table

    from recvae.display import visible

    if not isinstance(thing, Table):
        console.print(thing, soft_wrap=isinstance(thing, str))
        return
    # C columns of R + 1 cells
    cells = [[visible(str(cell)) for cell in (column.header, *column.cells)] for column in thing.columns]
    least = [max(_width(word) for cell in column for word in [*cell.split(), ""]) for column in cells]
    most = [max(_width(line) for cell in column for line in [*cell.split("\n"), ""]) for column in cells]
    least = [whole if column.no_wrap else word for column, whole, word in zip(thing.columns, most, least, strict=True)]
    if not console.is_terminal:
        console.width = max(console.width, sum(most) + _frame(thing))
    room = console.width - _frame(thing)
    if sum(least) > room:
        _print_as_list(cells, console)
        return
    if sum(most) > room:
        for column, width in zip(thing.columns, _shared(least, most, room), strict=True):
            column.width, column.overflow = width, "fold"
    console.print(thing)


def _shared(least: list[int], most: list[int], room: int) -> list[int]:
    """Share columns of text out, so that each holds its longest word, and the others' wishes are met in proportion."""
    spare, wishes = room - sum(least), [high - low for low, high in zip(least, most, strict=True)]
    return [low + spare * wish // sum(wishes) for low, wish in zip(least, wishes, strict=True)]


def _print_as_list(cells: list[list[str]], console: "Console") -> None:
    """Print each row as lines: its first cell, and below it the others with their headers, as many as fit in a line."""
    headers = [column[0] for column in cells]
    for first, *others in zip(*(column[1:] for column in cells), strict=True):
        indent = " " * (2 + len(first) - len(first.lstrip()))
        lines = [first.rstrip()] if first.strip() else []
        for header, cell in zip(headers[1:], others, strict=True):
            text = " ".join(cell.split())
            piece = f"{header}: {text}" if header and text else text
            if piece and lines and lines[-1].startswith(indent) and _width(f"{lines[-1]}; {piece}") <= console.width:
                lines[-1] += f"; {piece}"
            elif piece:
                lines.append(indent + piece)
        for line in lines:
            console.print(line, soft_wrap=True)


def _frame(table: "Table") -> int:
    """Return the columns of text that a table needs besides its cells."""
    from rich.padding import Padding

    _, right, _, left = Padding.unpack(table.padding)
    n_columns = len(table.columns)
    return n_columns * (left + right) + (n_columns + 1 if table.box is not None else 0)


def _width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)
