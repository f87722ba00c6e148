"""Features as 0 and 1, for a probe: words as they are, numbers above their median or not.

Letters in shape comments: I items or users, F features.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from recvae.datasets.feature_kinds import LISTS, NUMBERS, VECTORS, WORDS
from recvae.datasets.features import ItemFeatures
from recvae.errors import DataError


class Labels(NamedTuple):
    """What a probe has to tell.

    Parameters
    ----------
    matrix : csr_matrix of shape (n_known, n_features), bool
        Which of the items (or users) about whom something is known have a feature.
    names : tuple of str
        Of the features, e.g. `genre=Drama` or `year > 1994`.
    known : ndarray of shape (n_known,), int64
        The items (or users), as rows of the features.
    remarks : list of str
        What was left out, and why.
    """

    matrix: sp.csr_matrix
    names: tuple[str, ...]
    known: np.ndarray
    remarks: list[str]

    @property
    def counts(self) -> dict[str, int]:
        """How many have each feature."""
        return dict(zip(self.names, self.matrix.getnnz(axis=0).tolist(), strict=True))


def labels_of(features: ItemFeatures, of: str = "items", *, are_chosen: bool = False) -> Labels:
    """Turn features into 0 and 1, and leave out what cannot be.

    Parameters
    ----------
    features : ItemFeatures
        Of items, or attributes of users. A word is a feature that an item has or lacks; a number is above the median
        of all, or is not. An embedding is left out.
    of : {"items", "users"}
        Whose they are, for remarks.
    are_chosen : bool
        Whether the columns were named by the user: then none is left out because it is mostly empty.

    Returns
    -------
    Labels
        Items for which a column holds nothing are left out, since they may have any of its features; but a column that
        holds nothing for more than half of the items of which anything is known is left out itself.

    Raises
    ------
    DataError
        If nothing is left.
    """
    matrix = sp.csc_matrix(features.matrix)  # (I, F)
    matrix.eliminate_zeros()
    chosen, known, remarks = _that_can_be_probed(features, matrix, of, are_chosen)
    if not chosen or not len(known):
        raise DataError(
            f"got no feature of {of} that can be probed ({'; '.join(remarks)}), expected words or numbers; choose "
            "other columns"
        )
    names, labels = [], []
    for place, is_number, is_second in chosen:
        values, name = matrix[:, [place]][known], features.names[place]  # (I, 1)
        if is_number and not np.isin(values.data, (0, 1)).all():
            name, values = _halves(name, values.toarray())
        values = values > 0
        if is_second and (values.toarray() != labels[-1].toarray()).all():
            if values.nnz < labels[-1].nnz:  # who has not the one word has the other: the rarer one is asked for
                names[-1], labels[-1] = name, values
            continue
        names.append(name)
        labels.append(values)
    return Labels(sp.csr_matrix(sp.hstack(labels), dtype=bool), tuple(names), known, remarks)


def _that_can_be_probed(
    features: ItemFeatures, matrix: sp.csc_matrix, of: str, are_chosen: bool
) -> tuple[list[tuple[int, bool, bool]], np.ndarray, list[str]]:
    """Return the features, each with whether it is a number or the second of two words; for whom; and what is left."""
    columns = list(_columns(features, matrix))
    unknown = np.ones(matrix.shape[0], bool)  # (I,)
    for *_, lacks in columns:
        unknown &= lacks if lacks is not None else False
    is_left, n_known, remarks, chosen = ~unknown, int((~unknown).sum()), [], []
    if n_known < len(unknown):
        remarks.append(f"left out: {len(unknown) - n_known:,} of {len(unknown):,} {of}, of which nothing is known")
    for name, places, kind, lacks in columns:
        n_lacking = 0 if lacks is None else int((lacks & ~unknown).sum())
        if kind == VECTORS:
            remarks.append(f"'{name}' is a vector, and left out; a probe takes words and numbers")
        elif lacks is None:
            remarks.append(f"'{name}' is left out: the data set does not say which of its zeros are missing numbers")
        elif 2 * n_lacking > n_known and not are_chosen:
            remarks.append(f"'{name}' is left out: it is empty for {n_lacking:,} of {n_known:,} {of}")
        else:
            if n_lacking:
                remarks.append(f"left out: {n_lacking:,} {of} for which '{name}' is empty")
            is_left &= ~lacks
            chosen += [(place, kind == NUMBERS, len(places) == 2 and place > places[0]) for place in places]
    return chosen, np.flatnonzero(is_left), remarks


def _halves(name: str, numbers: np.ndarray) -> tuple[str, sp.csc_matrix]:
    """Return numbers (I, 1) as above the median or not; at the median or not, where it is also the largest."""
    middle = float(np.median(numbers))
    if numbers.max() > middle:
        return f"{name} > {middle:g}", sp.csc_matrix(numbers > middle)
    return f"{name} >= {middle:g}", sp.csc_matrix(numbers >= middle)


def _columns(features: ItemFeatures, matrix: sp.csc_matrix) -> Iterator[tuple[str, range, str, np.ndarray | None]]:
    """Yield name, features and kind of each column, and for which items it is empty (I,); None: nobody knows."""
    place = 0
    for number, column in enumerate(features.columns):
        places = range(place, place + column.n_features)
        place += column.n_features
        zero = np.bincount(matrix[:, list(places)].indices, minlength=matrix.shape[0]) == 0  # (I,)
        if features.filled is not None:
            lacks = ~features.filled[:, number]
        elif column.kind in (WORDS, LISTS) or int(zero.sum()) == column.n_without:
            lacks = zero
        else:
            lacks = np.zeros(len(zero), bool) if column.n_without == 0 else None
        yield column.name, places, column.kind, lacks
    for rest in range(place, len(features.names)):  # of a matrix that was given as it is
        kind = WORDS if np.isin(matrix[:, [rest]].data, (0, 1)).all() else NUMBERS
        yield features.names[rest], range(rest, rest + 1), kind, np.zeros(matrix.shape[0], bool)
