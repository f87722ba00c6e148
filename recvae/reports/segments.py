"""A page about groups of users: sizes, what each group has more of, maps of users and items, how to make it again.

It has no single user in it.

Letters in shape comments: U users.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from recvae.bundles.bundle import Bundle
from recvae.datasets.dataset import Dataset
from recvae.display import plural
from recvae.evaluation.documents import document
from recvae.items import ItemIndex
from recvae.latent.segments import LEAST_USERS, Segment, Segments
from recvae.reports.again import again
from recvae.reports.examples import title_of
from recvae.reports.latent import segment_map
from recvae.reports.markup import STYLE, escaped, listed, paragraph, picture_of, section, text_table
from recvae.reports.popularity import popularity_of_histories
from recvae.version import __version__

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNNAMED = "nothing that a tenth of them have more often than others"
TOO_FEW = f"not named: they are fewer than {LEAST_USERS} users"
ON_PAGE = 10
"""Items that the page shows of each group, where it has as many."""

_LEGEND = 30  # characters of a name in a legend
_PLACES = {
    "pca": "The plane is that of the first two principal components of all vectors.",
    "umap": "The plane is made by UMAP: near points are alike, distances between groups say nothing.",
}
_SECTIONS = {
    "groups": "The groups",
    "maps": "Maps",
    "items": "What each group has more of",
    "again": "How to make it again",
}


@dataclass(frozen=True, kw_only=True)
class SegmentsReport:
    """What the page shows.

    Parameters
    ----------
    found : Segments
        Groups of the training users.
    dataset : Dataset
        Whose training users these are.
    run : str
        Name of the run.
    bundle : Bundle
        What it holds.
    card : mapping
        What it says of itself.
    picture : Figure
        The maps; see `segments_map`.
    how : str
        "pca" or "umap", how these were made.
    seeds : int
        Other seeds of k-means that were compared with.
    named_by : int
        Items that a group is named by.
    command : str
        What was typed.
    """

    found: Segments
    dataset: Dataset
    run: str
    bundle: Bundle
    card: Mapping[str, Any]
    picture: "Figure"
    how: str
    seeds: int
    named_by: int
    command: str


def named(segment: Segment, items: ItemIndex, named_by: int) -> str:
    """Return what a group has more of than others, in a line."""
    if segment.is_small:
        return TOO_FEW
    return "; ".join(title_of(items, column) for column in segment.items[:named_by].tolist()) or UNNAMED


def segments_map(found: Segments, items: ItemIndex, how: str = "pca", *, seed: int = 0) -> "Figure":
    """Draw users and, where the model has vectors of them, items, coloured by their group.

    Parameters
    ----------
    found : Segments
        The groups.
    items : ItemIndex
        Titles, which name the groups.
    how : str
        "pca" or "umap"; see `recvae.latent.projections`.
    seed : int
        Of UMAP.

    Returns
    -------
    matplotlib Figure
        One panel of users, and one of items where there are vectors.

    Raises
    ------
    UsageError, DataError
        See `recvae.plots.segment_map`.
    """
    embeddings, labels = {"users": found.vectors}, {"users": found.labels}
    if found.item_vectors is not None:
        embeddings["items"], labels["items"] = found.item_vectors, found.item_labels
    names = [f"{number}: {_shortened(one, items)}" for number, one in enumerate(found.segments, 1)]
    return segment_map(embeddings, labels, names, how, without=f"items that fewer than {LEAST_USERS} have", seed=seed)


def _shortened(segment: Segment, items: ItemIndex) -> str:
    if not len(segment.items):
        return "too few to name" if segment.is_small else "nothing in particular"
    title = title_of(items, int(segment.items[0]))
    return title if len(title) <= _LEGEND else title[: _LEGEND - 1].rstrip() + "…"


def segments_page(report: SegmentsReport) -> str:
    """Write groups of users as one HTML page, which needs no other file and no network.

    Everything that comes from data is escaped.

    Parameters
    ----------
    report : SegmentsReport
        What it shows.
    """
    title = f"Groups of users of {report.dataset.name}"
    has_items = report.found.item_vectors is not None
    caption = f"Each point is a user, or an item. {_PLACES[report.how]} " + (
        f"An item has the colour of the group in which its lift is highest; one that fewer than {LEAST_USERS} users "
        "have has none."
        if has_items
        else f"{report.bundle.model.name} has no vectors of items, so there is no map of them."
    )
    contents = {
        "groups": _groups(report),
        "maps": picture_of(report.picture, "maps", caption),
        "items": _items(report),
        "again": again(report.dataset.manifest, {report.run: report.bundle}, {report.run: report.card}, report.command),
    }
    written = datetime.now(UTC).strftime("%d %B %Y").lstrip("0")
    links = "".join(f'<a href="#{name}">{heading}</a>' for name, heading in _SECTIONS.items())
    parts = [
        f"<h1>{escaped(title)}</h1>",
        paragraph(f"by {report.run}; written on {written} by recvae {__version__}", "note"),
        listed(_in_short(report), "lead"),
        f"<nav>{links}</nav>",
        *(section(name, heading, contents[name]) for name, heading in _SECTIONS.items()),
    ]
    return document(title, "\n".join(parts), STYLE)


def _in_short(report: SegmentsReport) -> list[str]:
    found = report.found
    model, n_users = report.bundle.model.name, len(found.labels)
    return [
        f"k-means put {n_users:,} training users into {len(found.segments)} groups, by the vectors that {model} has of "
        "them. A group is a part of a space, not a kind of person: users at its edge are like those of the next one.",
        f"k-means with {plural(report.seeds, 'other seed')} agrees by {found.stability:.2f} (adjusted Rand index): 1 "
        "would be the same groups, 0 no more than chance. Groups that other seeds do not find are not in the data.",
        "The lift of an item is how many times as many users of the group have it as of all users. Groups of "
        "long histories have more of nearly everything.",
    ]


def _groups(report: SegmentsReport) -> str:
    train, items, found = report.dataset.train, report.dataset.items, report.found
    lengths = train.getnnz(axis=1)  # (U,)
    popularity = popularity_of_histories(train, items.train_counts / train.shape[0])  # (U,)
    rows = []
    for number, one in enumerate(found.segments):
        inside = found.labels == number  # (U,)
        low, middle, high = np.quantile(lengths[inside], (0.25, 0.5, 0.75))
        known = inside & (lengths > 0)
        mean = f"{popularity[known].mean():.1%}" if known.any() else "-"
        of_items = int((found.item_labels == number).sum())
        name = named(one, items, report.named_by)
        about = [f"{middle:,.0f}", f"{low:,.0f} to {high:,.0f}", mean, f"{of_items:,}"]
        if one.is_small:  # figures of a few users are those of single ones
            about = ["-"] * len(about)
        rows.append([number + 1, name, f"{one.n_users:,}", f"{one.share:.1%}", *about])
    return text_table(
        ["group", "named by", "users", "share", "median length", "middle half", "popularity", "items"],
        rows,
        texts=(1,),
        note="named by: the items with the highest lift among those that a tenth of the group has; items and groups "
        f"of fewer than {LEAST_USERS} users name nothing; length: items in the history; "
        f"popularity: the share of all users who have an item, mean over the items of a user, then over "
        f"users; items: those whose lift is highest in this group, of {len(items):,}",
    )


def _items(report: SegmentsReport) -> str:
    items, parts = report.dataset.items, []
    for number, one in enumerate(report.found.segments, 1):
        parts.append(f"<h3>Group {number}: {plural(one.n_users, 'user')}</h3>")
        if not len(one.items):
            parts.append(paragraph(f"{TOO_FEW.capitalize()}." if one.is_small else f"They have {UNNAMED}."))
            continue
        rows = [
            [title_of(items, column), f"{lift:.1f}", f"{share:.1%}", f"{items.train_counts[column]:,}"]
            for column, lift, share in zip(one.items.tolist(), one.lifts.tolist(), one.shares.tolist(), strict=True)
        ]
        parts.append(text_table(["item", "lift", "share of the group", "training users"], rows, texts=(0,)))
    return "\n".join(parts)
