"""The tables of a comparison on a terminal, or as text."""

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recvae.evaluation.comparison import Comparison

WIDTH = 100  # columns, where the output is not a terminal that could tell


def printable(comparison: "Comparison", width: int) -> list[Any]:
    """Return titles, tables and notes for a terminal of this width."""
    from rich.table import Table

    page = comparison.page()
    things: list[Any] = [page.title]
    for whole in page.tables:
        for part in whole.narrow(width):
            table = Table()
            for place, header in enumerate(part.headers):
                table.add_column(header, justify="right" if place and not part.is_ranked(place) else "left")
            for row in part.rows:
                table.add_row(*(cell.plain() for cell in row))
            things.append(table)
        things += [("* the best; " if whole.has_best else "") + whole.note, ""]
    return [*things, *page.remarks]


def as_text(things: list[Any], width: int) -> str:
    """Return what is for a terminal as text of this width."""
    from rich.console import Console

    from recvae_cli.tables import print_whole

    stream = io.StringIO()
    console = Console(file=stream, width=width, highlight=False, markup=False, emoji=False)
    for thing in things:
        print_whole(thing, console)
    return stream.getvalue()
