"""Parts of held-out users or of their targets, to see for whom, and for which items, a model is good.

    length       users by the number of items in their fold-in, in four parts of about as many users
    popularity   targets by the popularity of their items: only those of a part count; see `recvae.metrics.beyond`

Letters in shape comments: U users.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from recvae.errors import UsageError
from recvae.interactions import HeldOut
from recvae.metrics import Background, Metric
from recvae.metrics.beyond import GROUPS, group_of_items

LENGTH, POPULARITY = "length", "popularity"
BY = (LENGTH, POPULARITY)
_PARTS = 4  # of the users by length


@dataclass(frozen=True, kw_only=True, eq=False)
class Slice:
    """A part of the users, or of all targets.

    Parameters
    ----------
    name : str
        What tables call it.
    targets : csr_matrix of shape (n_users, n_items)
        The targets that count; users of other slices have none.
    """

    name: str
    targets: sp.csr_matrix

    @property
    def n_users(self) -> int:
        """Users that have a target in it."""
        return int(np.count_nonzero(np.diff(self.targets.indptr)))


def slices_of(by: str | None, held_out: HeldOut, background: Background) -> list[Slice]:
    """Divide held-out users or their targets.

    Parameters
    ----------
    by : str, optional
        "length" or "popularity"; None for no slices.
    held_out : HeldOut
        Checked.
    background : Background
        Its training users say what is popular.

    Returns
    -------
    list of Slice
        Those that have any target: by length, the shortest histories first; by popularity, popular items first.

    Raises
    ------
    UsageError
        If `by` is unknown.
    """
    if by is None:
        return []
    check_by(by)
    slices = _by_length(held_out) if by == LENGTH else _by_popularity(held_out, background)
    return [part for part in slices if part.n_users]


def check_by(by: str | None, metrics: Sequence[Metric] = ()) -> None:
    """Refuse slices that there are not, or that say nothing of the metrics.

    Raises
    ------
    UsageError
        If so.
    """
    if by is None:
        return
    if by not in BY:
        raise UsageError(f"got slices by '{by}', expected one of: {', '.join(BY)}")
    if metrics and not any(metric.is_per_user for metric in metrics):
        names = ", ".join(map(str, metrics))
        raise UsageError(f"got {names} by {by}, expected a metric that has a value per user too, such as recall@20")
    beyond = [str(metric) for metric in metrics if metric.needs]
    if by == POPULARITY and beyond:
        raise UsageError(
            f"got {', '.join(beyond)} by {by}, which divides the targets, but this is no measure of all targets; leave "
            f"it out, or divide by {LENGTH}"
        )


def title_of(by: str) -> str:
    """Say in a few words what is divided, for tables."""
    if by == LENGTH:
        return "users by the number of items in their fold-in, about as many in each part"
    shares = ", ".join(f"{share:.0%} {name}" for name, share in GROUPS.items())
    return f"only targets of this popularity count; shares of the training interactions: {shares}"


def _by_length(held_out: HeldOut) -> list[Slice]:
    lengths = np.diff(held_out.fold_in.indptr)  # (U,)
    has_target = np.diff(held_out.targets.indptr) > 0
    if not has_target.any():
        return []
    borders = np.unique(np.quantile(lengths[has_target], np.arange(1, _PARTS) / _PARTS, method="inverted_cdf"))
    parts = np.searchsorted(borders, lengths)  # (U,); a border is the last length of its part
    found = []
    for part in np.unique(parts[has_target]):
        chosen = (parts == part) & has_target
        low, high = lengths[chosen].min(), lengths[chosen].max()
        name = f"{low:,}-{high:,} items" if high > low else f"{low:,} item{'' if low == 1 else 's'}"
        found.append(
            Slice(name=name, targets=_only(held_out.targets, np.repeat(chosen, np.diff(held_out.targets.indptr))))
        )
    return found


def _by_popularity(held_out: HeldOut, background: Background) -> list[Slice]:
    of_target = group_of_items(background)[held_out.targets.indices]  # of each target
    return [Slice(name=name, targets=_only(held_out.targets, of_target == n)) for n, name in enumerate(GROUPS)]


def _only(targets: sp.csr_matrix, stays: np.ndarray) -> sp.csr_matrix:
    """Return the targets that stay, a mask of all stored ones."""
    starts = np.append(0, np.cumsum(stays))[targets.indptr]
    return sp.csr_matrix((targets.data[stays], targets.indices[stays], starts), shape=targets.shape)
