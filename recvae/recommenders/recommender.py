"""A recommender for programs: external ids in, external ids out, also for users who were not in training."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from recvae.bundles.bundle import Bundle, read_bundle, write_bundle
from recvae.bundles.card import CARD
from recvae.bundles.exported import INDEX
from recvae.errors import DataError, UsageError
from recvae.models.common.base import Model
from recvae.ranking import rank
from recvae.recommenders.answers import Recommendations, Request, check_request
from recvae.recommenders.base import BaseRecommender
from recvae.recommenders.histories import Histories, histories_of, history_of
from recvae.recommenders.index_folder import read_retriever
from recvae.recommenders.retrieval import Retriever
from recvae.storage.files import write_folder

if TYPE_CHECKING:  # a service needs no data preparation
    from recvae.datasets.dataset import Dataset

# Letters in shape comments: I items, C candidates, k ranks.


class Recommender(BaseRecommender):
    """A fitted model with its item index; it is thread-safe.

    Parameters
    ----------
    model : Model
        Fitted.
    dataset : Dataset, optional
        Gives the item ids, titles and the manifest; its interactions are not kept. By default what the model keeps of
        the data set it was fitted on.
    retrieval : Path or str, optional
        An index of the model's item vectors, written by `recvae export --format index`: items are then found by it,
        without scoring all. By default all are scored.
    max_memory : int, optional
        Memory limit of scoring in bytes; by default all free memory.

    Raises
    ------
    NotFittedError
        If the model is not fitted.
    DataError
        If it is not the data set the model was fitted on, as far as that can be told.
    UsageError
        If there is no index, it is of other weights, or the model was fitted on a matrix and there is no data set.

    Examples
    --------
    >>> from recvae import Dataset, Popularity
    >>> from recvae.datasets.synthetic import synthetic_log
    >>> events, titles = synthetic_log(n_users=200, n_items=100, n_events=5000, seed=1)
    >>> dataset = Dataset.from_events(events, name="toy", heldout_users=20)
    >>> recommender = Recommender(Popularity().fit(dataset))
    >>> len(recommender.recommend(dataset.item_ids[:3], k=5).ids)
    5
    """

    def __init__(
        self,
        model: Model,
        dataset: "Dataset | None" = None,
        *,
        retrieval: Path | str | None = None,
        max_memory: int | None = None,
    ) -> None:
        model.check_fitted()
        data = dataset or model.fitted_on_
        if data is None:
            raise UsageError(
                f"got {type(model).__name__} fitted on a matrix, which has no item ids; give the data set too: "
                "Recommender(model, dataset), or fit it on a data set: fit(dataset)"
            )
        items = data.items
        if model.n_items_ != len(items):
            raise DataError(
                f"got a model of {model.n_items_:,} items and a data set of {len(items):,} items; "
                "give the data set the model was fitted on"
            )
        if model.fitted_on_ is not None and not model.fitted_on_.is_same(data.manifest, items.ids):
            raise DataError(
                f"got a model fitted on {model.fitted_on_.name} and a data set of other fingerprint or items; "
                "give the data set the model was fitted on, or none"
            )
        retriever = None if retrieval is None else read_retriever(Path(retrieval), model)
        self._take(Bundle(model=model, items=items, manifest=data.manifest), max_memory, retriever)

    @classmethod
    def load(
        cls,
        folder: Path | str,
        device: str = "cpu",
        max_memory: int | None = None,
        *,
        mapped: bool = True,
        models: Sequence[type[Model]] | type[Model] = (),
        retrieval: Path | str | bool = False,
    ) -> Self:
        """Load a bundle; this needs no training data and no network, and executes nothing.

        Parameters
        ----------
        folder : Path or str
            A bundle written by `recvae train` or `save`.
        device : str
            Where a network computes: "auto", "cpu" or "cuda".
        max_memory : int, optional
            Memory limit in bytes; by default all free memory.
        mapped : bool
            Whether to map the weights' file into memory, which is fast and shared between processes. The file may then
            be replaced, but not overwritten in place; use False if another program might do that.
        models : sequence of type of Model
            Models of your own that the bundle may hold: loading imports nothing by itself.
        retrieval : Path, str or bool
            True to find items by the bundle's index, which `recvae export --format index` makes, without scoring all;
            or the folder of an index that lies elsewhere. By default all items are scored.

        Returns
        -------
        Recommender
            Ready to recommend.

        Raises
        ------
        UsageError
            If there is no bundle, no such device, no index, or one of other weights.
        BundleError
            If it is damaged, unfinished, or of a newer format.
        """
        recommender, folder = cls.__new__(cls), Path(folder)
        bundle = read_bundle(folder, device, max_memory, mapped=mapped, models=models)
        retriever = None
        if retrieval is not False:
            place = folder / INDEX if retrieval is True else Path(retrieval)
            retriever = read_retriever(place, bundle.model, folder, mapped=mapped)
        recommender._take(bundle, max_memory, retriever)
        return recommender

    def _take(self, bundle: Bundle, max_memory: int | None = None, retriever: Retriever | None = None) -> None:
        self._bundle, self._retriever, self._fitted_on = bundle, retriever, bundle.model.fitted_on_
        self._max_memory = max_memory
        self.items = bundle.items

    def save(self, folder: Path | str) -> None:
        """Write a bundle, completely or not at all, replacing an existing bundle.

        Raises
        ------
        StorageError
            If it cannot be written.
        UsageError
            If the model was fitted again since.
        """
        self._current()
        with write_folder(Path(folder), CARD) as aside:
            write_bundle(aside, self._bundle)

    def _current(self) -> Model:
        """Return the model, unless it was fitted again: its columns may be other items now."""
        if self.model.fitted_on_ is not self._fitted_on:
            raise UsageError(
                f"got {self.model.name} that was fitted again after its recommender was made, expected it as it was; "
                "make a new one: Recommender(model), and fit a model of its own for each"
            )
        return self.model

    @property
    def model(self) -> Model:
        """The fitted model, on integer columns."""
        return self._bundle.model

    @property
    def model_name(self) -> str:
        """Name of the model in the registry."""
        return self.model.name

    @property
    def can_diversify(self) -> bool:
        """Whether `diversify` may be above 0: if the model has item similarities."""
        return self.model.has_similarities

    @property
    def manifest(self) -> dict[str, Any]:
        """Manifest of the data the model was trained on."""
        return self._bundle.manifest

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Mean of each metric by part, as training found them."""
        return self._bundle.metrics

    def answer(self, requests: Sequence[Request]) -> list[Recommendations]:
        """Recommend items to several users with different options; see `BaseRecommender.answer`."""
        if self._retriever is None:
            return super().answer(requests)
        for request in requests:
            check_request(request)
        # An index finds other items for a longer list: what others ask for must not decide how deep it is searched.
        depths = [(int(request.k), request.diversify > 0) for request in requests]
        found: dict[int, Recommendations] = {}
        for depth in set(depths):
            numbers = [number for number, other in enumerate(depths) if other == depth]
            found |= zip(numbers, super().answer([requests[number] for number in numbers]), strict=True)
        return [found[number] for number in range(len(requests))]

    def embed(self, histories: object) -> np.ndarray:
        """Return the embedding of each user: latent mean, code or user factors.

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
            If the model has no user embeddings, e.g. EASE.
        """
        read = histories_of(histories, self.items)
        asked = read if read.users else history_of((), self.items)  # also for no users, the width is that of the model
        return self._current().embed(asked.matrix, max_memory=self._max_memory)[: len(read.users)]  # (U, width)

    def _ranked(
        self, histories: Histories, k: int, hidden: Histories, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        masked = None if hidden is histories else hidden.matrix
        model = self._current()
        ranker = self._retriever or model
        return ranker.recommend(histories.matrix, k, hidden=masked, allowed=allowed, max_memory=self._max_memory)

    def _nearest(self, column: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        similarities = torch.tensor(self._current().similarities(np.array([column])))  # (1, I)
        others = np.arange(len(self.items)) != column
        columns, scores = rank(similarities, max(k, 1), allowed=others)  # (1, k), (1, k)
        return columns[0], scores[0]

    def _similarities(self, columns: np.ndarray) -> np.ndarray:
        return self._current().similarities(columns, columns)  # (C, C)

    def _contributions(self, history: Histories, columns: np.ndarray) -> np.ndarray:
        return self._current().contributions(history.matrix, columns, max_memory=self._max_memory)
