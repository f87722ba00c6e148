"""A map of users: their embeddings in two dimensions, coloured by the length of their history or by given labels.

Letters in shape comments: U users, D width of an embedding.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recvae.errors import DataError, UsageError
from recvae.reports.canvas import COLORS, MARKERS, SOFT, check_series, name_marks, panels, picture
from recvae.reports.groups import groups_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEWEST = 3
"""Users below which there is no plane to draw."""

_MOST_PANELS = 6
MOST_POINTS = 2000
"""Users in a panel; of more, as many are drawn at even steps, since further points cover one another."""

LENGTHS = ("#00224e", "#35456c", "#7c7b78", "#bcae6c", "#fee838")  # five of cividis: from dark to light, also in grey
OTHER = "all others"


def principal_components(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first two principal components of each user, and the share of variance that each of the two has.

    Parameters
    ----------
    embeddings : ndarray of shape (n_users, width)
        At least 3 users.

    Returns
    -------
    places : ndarray of shape (n_users, 2), float64
        The sign is such that the largest loading of each component is positive; 0 where there is no second one.
    shares : ndarray of shape (2,), float64
        In [0, 1].

    Raises
    ------
    DataError
        If there are fewer than 3 users, an embedding is not finite, or all are the same.
    """
    values = np.asarray(embeddings, dtype=np.float64)
    if len(values) < FEWEST:
        raise DataError(f"got {len(values)} users, expected {FEWEST} or more to draw a map; hold out more users")
    if not np.isfinite(values).all():
        raise DataError("got embeddings that are NaN or infinite, expected numbers; train the run again")
    centred = values - values.mean(axis=0)  # (U, D)
    if np.allclose(centred, 0, atol=1e-12 * max(1.0, float(np.abs(values).max()))):
        raise DataError("got the same embedding for all users, expected different ones; train the run for longer")
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])  # SVD leaves them open
    places = centred @ (axes * signs[:, None])[:2].T  # (U, 2)
    shares = sizes[:2] ** 2 / (sizes**2).sum()
    missing = 2 - places.shape[1]
    return np.pad(places, ((0, 0), (0, missing))), np.pad(shares, (0, missing))


@picture
def latent_map(
    embeddings: Mapping[str, np.ndarray], lengths: np.ndarray, labels: Sequence[str | None] | None = None
) -> "Figure":
    """Draw users on a plane by the first two principal components of their embeddings, a panel for each run.

    The components are those of all users. Of more than 2,000 users, 2,000 at even steps are drawn, and the legend says
    so.

    Parameters
    ----------
    embeddings : mapping of str to ndarray of shape (n_users, width)
        By run, what `model.embed` returns.
    lengths : ndarray of shape (n_users,), int
        Items in the history of each user, which colour the points.
    labels : sequence of str or None, optional
        A label for each user, which colours the points instead; None where it is not known. Of more than six labels,
        the six most frequent have a colour of their own.

    Returns
    -------
    matplotlib Figure
        One panel per run.

    Raises
    ------
    UsageError
        If there is no run, there are too many, or the users differ.
    DataError
        If there are too few users, or embeddings that cannot be drawn.
    """
    names = check_series(list(embeddings))
    if len(names) > _MOST_PANELS:
        raise UsageError(f"got {len(names)} runs, expected at most {_MOST_PANELS}, a panel for each; name fewer")
    for name in names:
        if len(embeddings[name]) != len(lengths) or (labels is not None and len(labels) != len(lengths)):
            n_labels = len(lengths) if labels is None else len(labels)
            raise UsageError(
                f"got {len(embeddings[name])} embeddings of {name} and {n_labels} labels, expected {len(lengths)} each"
            )
    places = {name: principal_components(embeddings[name]) for name in names}
    classes = _by_length(lengths) if labels is None else _by_label(labels)
    shown = np.zeros(len(lengths), dtype=bool)
    shown[np.linspace(0, len(lengths) - 1, min(len(lengths), MOST_POINTS)).round().astype(int)] = True
    figure, axes = panels(len(names), "Map of users by their embeddings", size=(5.2, 4.2))
    for axis, (name, (xy, shares)) in zip(axes, places.items(), strict=True):
        for chosen, _, look in classes:
            axis.plot(xy[chosen & shown, 0], xy[chosen & shown, 1], linestyle="", markersize=4.5, **look)
        axis.set_title(name, parse_math=False)
        axis.set(
            xlabel=f"first principal component ({shares[0]:.0%} of variance)",
            ylabel=f"second ({shares[1]:.0%} of variance)",
        )
    what = "items in the history" if labels is None else "label"
    part = "" if shown.all() else f" ({MOST_POINTS:,} of {len(shown):,} users are drawn)"
    _name_classes(figure, what + part, classes)
    return figure


Class = tuple[np.ndarray, str, dict[str, Any]]  # which users, what they are called, how they look


def _by_length(lengths: np.ndarray) -> list[Class]:
    groups = groups_of(lengths, len(LENGTHS))
    n = len(groups.sizes)
    steps = [round(place * (len(LENGTHS) - 1) / max(1, n - 1)) for place in range(n)]
    return [
        (groups.of == place, label, _look(LENGTHS[step], MARKERS[step]))
        for place, (label, step) in enumerate(zip(groups.labels(), steps, strict=True))
    ]


def _by_label(labels: Sequence[str | None]) -> list[Class]:
    known = Counter(label for label in labels if label is not None)
    frequent = sorted(known, key=lambda label: (-known[label], label))
    own = frequent if len(frequent) < len(COLORS) else frequent[: len(COLORS) - 1]
    array = np.array([label if label is None or label in own else OTHER for label in labels], dtype=object)
    classes = [(array == label, label, _look(COLORS[place], MARKERS[place])) for place, label in enumerate(own)]
    if len(own) < len(frequent):
        classes.append((array == OTHER, OTHER, _look(COLORS[-1], MARKERS[-1])))
    unknown = np.array([label is None for label in labels])
    if unknown.any():
        classes.insert(0, (unknown, "no label", _look("none", "o")))
    return classes


def _look(color: str, marker: str) -> dict[str, Any]:
    return {"color": color, "marker": marker, "markeredgecolor": SOFT, "markeredgewidth": 0.4}


def _name_classes(figure: "Figure", title: str, classes: list[Class]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], linestyle="", markersize=6, **look) for _, _, look in classes]
    name_marks(figure, handles, [name for _, name, _ in classes], title)
