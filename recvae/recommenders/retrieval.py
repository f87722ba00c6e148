"""The best items of a model by a search of their vectors: an index proposes candidates, the model's scores rank them.

Lists are those of `Model.recommend`, with the same scores, except where the index misses an item: `recvae export`
measures how often. Seen and excluded items are never among the candidates, and no list is shorter than the exact one:

- Twice as many candidates are asked for as the list has items and the user hidden ones, and some more.
- Where few items are allowed, these are all scored. Where many are, more lists are searched, so that as many allowed
  items are looked at as without a filter.
- Where a search finds mostly hidden items, what a user may see lies deeper: more lists are searched, in proportion. So
  too for lists of more than 100 items.
- Where too few are left, more lists are searched, in the end all.
- Where a good part of all items would be candidates, all items are scored.

Letters in shape comments: U users, I items, C candidates, N items of a history, W width of a query, k ranks.
"""

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from recvae.errors import UsageError
from recvae.interactions import as_interactions
from recvae.items import check_k
from recvae.models.common.base import Model
from recvae.ranking import padded_rows, rank_candidates
from recvae.recommenders.vector_index import VectorIndex

_SPARE = 50  # candidates beyond twice those needed: with 8 bits the order is not quite that of the scores
_FEW = 5_000  # allowed items that are all scored
_USERS = 64  # ranked at a time
_DEPTH = 100  # items of the longest list for which it is measured how many are found
_MORE = 4  # times as many lists, where too few candidates are left


class _Filter:
    """The items that may be returned to a user.

    Parameters
    ----------
    mask : ndarray of shape (n_items,), bool, or None
        Which ones; None for all.
    n_items : int
        Of the model.
    """

    def __init__(self, mask: np.ndarray | None, n_items: int) -> None:
        self._mask = mask
        self.n = n_items if mask is None else int(np.count_nonzero(mask))

    @property
    def is_short(self) -> bool:
        """Whether there are so few that all can be scored."""
        return self._mask is not None and self.n <= _FEW

    @cached_property
    def columns(self) -> np.ndarray:
        """Their columns, ascending."""
        assert self._mask is not None
        return np.flatnonzero(self._mask)

    @cached_property
    def bits(self) -> np.ndarray | None:
        """A bit for each item; see `VectorIndex.search`."""
        return None if self._mask is None else np.packbits(self._mask, bitorder="little")


@dataclass(frozen=True, kw_only=True)
class _User:
    """A user who is to get a list: query (W,), history with its weights (N,), what is hidden, what is allowed."""

    query: np.ndarray
    items: np.ndarray
    weights: np.ndarray
    hidden: np.ndarray
    allowed: _Filter


class Retriever:
    """A model with an index of its item vectors; it is thread-safe.

    Parameters
    ----------
    model : Model
        Fitted, with item vectors.
    index : VectorIndex
        Of these vectors.
    lists : int
        Number of lists to search, from 1 to `index.n_lists`.

    Raises
    ------
    UsageError
        If the model has no item vectors, the index is not of as many items with as many numbers, or has fewer lists.
    """

    def __init__(self, model: Model, index: VectorIndex, lists: int) -> None:
        self._vectors, self._bias = model.item_vectors()  # (I, W) and (I,)
        expected = (len(self._vectors), width_of(self._vectors, self._bias))
        if (index.n_items, index.width) != expected:
            raise UsageError(
                f"got an index of {index.n_items:,} items with {index.width} numbers each, expected {expected[0]:,} "
                f"items with {expected[1]}: it is of another model; make one with `recvae export RUN --format index`"
            )
        if not 1 <= lists <= index.n_lists:
            raise UsageError(f"got lists={lists}, expected a whole number from 1 to {index.n_lists}")
        self.model, self.index, self.lists = model, index, lists
        self._has_terms = model.own_item_terms(np.ones(1, dtype=np.float32)) is not None

    def recommend(
        self,
        user_items: sp.csr_matrix,
        k: int = 10,
        *,
        hidden: sp.csr_matrix | None = None,
        allowed: np.ndarray | None = None,
        max_memory: int | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the k best items for each user, by default never one of the user's history; see `Model.recommend`.

        Parameters
        ----------
        user_items : sparse matrix of shape (n_users, n_items)
            Histories of users, seen in training or not.
        k : int
            Items per user, >= 1.
        hidden : sparse matrix of shape (n_users, n_items), optional
            Items of each user that must not be returned; by default the history.
        allowed : ndarray of shape (n_items,) or (n_users, n_items), bool, optional
            Items that may be returned, of all users or of each; by default all.
        max_memory : int, optional
            Bytes that scoring may take.

        Returns
        -------
        items : ndarray of shape (n_users, k), int64
            Item columns, best first, equal scores by ascending column; -1 where the items ran out.
        scores : ndarray of shape (n_users, k), float32
            Their scores; -inf where the items ran out.

        Raises
        ------
        DataError
            If the number of items is not that of the training data.
        UsageError
            If k is not a whole number >= 1.
        """
        check_k(k)
        histories = as_interactions(user_items, "the histories", self.index.n_items)
        masked = histories if hidden is None else as_interactions(hidden, "the hidden items", self.index.n_items)
        users = self._users(histories, masked, allowed, max_memory)
        items = np.full((len(users), k), -1, dtype=np.int64)
        scores = np.full((len(users), k), -np.inf, dtype=np.float32)
        exactly = []
        for start in range(0, len(users), _USERS):
            numbers = range(start, min(start + _USERS, len(users)))
            found = {number: self._candidates(users[number], k) for number in numbers}
            near = [(number, columns) for number, columns in found.items() if columns is not None]
            exactly += [number for number, columns in found.items() if columns is None]
            if near:
                places, columns = zip(*near, strict=True)
                values = [self._scores(users[number], of_user) for number, of_user in near]
                items[[*places]], scores[[*places]] = rank_candidates(
                    padded_rows(columns, -1), padded_rows(values, -np.inf), k
                )
        if exactly:
            of_users = allowed if allowed is None or allowed.ndim == 1 else allowed[exactly]
            items[exactly], scores[exactly] = self.model.recommend(
                histories[exactly], k, hidden=masked[exactly], allowed=of_users, max_memory=max_memory
            )
        return items, scores

    def _users(
        self, histories: sp.csr_matrix, masked: sp.csr_matrix, allowed: np.ndarray | None, max_memory: int | None
    ) -> list[_User]:
        queries = self.model.query_vectors(histories, max_memory=max_memory)  # (U, W)
        expected = (histories.shape[0], self._vectors.shape[1])
        if queries.shape != expected:  # of a model of your own
            raise UsageError(
                f"got query vectors of shape {queries.shape} from {self.model.name}, expected {expected}: one for each "
                "user, with as many numbers as an item vector"
            )
        if self._bias is not None:
            queries = np.column_stack([queries, np.ones(len(queries), dtype=np.float32)])
        n_items, same = self.index.n_items, None
        if allowed is None or allowed.ndim == 1:
            same = _Filter(allowed, n_items)
        users = []
        for number, query in enumerate(queries):
            own = slice(*histories.indptr[number : number + 2])
            users.append(
                _User(
                    query=query,
                    items=histories.indices[own],
                    weights=histories.data[own],
                    hidden=masked.indices[slice(*masked.indptr[number : number + 2])],
                    allowed=same or _Filter(None if allowed is None else allowed[number], n_items),
                )
            )
        return users

    def _candidates(self, user: _User, k: int) -> np.ndarray | None:
        """Return columns (C,), ascending, at least k of which none is hidden; None where all items must be scored."""
        allowed, index = user.allowed, self.index
        if allowed.is_short:
            return _without(allowed.columns, user.hidden)
        n_hidden = len(user.hidden)
        wanted = 2 * (k + n_hidden + (len(user.items) if self._has_terms else 0)) + _SPARE
        if 2 * wanted >= allowed.n or not user.query.any():  # a query of zeros finds any items
            return None
        measured = self.lists * index.n_items / allowed.n  # lists, with as many allowed items as were looked at then
        lists = measured * max(1.0, k / _DEPTH)
        while True:
            lists = min(math.ceil(lists), index.n_lists)
            found = index.search(user.query, wanted, lists, allowed.bits)
            left = _without(found, user.hidden)
            enough = measured * (k + len(found) - len(left)) / _DEPTH  # lists, for a list that much longer
            is_enough = len(left) >= k and 2 * lists >= enough
            if is_enough or lists == index.n_lists:
                return left if len(left) >= k else None
            lists = max(enough, _MORE * lists) if len(left) < k else enough

    def _scores(self, user: _User, columns: np.ndarray) -> np.ndarray:
        """Return the model's scores (C,) of a user's candidates (C,).

        Sums are in float64: equal vectors then have equal scores, also where a product of matrices would add them up in
        another order.
        """
        width = self._vectors.shape[1]
        vectors = self._vectors[columns].astype(np.float64)  # (C, W)
        scores = np.einsum("cw,w->c", vectors, user.query[:width].astype(np.float64))
        if self._bias is not None:
            scores += self._bias[columns]
        if self._has_terms:
            places = np.minimum(np.searchsorted(columns, user.items), len(columns) - 1)  # (N,)
            is_there = columns[places] == user.items if len(columns) else np.zeros(len(places), dtype=bool)
            terms = self.model.own_item_terms(user.weights)
            assert terms is not None
            scores[places[is_there]] += terms[is_there]
        return scores.astype(np.float32)


def _without(columns: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Return the columns, ascending, that are not hidden; both have each column once."""
    return np.setdiff1d(columns, hidden, assume_unique=True) if len(hidden) else columns


def width_of(vectors: np.ndarray, bias: np.ndarray | None) -> int:
    """Return how many numbers a query has: one more than a vector where there is a bias."""
    return vectors.shape[1] + (bias is not None)


def hash_of(vectors: np.ndarray, bias: np.ndarray | None) -> str:
    """Return the SHA-256 of item vectors, by which an index knows whose it is."""
    digest = hashlib.sha256(str((vectors.shape, bias is not None)).encode())
    for array in (vectors, bias):
        if array is not None:
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
