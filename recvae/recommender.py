"""A recommender for programs: external ids in, external ids out, for users it has never seen.

Letters in shape comments: U users, I items, C candidates, k ranks.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from recvae.bundles import CARD, Bundle, read_bundle, write_bundle
from recvae.dataset import Dataset
from recvae.errors import DataError, UsageError
from recvae.files import write_folder
from recvae.histories import Histories, History, histories_of, history_of
from recvae.items import ItemIndex
from recvae.models import Popularity
from recvae.models.base import Model
from recvae.ranking import check_k, rank
from recvae.recommendations import BatchRecommendations, Explanation, Recommendations, explanations_of
from recvae.similarity import diversified

_CANDIDATES = 5  # for each item of a diversified list


class Recommender:
    """A fitted model together with its item index.

    Parameters
    ----------
    model : Model
        Fitted on `dataset`.
    dataset : Dataset
        Gives the item ids, titles and the manifest; its interactions are not kept.

    Raises
    ------
    NotFittedError
        If the model is not fitted.
    DataError
        If model and data set have different numbers of items.

    Examples
    --------
    >>> from recvae import Dataset, Popularity
    >>> from recvae.synthetic import synthetic_log
    >>> events, titles = synthetic_log(n_users=200, n_items=100, n_events=5000, seed=1)
    >>> dataset = Dataset.from_events(events, name="toy", heldout_users=20)
    >>> recommender = Recommender(Popularity().fit(dataset.train), dataset)
    >>> len(recommender.recommend(dataset.item_ids[:3], k=5).ids)
    5
    """

    def __init__(self, model: Model, dataset: Dataset) -> None:
        model.check_fitted()
        items = dataset.items
        if model.n_items_ != len(items):
            raise DataError(
                f"got a model of {model.n_items_:,} items and a data set of {len(items):,}; "
                "give the data set the model was fitted on"
            )
        self._take(Bundle(model=model, items=items, manifest=dataset.manifest))

    @classmethod
    def load(cls, folder: Path | str, device: str = "cpu", max_memory: int | None = None) -> Self:
        """Load a bundle: no training data, no network, nothing executed.

        Parameters
        ----------
        folder : Path or str
            What `recvae train` or `save` wrote.
        device : str
            Where a network shall score: "auto", "cpu" or "cuda".
        max_memory : int, optional
            Bytes that the model may take; by default what is free.

        Returns
        -------
        Recommender
            Ready to recommend.

        Raises
        ------
        UsageError
            If there is no bundle, or no such device.
        BundleError
            If it is damaged, unfinished, or of a newer format.
        """
        recommender = cls.__new__(cls)
        recommender._take(read_bundle(Path(folder), device, max_memory))
        return recommender

    def _take(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._popular = Popularity().load_weights({"counts": bundle.items.train_counts})

    def save(self, folder: Path | str) -> None:
        """Write a bundle, whole or not at all, replacing one that stands there.

        Raises
        ------
        StorageError
            If it cannot be written.
        """
        with write_folder(Path(folder), CARD) as aside:
            write_bundle(aside, self._bundle)

    @property
    def model(self) -> Model:
        """The fitted model, on integer columns."""
        return self._bundle.model

    @property
    def item_ids(self) -> np.ndarray:
        """External ids of the items, shape (n_items,)."""
        return self._bundle.items.ids

    @property
    def manifest(self) -> dict[str, Any]:
        """Manifest of the data the model was trained on."""
        return self._bundle.manifest

    @property
    def items(self) -> ItemIndex:
        """The items by column: ids, titles, number of training users."""
        return self._bundle.items

    def recommend(
        self,
        items: History,
        k: int = 10,
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
            Weight of being unlike the items above it in the list, in [0, 1]; see `similarity.diversified`.

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
        check_k(k)
        return self._answer(history_of(items, self.items), k, exclude, allow, filter_seen, diversify)[0]

    def recommend_batch(
        self,
        histories: object,
        k: int = 10,
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
        check_k(k)
        return self._answer(histories_of(histories, self.items), k, exclude, allow, filter_seen, diversify)

    def _answer(
        self,
        histories: Histories,
        k: int,
        exclude: Iterable[int | str],
        allow: Iterable[int | str] | None,
        filter_seen: bool,
        diversify: float,
    ) -> BatchRecommendations:
        if isinstance(diversify, bool) or not isinstance(diversify, int | float) or not 0 <= diversify <= 1:
            raise UsageError(f"got diversify={diversify!r}, expected a number in [0, 1]")
        matrix, k = histories.matrix, min(int(k), len(self.items))
        allowed = np.ones(len(self.items), dtype=bool) if allow is None else self._mask(allow, "allow")  # (I,)
        allowed &= ~self._mask(exclude, "exclude")
        hidden = matrix if filter_seen else matrix * np.float32(0)
        is_cold = np.diff(matrix.indptr) == 0  # (U,)
        n_candidates = min(_CANDIDATES * k, len(self.items)) if diversify else k
        columns = np.full((len(is_cold), n_candidates), -1, dtype=np.int64)
        scores = np.full((len(is_cold), n_candidates), -np.inf, dtype=np.float32)
        for model, users in ((self.model, ~is_cold), (self._popular, is_cold)):
            if users.any():
                found = model.recommend(matrix[users], n_candidates, hidden=hidden[users], allowed=allowed)
                columns[users], scores[users] = found
        if diversify:
            columns, scores = self._diversified(columns, scores, k, diversify)
        return BatchRecommendations(
            users=histories.users,
            columns=columns,
            scores=scores,
            fallback=is_cold,
            unknown=histories.unknown,
            items=self.items,
        )

    def _mask(self, ids: Iterable[int | str], name: str) -> np.ndarray:
        if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
            raise UsageError(f"got {name}={ids!r}, expected a list of ids, such as [{ids!r}]")
        return self.items.mask_of(ids)

    def _diversified(
        self, columns: np.ndarray, scores: np.ndarray, k: int, share: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the k of each user's candidates (U, C) that are good and unlike one another, (U, k)."""
        best = np.full((len(columns), k), -1, dtype=np.int64)
        of_best = np.full((len(columns), k), -np.inf, dtype=np.float32)
        for user, candidates in enumerate(columns):
            found = candidates[candidates >= 0]
            if not len(found):
                continue
            similarities = self.model.similarities(found)[:, found]  # (C, I) -> (C, C)
            chosen = diversified(scores[user, : len(found)], similarities, k, share)
            best[user, : len(chosen)], of_best[user, : len(chosen)] = found[chosen], scores[user, chosen]
        return best, of_best

    def similar_items(self, item: int | str, k: int = 10) -> Recommendations:
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
        column = self._column(item)
        similarities = torch.tensor(self.model.similarities(np.array([column])))  # (1, I)
        others = np.arange(len(self.items)) != column
        columns, scores = rank(similarities, min(int(k), len(others)), allowed=others)
        return BatchRecommendations(
            users=[0], columns=columns, scores=scores, fallback=np.array([False]), unknown=[[]], items=self.items
        )[0]

    def explain(self, items: History, recommended: Iterable[int | str]) -> list[Explanation]:
        """Say how much each item of a history contributed to the scores of some items.

        Exact for EASE, EDLAE and ALS, whose contributions add up to the score; for other models what the score
        loses when the item is left out of the history, all in one pass.

        Parameters
        ----------
        items : iterable of int or str, or mapping of these to weights
            The history; ids that are not known are ignored.
        recommended : iterable of int or str
            External ids of the items to explain, such as `Recommendations.ids`.

        Returns
        -------
        list of Explanation
            One for each of `recommended`; without reasons where nothing of the history is known.

        Raises
        ------
        UsageError
            If an item to explain is not known.
        """
        if isinstance(recommended, str | bytes) or not isinstance(recommended, Iterable):
            raise UsageError(f"got a single id {recommended!r}, expected a list of ids, such as [{recommended!r}]")
        columns = np.array([self._column(item) for item in recommended], dtype=np.int64)
        history = history_of(items, self.items).matrix
        values = np.empty((0, len(columns)))  # (N, C)
        if history.nnz:
            values = self.model.contributions(history, columns)
        return explanations_of(columns, history.indices, values, self.items)

    def embed(self, histories: object) -> np.ndarray:
        """Return what the model makes of each user: the latent mean, the code, the user factors.

        Parameters
        ----------
        histories : object
            See `recommend_batch`.

        Returns
        -------
        ndarray of shape (n_users, width), float32

        Raises
        ------
        UsageError
            If the model has no such vector, as EASE.
        """
        return self.model.embed(histories_of(histories, self.items).matrix)

    def _column(self, item: int | str) -> int:
        column = self.items.column_of(item)
        if column is None:
            raise UsageError(
                f"got item {item!r}, which the model does not know; expected one such as {self.items.ids[0]}"
            )
        return column
