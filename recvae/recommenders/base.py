"""What every recommender does around its scores: external ids in and out, wishes of users, a fallback, reasons.

Importing this takes numpy alone, so that a service without torch behaves the same; see `recommender.Recommender` and
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

_CANDIDATES, _MOST_CANDIDATES = 5, 500  # for each item of a diversified list; in all, unless as many are wanted


class Recommending(ABC):
    """A recommender on external ids: what it asks of a model are ranked columns, similarities and contributions."""

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
        """Mean of each metric by part, as training found them."""

    @abstractmethod
    def _ranked(
        self, histories: Histories, k: int, hidden: Histories, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the columns and scores (U, k) of the best items; see `ranking.rank`."""

    @abstractmethod
    def _nearest(self, column: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the columns and similarities (k,) of the items most similar to one, without itself."""

    @abstractmethod
    def _similarities(self, columns: np.ndarray) -> np.ndarray:
        """Return the similarities between some items, (C, C)."""

    @abstractmethod
    def _contributions(self, history: Histories, columns: np.ndarray) -> np.ndarray:
        """Return how much each item of a user's history contributed to the scores of some items, (N, C)."""

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
        """Recommend items to a user who has consumed some; the user need not have been in training.

        Parameters
        ----------
        items : iterable of int or str, or mapping of these to weights
            The user's history as external ids, in any order; 318 and "318" are the same item. Ids that the
            model does not know are reported, not fatal. Where none is known, the most popular items are returned.
        k : int
            Number of items, >= 1.
        exclude : iterable of int or str
            Ids never to return; those not known are ignored.
        allow : iterable of int or str, optional
            The only ids that may be returned; by default all.
        filter_seen : bool
            Whether items of the history are left out.
        diversify : float
            Weight of being unlike the items above it in the list, in [0, 1]; see `diversity.diversified`.

        Returns
        -------
        Recommendations
            k items, fewer only where fewer may be returned.

        Raises
        ------
        UsageError
            If `items` is a single id instead of a list, k is not a whole number >= 1, `diversify` is not in [0, 1], or
            the model cannot tell how alike items are.
        """
        request = Request(items=items, k=k, exclude=exclude, allow=allow, filter_seen=filter_seen, diversify=diversify)
        return self.answer([request])[0]

    def answer(self, requests: Sequence[Request]) -> list[Recommendations]:
        """Answer users with wishes of their own, scored together.

        Parameters
        ----------
        requests : sequence of Request
            Who asks for what.

        Returns
        -------
        list of Recommendations
            What `recommend` returns for each: the company makes no difference.

        Raises
        ------
        UsageError
            See `recommend`.
        """
        if not requests:
            return []
        for request in requests:
            check_request(request)
        found = self._answered(
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
        """Recommend items to many users, block by block.

        Parameters
        ----------
        histories : object
            A list of histories, a mapping of users to histories, a scipy sparse matrix, or a pandas, polars or Arrow
            table of user and item; see `histories.histories_of`.
        k, exclude, allow, filter_seen, diversify
            See `recommend`; the same for all users.

        Returns
        -------
        BatchRecommendations
            As a sequence, what `recommend` returns for each user; `to_pandas` and `to_arrow` make one table of it.

        Raises
        ------
        UsageError, DataError
            If `histories` is none of these; otherwise see `recommend`.
        """
        check_request(Request(items=(), k=k, diversify=diversify))
        read = histories_of(histories, self.items)
        n = len(read.users)
        return self._answered(
            read,
            np.full(n, min(int(k), len(self.items))),
            self._mask(allow, exclude),
            np.full(n, bool(filter_seen)),
            np.full(n, float(diversify)),
        )

    def _answered(
        self, histories: Histories, ks: np.ndarray, allowed: np.ndarray | None, hides: np.ndarray, shares: np.ndarray
    ) -> BatchRecommendations:
        """Answer users (U,) who want so many items each, of those allowed (I,) or (U, I), seen ones hidden or not."""
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
        """Return which items users may be recommended: (I,) where their lists are the same, else (U, I); None: all."""
        lists = {(id(request.allow), id(request.exclude)): request for request in requests}
        made = {key: self._mask(request.allow, request.exclude) for key, request in lists.items()}
        if len(made) == 1 or all(mask is None for mask in made.values()):
            return next(iter(made.values()))
        masks = (made[id(request.allow), id(request.exclude)] for request in requests)
        return np.stack([self._all if mask is None else mask for mask in masks])  # (U, I)

    def _mask(self, allow: Iterable[int | str] | None, exclude: Iterable[int | str]) -> np.ndarray | None:
        """Return which items (I,) a user may be recommended; None for all."""
        for name, ids in (("allow", allow), ("exclude", exclude)):
            missing = ids is None and name == "allow"
            if isinstance(ids, str | bytes) or not (missing or isinstance(ids, Iterable)):
                raise UsageError(f"got {name}={ids!r}, expected a list of ids, such as [{ids!r}]")
        never = self.items.mask_of(exclude)
        if allow is None and not never.any():
            return None
        return (self._all if allow is None else self.items.mask_of(allow)) & ~never

    @cached_property
    def _by_popularity(self) -> np.ndarray:
        return np.argsort(-self.items.train_counts.astype(np.int64), kind="stable")  # (I,)

    def _most_popular(
        self, histories: Histories, k: int, hidden: Histories, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the items of most training users for those of whom nothing is known: none has items to be hidden."""
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
        """Put the k of a user's candidates (C,) that are good and unlike one another first, in place."""
        found = columns[columns >= 0]
        if len(found):
            chosen = diversified(scores[: len(found)], self._similarities(found), int(k), float(share))
            columns[: len(chosen)], scores[: len(chosen)] = found[chosen], scores[chosen]
            columns[len(chosen) :], scores[len(chosen) :] = -1, -np.inf

    def similar_items(self, item: int | str, k: int = DEFAULT_K) -> Recommendations:
        """Return the items most similar to one: by the decoder's weights, by B of EASE, by the factors of ALS.

        Parameters
        ----------
        item : int or str
            External id.
        k : int
            Number of items, >= 1.

        Returns
        -------
        Recommendations
            Without the item itself; scores are the similarities.

        Raises
        ------
        UsageError
            If the item is not known, or the model knows nothing of similarity.
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
        """Say how much each item of a history contributed to the scores of some items.

        Exact for EASE, EDLAE and ALS, whose contributions add up to the score; for other models what the score
        loses when the item is left out of the history, all in one pass.

        Parameters
        ----------
        items : iterable of int or str, or mapping of these to weights
            The history; ids that are not known are ignored.
        recommended : iterable of int or str
            External ids of the items to explain, such as `Recommendations.ids`.
        most : int, optional
            Reasons of each at most, >= 1, the greatest; by default one for each item of the history.

        Returns
        -------
        list of Explanation
            One for each of `recommended`; without reasons where nothing of the history is known.

        Raises
        ------
        UsageError
            If an item to explain is not known, or `most` is not a whole number >= 1.
        """
        if most is not None:
            check_k(most)
        if isinstance(recommended, str | bytes) or not isinstance(recommended, Iterable):
            raise UsageError(f"got a single id {recommended!r}, expected a list of ids, such as [{recommended!r}]")
        columns = np.array([self._column(item) for item in recommended], dtype=np.int64)
        history = history_of(items, self.items)
        values = np.empty((0, len(columns)))  # (N, C)
        if len(history.columns) and len(columns):
            values = self._contributions(history, columns)
        return explanations_of(columns, history.columns[: len(values)], values, self.items, most)

    def _column(self, item: int | str) -> int:
        column = self.items.column_of(item)
        if column is None:
            raise UsageError(
                f"got item {item!r}, which the model does not know; expected one such as {self.items.ids[0]}"
            )
        return column
