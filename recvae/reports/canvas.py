"""What all pictures share: colours, line styles and markers that differ in grey too, figures without pyplot, files.

The colours are those of Okabe and Ito ("Color Universal Design", 2008), without yellow, which is lost on white paper.
"""

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from recvae.errors import UsageError, requires_extra
from recvae.storage.files import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1a1a1a")
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (2, 1)), (0, (9, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, SOFT, LINE, PAPER = "#1b1f24", "#59616b", "#dcddd8", "#fefefe"
"""Texts and axes; what stands back; grids; what lies under the marks."""

ENDINGS = (".png", ".svg", ".pdf")
"""What pictures can be written as."""

_STYLE: Any = {
    "font.size": 9.5,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.facecolor": "white",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "figure.facecolor": "white",
    "figure.titlesize": 12.5,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "grid.linestyle": "-",
    "lines.linewidth": 1.7,
    "lines.markersize": 5.0,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "mathtext.default": "regular",
    "svg.fonttype": "none",
    "svg.hashsalt": "recvae",
    "pdf.fonttype": 42,
    "savefig.facecolor": "auto",
    "savefig.bbox": None,
    "text.usetex": False,
}

_CHARACTERS, _HANDLE = 12, 9  # in an inch of a legend; what the mark before a text takes

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def styled() -> Iterator[None]:
    """Draw or write in the block with the settings of this package, whatever those of the caller are."""
    with requires_extra("plot", "recvae.plots"):
        import matplotlib as mpl
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)  # a name in another script
        yield


def picture(draw: Callable[P, R]) -> Callable[P, R]:
    """Let a function draw with the settings of this package."""

    @wraps(draw)
    def drawn(*arguments: P.args, **options: P.kwargs) -> R:
        with styled():
            return draw(*arguments, **options)

    return drawn


def panels(
    n: int, title: str, *, columns: int = 2, size: tuple[float, float] = (4.6, 2.9)
) -> "tuple[Figure, list[Axes]]":
    """Return a figure with n empty panels below a title, without any state of pyplot.

    Parameters
    ----------
    n : int
        Panels, >= 1.
    title : str
        Of the whole.
    columns : int
        Panels side by side.
    size : tuple of float
        Width and height of each panel, in inches.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = min(n, columns)
    rows = -(-n // columns)
    layout = ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.06)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows + 0.8), layout=layout)
    found = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for extra in found[n:]:
        extra.remove()
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", parse_math=False)
    return figure, found[:n]


def look_of(place: int, **changes: Any) -> dict[str, Any]:
    """Return colour, line style and marker of the series at a place, for `Axes.plot`, with what is to differ."""
    return {"color": COLORS[place], "linestyle": DASHES[place], "marker": MARKERS[place], **changes}


def check_series(names: Sequence[str], what: str = "runs") -> list[str]:
    """Refuse no series, and more than a reader can tell apart.

    Raises
    ------
    UsageError
        If there is none, or there are too many.
    """
    if not names:
        raise UsageError(f"got no {what} to draw, expected one or more")
    if len(names) > len(COLORS):
        raise UsageError(
            f"got {len(names)} {what}, expected at most {len(COLORS)}, which can be told apart in a picture; name fewer"
        )
    return list(names)


def legend(figure: "Figure", names: Sequence[str], *more: tuple[Any, str], lines: bool = True) -> None:
    """Name the series below the panels, in the looks that they have.

    Parameters
    ----------
    figure : Figure
        With its panels.
    names : sequence of str
        Any texts; none of their characters has a meaning.
    more : tuple of (artist, str)
        What else there is to name.
    lines : bool
        Whether the series are lines; else markers alone.
    """
    from matplotlib.lines import Line2D

    looks = [look_of(place) if lines else look_of(place, linestyle="") for place in range(len(names))]
    handles = [Line2D([], [], **look) for look in looks] + [artist for artist, _ in more]
    texts = [*names, *(text for _, text in more)]
    name_marks(figure, handles, texts)


def name_marks(figure: "Figure", handles: Sequence[Any], texts: Sequence[str], title: str | None = None) -> None:
    """Put a legend below the panels, in as many columns as fit; see `legend`."""
    found = figure.legend(
        handles,
        ["-"] * len(handles),  # a text that begins with _ would be left out
        loc="outside lower left",
        ncols=_columns(texts, round(figure.get_figwidth() * _CHARACTERS)),
        title=title,
        alignment="left",
    )
    for text, name in zip(found.get_texts(), texts, strict=True):
        text.set_parse_math(False)
        text.set_text(name)


def _columns(texts: Sequence[str], width: int) -> int:
    """Return in how many columns these texts fit a width in characters; they fill one column after the other."""
    for n in range(len(texts), 1, -1):
        widths = [max(map(len, column)) for column in np.array_split(np.array(texts, dtype=object), n)]
        if sum(widths) + _HANDLE * len(widths) <= width:
            return n
    return 1


def check_ending(path: Path) -> None:
    """Refuse a name whose ending is none that pictures are written as.

    Raises
    ------
    UsageError
        With the list of those there are.
    """
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"got {path}, expected a name ending in {', '.join(ENDINGS)}")


def save(figure: "Figure", path: Path | str) -> None:
    """Write a picture, completely or not at all, in the form that its ending names.

    Parameters
    ----------
    figure : Figure
        What a function of `recvae.plots` returned, or any other figure.
    path : Path or str
        Ending in .png, .svg or .pdf; an existing file is replaced.

    Raises
    ------
    UsageError
        If the ending is another.
    StorageError
        If it cannot be written.
    """
    path = Path(path)
    check_ending(path)
    form = path.suffix.lower()[1:]
    undated = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[form]  # the same bytes every time
    with styled(), write_file(path) as aside:
        figure.savefig(aside, format=form, dpi=200, metadata=undated)


def as_svg(figure: "Figure") -> str:
    """Return a picture as SVG on no ground, to be put into a page."""
    stream = io.StringIO()
    with styled():
        figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=True)
    return stream.getvalue()
