"""Training curves: how the figures of each epoch went, for several runs, and which epoch was chosen."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from recvae.errors import UsageError
from recvae.reports.canvas import INK, MARKERS, check_series, legend, look_of, panels, picture
from recvae.training.records import EpochRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Log = Sequence[EpochRecord | Mapping[str, Any]]
"""One record per epoch, or what a line of log.jsonl holds."""

_PANELS = (  # field, title, label of the axis
    ("ndcg", "Accuracy on validation users", "NDCG@100"),
    ("loss", "Loss", "loss (nats per user)"),
    ("kl", "KL divergence to the prior", "KL (nats per user)"),
    ("beta", "Weight of the KL term", "beta"),
    ("step_size", "Step size of Adam", "step size"),
    ("active_units", "Active latent units", "units"),
    ("mutual_information", "Information of codes about users", "mutual information (nats)"),
)
_MOST_MARKERS = 12  # on a line


@picture
def training_curves(logs: Mapping[str, Log]) -> "Figure":
    """Draw what was logged in each epoch: validation accuracy, loss, KL divergence, its weight, and more if logged.

    A star marks the epoch whose weights were kept. A figure that no run has logged gets no panel.

    Parameters
    ----------
    logs : mapping of str to sequence of EpochRecord or mapping
        By the name of the run; `recvae.plots.read_log` reads them.

    Returns
    -------
    matplotlib Figure
        One panel per figure, one line per run; see `recvae.plots.save`.

    Raises
    ------
    UsageError
        If there is no run, one has no epoch, or there are more than can be told apart.

    Examples
    --------
    >>> records = [{"epoch": 1, "loss": 5.0, "ndcg": 0.2, "best": True}, {"epoch": 2, "loss": 4.0, "ndcg": 0.1}]
    >>> len(training_curves({"multdae": records}).axes)
    2
    """
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    names = check_series(list(logs))
    records = {
        name: [asdict(one) if isinstance(one, EpochRecord) else dict(one) for one in logs[name]] for name in names
    }
    empty = [name for name, of_run in records.items() if not of_run]
    if empty:
        raise UsageError(f"got no epoch of {empty[0]}, expected one or more; leave it out")
    shown = [panel for panel in _PANELS if any(_has(one, panel[0]) for of_run in records.values() for one in of_run)]
    if not shown:
        raise UsageError("got records without a figure to draw, expected some of: loss, ndcg, kl, beta")
    figure, axes = panels(len(shown), "Training, epoch by epoch")
    for axis, (field, title, label) in zip(axes, shown, strict=True):
        axis.set(title=title, xlabel="epoch", ylabel=label)
        for place, of_run in enumerate(records.values()):
            _line(axis, of_run, field, place)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.margins(y=0.08)
        if field not in ("ndcg", "loss"):
            axis.set_ylim(bottom=0)
    figure.align_ylabels()
    star = Line2D([], [], marker="*", linestyle="", color=INK, markerfacecolor="none", markersize=12)
    has_chosen = any(field == "ndcg" for field, *_ in shown) and any(map(chosen, records.values()))
    legend(figure, names, *([(star, "epoch whose weights are kept")] if has_chosen else []))
    return figure


def chosen(records: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the record of the epoch whose weights were kept, None where none is marked."""
    return next((one for one in reversed(records) if one.get("best")), None)


def _plain(record: EpochRecord | Mapping[str, Any]) -> dict[str, Any]:
    return asdict(record) if isinstance(record, EpochRecord) else dict(record)


def _has(record: Mapping[str, Any], field: str) -> bool:
    value = record.get(field)
    return isinstance(value, int | float) and math.isfinite(value)


def _line(axis: "Axes", records: Sequence[Mapping[str, Any]], field: str, place: int) -> None:
    """Draw a figure of one run, where it has it, and the chosen epoch on the accuracy."""
    points = [(one["epoch"], one[field]) for one in records if _has(one, field)]
    if not points:
        return
    x, y = zip(*points, strict=True)
    axis.plot(x, y, markevery=max(1, len(x) // _MOST_MARKERS), **look_of(place))
    best = chosen(records)
    if field == "ndcg" and best is not None and _has(best, field):
        look: dict[str, Any] = {"color": look_of(place)["color"], "markeredgecolor": INK, "markeredgewidth": 0.8}
        axis.plot(best["epoch"], best[field], "*", markersize=14, zorder=4, **look)


assert "*" not in MARKERS  # it marks the chosen epoch alone
