"""What every recommender does around its scores: external ids in and out, options, a fallback, explanations.

Importing this needs only numpy, so that a service without torch behaves the same; see `recommender.Recommender` and
`serving.onnx.OnnxRecommender`.

Letters in shape comments: U users, I items, C candidates, N items of a history, k ranks.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from recvae.errors import UsageError
from recvae.items import DEFAULT_K, ItemIndex, check_k
from recvae.recommenders.answers import (
    BatchRecommendations,
    Explanation,
    Recommendations,
    Request,
    check_request,
    explanations_of,
)
from recvae.recommenders.diversity import diversified
from recvae.recommenders.histories import Histories, History, histories_of, history_of
from recvae.recommenders.id_lists import as_list, check_exact, mask_of_ids
from recvae.recommenders.shown import ShownRecommender

_CANDIDATES, _MOST_CANDIDATES = 5, 500  # per item of a diversified list; in total, unless k is larger


class BaseRecommender(ShownRecommender, ABC):
    """A recommender on external ids. Subclasses provide ranked columns, similarities and contributions."""

    items: ItemIndex
    """The items by column: ids, titles, number of training users."""

    @property
    @abstractmethod
    def model_name(self) -> str:
        """Name of the model in the registry."""

    @property
    @abstractmethod
    def manifest(self) -> dict[str, Any]:
        """Manifest of the data the model was trained on."""

    @property
    @abstractmethod
    def metrics(self) -> dict[str, dict[str, float]]:
        """Mean of each metric by part, measured after training."""

    @abstractmethod
    def _ranked(
        self, histories: Histories, k: int, hidden: Histories, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the columns and scores (U, k) of the best items; see `ranking.rank`."""

    @abstractmethod
    def _nearest(self, column: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the columns and similarities (k,) of the items most similar to an item, without the item itself."""

    @abstractmethod
    def _similarities(self, columns: np.ndarray) -> np.ndarray:
        """Return the similarities between some items, (C, C)."""

    @abstractmethod
    def _contributions(self, history: Histories, columns: np.ndarray) -> np.ndarray:
        """Return how much each item of a user's history contributed to the scores of some items, (N, C)."""

    @property
    def can_diversify(self) -> bool:
        """Whether `diversify` may be above 0: whether all items can be compared with one another."""
        return False

    @property
    def item_ids(self) -> np.ndarray:
        """External ids of the items, shape (n_items,)."""
        return self.items.ids

    def recommend(
        self,
        items: History,
        k: int = DEFAULT_K,
        *,
        exclude: Iterable[int | str] = (),
        allow: Iterable[int | str] | None = None,
        filter_seen: bool = True,
        diversify: float = 0.0,
    ) -> Recommendations:
        """Recommend items to a user with a history; the user need not have been in training.

        Parameters
        ----------
        items : iterable of int or str, or mapping of these to weights
            The user's history as external ids, in any order; 318 and "318" are the same item. Unknown ids are
            reported in the result. If all ids are unknown, the most popular items are returned.
        k : int
            Number of items, >= 1.
        exclude : iterable of int or str
            Ids that are never returned; unknown ids are ignored.
        allow : iterable of int or str, optional
            The only ids that may be returned; by default all.
        filter_seen : bool
            Whether to leave out items that the user has already seen.
        diversify : float
            Variety of the list, from 0 (off) to 1 (maximum); see `diversity.diversified`.

        Returns
        -------
        Recommendations
            k items; fewer only if fewer are allowed.

        Raises
        ------
        UsageError
            If `items` is not a list of ids but e.g. a single id, a table or a matrix, k is not a whole number >= 1,
            `diversify` is not in [0, 1], or the model has no item similarities and `diversify` is above 0.
        """
        request = Request(items=items, k=k, exclude=exclude, allow=allow, filter_seen=filter_seen, diversify=diversify)
        return self.answer([request])[0]

    def answer(self, requests: Sequence[Request]) -> list[Recommendations]:
        """Recommend items to several users with different options, scored in one batch.

        Parameters
        ----------
        requests : sequence of Request
            One per user.

        Returns
        -------
        list of Recommendations
            What `recommend` returns for each request; the other requests make no difference.

        Raises
        ------
        UsageError
            See `recommend`.
        """
        if not requests:
            return []
        for request in requests:
            check_request(request)
        found = self._recommend_all(
            Histories.joined([history_of(request.items, self.items) for request in requests]),
            np.array([min(int(request.k), len(self.items)) for request in requests]),
            self._masks(requests),
            np.array([request.filter_seen for request in requests], dtype=bool),
            np.array([float(request.diversify) for request in requests]),
        )
        return list(found)

    def recommend_batch(
        self,
        histories: object,
        k: int = DEFAULT_K,
        *,
        exclude: Iterable[int | str] = (),
        allow: Iterable[int | str] | None = None,
        filter_seen: bool = True,
        diversify: float = 0.0,
    ) -> BatchRecommendations:
        """Recommend items to many users, in blocks.

        Parameters
        ----------
        histories : object
            A list of histories, a mapping or a pandas Series of users to histories, a scipy sparse matrix, or a pandas,
            polars or Arrow table of user and item; see `histories.histories_of`.
        k, exclude, allow, filter_seen, diversify
            See `recommend`; the same for every user.

        Returns
        -------
        BatchRecommendations
            A sequence with the result of `recommend` for each user; `to_pandas` and `to_arrow` return one table.

        Raises
        ------
        UsageError, DataError
            If `histories` is none of these; otherwise see `recommend`.
        """
        check_request(Request(items=(), k=k, diversify=diversify))
        read = histories_of(histories, self.items)
        n = len(read.users)
        return self._recommend_all(
            read,
            np.full(n, min(int(k), len(self.items))),
            self._mask(allow, exclude),
            np.full(n, bool(filter_seen)),
            np.full(n, float(diversify)),
        )

    def _recommend_all(
        self, histories: Histories, ks: np.ndarray, allowed: np.ndarray | None, hides: np.ndarray, shares: np.ndarray
    ) -> BatchRecommendations:
        """Recommend `ks` (U,) items to users: allowed ones (I,) or (U, I), without seen ones where `hides` (U,)."""
        is_cold = histories.is_empty  # (U,)
        candidates = np.minimum(_CANDIDATES * ks, np.maximum(ks, _MOST_CANDIDATES))  # (U,)
        wanted = np.where(shares > 0, np.minimum(candidates, len(self.items)), ks)  # (U,)
        most = int(wanted.max(initial=0))
        columns = np.full((len(is_cold), most), -1, dtype=np.int64)
        scores = np.full((len(is_cold), most), -np.inf, dtype=np.float32)
        for rank, users in ((self._ranked, ~is_cold), (self._most_popular, is_cold)):
            if users.any():
                chosen = histories.of(users)
                mask = allowed if allowed is None or allowed.ndim == 1 else allowed[users]
                columns[users], scores[users] = rank(chosen, most, chosen.emptied(~hides[users]), mask)
        for user in np.flatnonzero(shares > 0).tolist():
            self._diversify(columns[user, : wanted[user]], scores[user, : wanted[user]], ks[user], shares[user])
        too_many = np.arange(most) >= ks[:, None]  # (U, most)
        columns[too_many], scores[too_many] = -1, -np.inf
        k = int(ks.max(initial=0))
        return BatchRecommendations(
            users=histories.users,
            columns=columns[:, :k],
            scores=scores[:, :k],
            fallback=is_cold,
            unknown=histories.unknown,
            items=self.items,
        )

    @cached_property
    def _all(self) -> np.ndarray:
        return np.ones(len(self.items), dtype=bool)

    def _masks(self, requests: Sequence[Request]) -> np.ndarray | None:
        """Return the items that may be recommended: (I,) if the same for all users, else (U, I); None for all items."""
        lists = {(id(request.allow), id(request.exclude)): request for request in requests}
        made = {key: self._mask(request.allow, request.exclude) for key, request in lists.items()}
        if len(made) == 1 or all(mask is None for mask in made.values()):
            return next(iter(made.values()))
        masks = (made[id(request.allow), id(request.exclude)] for request in requests)
        return np.stack([self._all if mask is None else mask for mask in masks])  # (U, I)

    def _mask(self, allow: Iterable[int | str] | None, exclude: Iterable[int | str]) -> np.ndarray | None:
        """Return the items (I,) that may be recommended to a user; None for all items."""
        never = mask_of_ids(exclude, self.items, "exclude")
        if allow is None and not never.any():
            return None
        return (self._all if allow is None else mask_of_ids(allow, self.items, "allow")) & ~never

    @cached_property
    def _by_popularity(self) -> np.ndarray:
        return np.argsort(-self.items.train_counts.astype(np.int64), kind="stable")  # (I,)

    def _most_popular(
        self, histories: Histories, k: int, hidden: Histories, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the most popular items, for users without a known item: they have none to hide."""
        assert not len(hidden.columns)
        columns = np.full((len(histories.users), k), -1, dtype=np.int64)
        scores = np.full(columns.shape, -np.inf, dtype=np.float32)
        for user in range(len(columns)):
            found = self._by_popularity
            if allowed is not None:
                mask = allowed if allowed.ndim == 1 else allowed[user]
                found = found[mask[found]]
            best = found[:k]
            columns[user, : len(best)], scores[user, : len(best)] = best, self.items.train_counts[best]
        return columns, scores

    def _diversify(self, columns: np.ndarray, scores: np.ndarray, k: int, share: float) -> None:
        """Re-rank a user's candidates (C,) for variety and keep k of them, in place."""
        found = columns[columns >= 0]
        if len(found):
            chosen = diversified(scores[: len(found)], self._similarities(found), int(k), float(share))
            columns[: len(chosen)], scores[: len(chosen)] = found[chosen], scores[chosen]
            columns[len(chosen) :], scores[len(chosen) :] = -1, -np.inf

    def similar_items(self, item: int | str, k: int = DEFAULT_K) -> Recommendations:
        """Return the items most similar to an item: by decoder weights, the matrix B of EASE, or ALS factors.

        Parameters
        ----------
        item : int or str
            External id.
        k : int
            Number of items, >= 1.

        Returns
        -------
        Recommendations
            Without the item itself; `scores` are the similarities.

        Raises
        ------
        UsageError
            If the item is unknown, or the model has no item similarities.
        """
        check_k(k)
        columns, scores = self._nearest(self._column(item), min(int(k), len(self.items) - 1))
        return BatchRecommendations(
            users=[0],
            columns=columns[None],  # (k,) -> (1, k)
            scores=scores[None],
            fallback=np.array([False]),
            unknown=[[]],
            items=self.items,
        )[0]

    def explain(self, items: History, recommended: Iterable[int | str], most: int | None = None) -> list[Explanation]:
        """Explain recommendations: how much each item of the history contributed to their scores.

        Exact for EASE, EDLAE and ALS, whose contributions add up to the score. For other models, the contribution of an
        item is the loss in score when it is left out of the history.

        Parameters
        ----------
        items : iterable of int or str, or mapping of these to weights
            The history; unknown ids are ignored.
        recommended : iterable of int or str
            External ids of the items to explain, e.g. `Recommendations.ids`.
        most : int, optional
            Number of reasons per item, >= 1, largest first; by default one for each item of the history.

        Returns
        -------
        list of Explanation
            One for each of `recommended`; without reasons if no item of the history is known.

        Raises
        ------
        UsageError
            If an item to explain is unknown, or `most` is not a whole number >= 1.
        """
        if most is not None:
            check_k(most)
        if isinstance(recommended, str | bytes) or not isinstance(recommended, Iterable):
            raise UsageError(f"got a single id {recommended!r}, expected a list of ids, e.g. [{recommended!r}]")
        columns = np.array([self._column(item) for item in as_list(recommended)], dtype=np.int64)
        history = history_of(items, self.items)
        values = np.empty((0, len(columns)))  # (N, C)
        if len(history.columns) and len(columns):
            values = self._contributions(history, columns)
        return explanations_of(columns, history.columns[: len(values)], values, self.items, most)

    def _column(self, item: int | str) -> int:
        check_exact([item], "what was asked for")
        column = self.items.column_of(item)
        if column is None:
            raise UsageError(f"unknown item {item!r}; ids look like {self.items.ids[0]}")
        return column
