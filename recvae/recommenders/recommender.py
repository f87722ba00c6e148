"""A recommender for programs: external ids in, external ids out, for users it has never seen."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from recvae.bundles.bundle import Bundle, read_bundle, write_bundle
from recvae.bundles.card import CARD
from recvae.errors import DataError
from recvae.models.common.base import Model
from recvae.ranking import rank
from recvae.recommenders.base import Recommending
from recvae.recommenders.histories import Histories, histories_of, history_of
from recvae.storage.files import write_folder

if TYPE_CHECKING:  # a service does not need what prepares data
    from recvae.datasets.dataset import Dataset

# Letters in shape comments: I items, C candidates, k ranks.


class Recommender(Recommending):
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
    >>> from recvae.datasets.synthetic import synthetic_log
    >>> events, titles = synthetic_log(n_users=200, n_items=100, n_events=5000, seed=1)
    >>> dataset = Dataset.from_events(events, name="toy", heldout_users=20)
    >>> recommender = Recommender(Popularity().fit(dataset.train), dataset)
    >>> len(recommender.recommend(dataset.item_ids[:3], k=5).ids)
    5
    """

    def __init__(self, model: Model, dataset: "Dataset") -> None:
        model.check_fitted()
        items = dataset.items
        if model.n_items_ != len(items):
            raise DataError(
                f"got a model of {model.n_items_:,} items and a data set of {len(items):,}; "
                "give the data set the model was fitted on"
            )
        self._take(Bundle(model=model, items=items, manifest=dataset.manifest))

    @classmethod
    def load(
        cls,
        folder: Path | str,
        device: str = "cpu",
        max_memory: int | None = None,
        *,
        mapped: bool = True,
        models: Sequence[type[Model]] = (),
    ) -> Self:
        """Load a bundle: no training data, no network, nothing executed.

        Parameters
        ----------
        folder : Path or str
            What `recvae train` or `save` wrote.
        device : str
            Where a network shall score: "auto", "cpu" or "cuda".
        max_memory : int, optional
            Bytes that the model may take; by default what is free.
        mapped : bool
            Whether weights are used where their file is mapped, which is fast and shares memory between processes. The
            file may then be replaced, but not written into: give False where someone might copy another over it.
        models : sequence of type of Model
            Models of your own that the bundle may hold: loading imports nothing by itself.

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
        bundle = read_bundle(folder, device, max_memory, mapped=mapped, models=models)
        recommender._take(bundle, max_memory)
        return recommender

    def _take(self, bundle: Bundle, max_memory: int | None = None) -> None:
        self._bundle = bundle
        self._max_memory = max_memory
        self.items = bundle.items

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
    def model_name(self) -> str:
        """Name of the model in the registry."""
        return self.model.name

    @property
    def manifest(self) -> dict[str, Any]:
        """Manifest of the data the model was trained on."""
        return self._bundle.manifest

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Mean of each metric by part, as training found them."""
        return self._bundle.metrics

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
        read = histories_of(histories, self.items)
        asked = read if read.users else history_of((), self.items)  # anybody's has the width of nobody's
        return self.model.embed(asked.matrix, max_memory=self._max_memory)[: len(read.users)]  # (U, width)

    def _ranked(
        self, histories: Histories, k: int, hidden: Histories, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        masked = None if hidden is histories else hidden.matrix
        return self.model.recommend(histories.matrix, k, hidden=masked, allowed=allowed, max_memory=self._max_memory)

    def _nearest(self, column: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        similarities = torch.tensor(self.model.similarities(np.array([column])))  # (1, I)
        others = np.arange(len(self.items)) != column
        columns, scores = rank(similarities, max(k, 1), allowed=others)  # (1, k), (1, k)
        return columns[0], scores[0]

    def _similarities(self, columns: np.ndarray) -> np.ndarray:
        return self.model.similarities(columns, columns)  # (C, C)

    def _contributions(self, history: Histories, columns: np.ndarray) -> np.ndarray:
        return self.model.contributions(history.matrix, columns, max_memory=self._max_memory)
