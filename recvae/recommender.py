"""A recommender for programs: external ids in, external ids out, for users it has never seen."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch

from recvae.bundles import CARD, Bundle, read_bundle, write_bundle
from recvae.dataset import Dataset
from recvae.errors import DataError, UsageError
from recvae.files import write_folder
from recvae.interactions import interactions
from recvae.models.base import Model
from recvae.ranking import check_k, rank

# Letters in shape comments: I items.


@dataclass(frozen=True, kw_only=True)
class Recommendations:
    """What a user is recommended, best first.

    Parameters
    ----------
    ids : list of int or str
        External ids, of the type the data had.
    titles : list of str or None
        Their titles, None where not known.
    scores : list of float
        The model's scores, descending; the number of training users where `fallback` is set.
    unknown : list
        Ids of the history that the model does not know, as they were given.
    fallback : bool
        Whether nothing of the history was known, and the most popular items were returned instead.
    """

    ids: list[Any]
    titles: list[str | None]
    scores: list[float]
    unknown: list[Any]
    fallback: bool

    def __len__(self) -> int:
        """Return the number of items recommended."""
        return len(self.ids)

    def to_pandas(self) -> pd.DataFrame:
        """Return a table with the columns id, title and score."""
        return pd.DataFrame({"id": self.ids, "title": self.titles, "score": self.scores})


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
        self._bundle = Bundle(model=model, items=items, manifest=dataset.manifest)

    @classmethod
    def load(cls, folder: Path | str, device: str = "cpu") -> Self:
        """Load a bundle: no training data, no network, nothing executed.

        Parameters
        ----------
        folder : Path or str
            What `recvae train` or `save` wrote.
        device : str
            Where a network shall score: "auto", "cpu" or "cuda".

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
        recommender._bundle = read_bundle(Path(folder), device)
        return recommender

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

    def recommend(self, items: Iterable[int | str], k: int = 10) -> Recommendations:
        """Recommend items to a user who has consumed some; the user need not have been in training.

        Parameters
        ----------
        items : iterable of int or str
            The user's history as external ids, in any order; 318 and "318" are the same item. Ids that the
            model does not know are reported, not fatal. Where none is known, the most popular items are returned.
        k : int
            Number of items, >= 1.

        Returns
        -------
        Recommendations
            k items, fewer only where the catalogue is exhausted; never one of the history.

        Raises
        ------
        UsageError
            If `items` is a single id instead of a list, or k is not a whole number >= 1.
        """
        check_k(k)
        if isinstance(items, str | bytes) or not isinstance(items, Iterable):
            raise UsageError(f"got a single id {items!r}, expected a list of ids, such as [{items!r}]")
        index = self._bundle.items
        columns, unknown = index.columns_of(items)
        history = interactions(np.zeros_like(columns), columns, (1, len(index)))
        if len(columns):
            ranked, scores = self.model.recommend(history, k)
        else:
            ranked, scores = rank(torch.from_numpy(index.train_counts.astype(np.float32))[None], k)  # (I,) -> (1, I)
        found = ranked[0][ranked[0] >= 0].tolist()
        return Recommendations(
            ids=index.ids[found].tolist(),
            titles=[index.title_of(column) for column in found],
            scores=scores[0][: len(found)].tolist(),
            unknown=unknown,
            fallback=not len(columns),
        )
