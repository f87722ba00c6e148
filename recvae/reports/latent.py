"""Maps: embeddings in two dimensions, coloured by the length of the history, by given labels, or by group.

Letters in shape comments: U users, n points of a panel, D width of an embedding.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recvae.errors import UsageError
from recvae.latent.projections import check_projection, principal_components, project
from recvae.reports.canvas import COLORS, MARKERS, SOFT, check_series, name_marks, panels, picture
from recvae.reports.groups import groups_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_PANELS = 6
MOST_POINTS = 2000
"""Points in a panel; of more, as many are drawn at even steps, since further points cover one another."""

LENGTHS = ("#00224e", "#35456c", "#7c7b78", "#bcae6c", "#fee838")  # five of cividis: from dark to light, also in grey
OTHER = "all others"
_LOOKS = 2 * len(COLORS)  # of groups that a map tells apart: each colour with two markers


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
    shown = _drawn(len(lengths))
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


@picture
def segment_map(
    embeddings: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    names: Sequence[str],
    how: str = "pca",
    *,
    without: str = "in no group",
    seed: int = 0,
) -> "Figure":
    """Draw users, items or both on a plane each, coloured by their group.

    Of more than 2,000 points, 2,000 at even steps are drawn, and the panel says so. Principal components are those of
    all points; UMAP is given those that are drawn. Of more than 14 groups, the first 13 have a look of their own.

    Parameters
    ----------
    embeddings : mapping of str to ndarray of shape (n, width)
        By what they are of, such as "users" and "items": a panel for each.
    labels : mapping of str to ndarray of shape (n,), int
        By the same names, the group of each point, from 0; -1 for one that is in none.
    names : sequence of str
        Of the groups.
    how : str
        "pca" or "umap"; see `recvae.latent.projections`.
    without : str
        What points in no group are called.
    seed : int
        Of UMAP.

    Returns
    -------
    matplotlib Figure
        One panel for each of the embeddings.

    Raises
    ------
    UsageError
        If there is nothing to draw, there are too many panels, labels are of other points or groups, or there is no
        such way or its package is missing.
    DataError
        If embeddings cannot be drawn; see `principal_components`.
    """
    parts = check_series(list(embeddings), "panels")
    check_projection(how)
    for part in parts:
        given, n = np.asarray(labels.get(part, [])), len(embeddings[part])
        if given.shape != (n,) or given.dtype.kind != "i" or (n and not -1 <= given.min() <= given.max() < len(names)):
            raise UsageError(
                f"got {len(given)} labels of {part}, expected {n} from -1 to {len(names) - 1}, a group of each point"
            )
    figure, axes = panels(len(parts), "Map by group", size=(5.2, 4.2))
    classes = _by_group(names, without if any((labels[part] < 0).any() for part in parts) else None)
    for axis, part in zip(axes, parts, strict=True):
        shown = np.flatnonzero(_drawn(len(embeddings[part])))
        xy, axis_labels = _places(embeddings[part], shown, how, seed)  # (n, 2)
        of = np.minimum(labels[part][shown], _place_of_others(len(names)))  # (n,)
        for group, _, look in classes:
            axis.plot(xy[of == group, 0], xy[of == group, 1], linestyle="", markersize=4.0, **look)
        n_all = len(embeddings[part])
        axis.set_title(part if len(shown) == n_all else f"{part} ({len(shown):,} of {n_all:,} are drawn)")
        axis.set(xlabel=axis_labels[0], ylabel=axis_labels[1])
    _name_classes(figure, "group", [*classes[1:], classes[0]] if classes[0][0] == -1 else classes)
    return figure


def _drawn(n: int) -> np.ndarray:
    """Return which of n points are drawn, (n,), bool: all, or as many as there is room for, at even steps."""
    shown = np.zeros(n, dtype=bool)
    shown[np.linspace(0, n - 1, min(n, MOST_POINTS)).round().astype(int)] = True
    return shown


def _places(vectors: np.ndarray, shown: np.ndarray, how: str, seed: int) -> tuple[np.ndarray, tuple[str, str]]:
    """Return where the points that are drawn lie, (n, 2), and what the axes are."""
    if how == "umap":
        return project(vectors[shown], how, seed=seed), ("UMAP: near points are alike", "distances say nothing")
    places, shares = principal_components(vectors)
    words = f"first principal component ({shares[0]:.0%} of variance)", f"second ({shares[1]:.0%} of variance)"
    return places[shown], words


def _place_of_others(n_groups: int) -> int:
    """Return the group from which on groups share a look."""
    return n_groups if n_groups <= _LOOKS else _LOOKS - 1


def _by_group(names: Sequence[str], without: str | None) -> "list[tuple[int, str, dict[str, Any]]]":
    """Return number, name and look of each group; points in none come first, so that they lie below the others."""
    others, n = _place_of_others(len(names)), len(COLORS)
    looks = [_look(COLORS[one % n], MARKERS[(one + 3 * (one // n)) % n]) for one in range(min(len(names), _LOOKS))]
    found = [(one, name, looks[one]) for one, name in enumerate(names[:others])]
    found += [(others, OTHER, looks[others])] if others < len(names) else []
    return found if without is None else [(-1, without, _look("none", "o")), *found]


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


def _name_classes(figure: "Figure", title: str, classes: "Sequence[tuple[Any, str, dict[str, Any]]]") -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], linestyle="", markersize=6, **look) for _, _, look in classes]
    name_marks(figure, handles, [name for _, name, _ in classes], title)
