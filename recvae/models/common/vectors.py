"""Models whose scores are inner products: one vector of a user with one vector of each item, plus a bias.

    score_ui = q_u . v_i + b_i,  plus a term of the user's own items where a model has one

What a model states here is enough to find its best items by a search of vectors; see `recommenders.retrieval`.

Letters in shape comments: B users of a block, I items, N items of a history, D width of a vector.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from recvae.errors import UsageError


class VectorModel(ABC):
    """The part of a model that says what its vectors are; most that is here is refused unless a model states it."""

    name: ClassVar[str]

    @abstractmethod
    def _check_histories(self, user_items: sp.csr_matrix) -> sp.csr_matrix:
        """Return checked rows of a fitted model."""

    @abstractmethod
    def _each_block(self, n_rows: int, max_memory: int | None, work: Callable[[int, int], np.ndarray]) -> np.ndarray:
        """Return what comes of blocks of rows, one below the other."""

    @property
    def has_item_vectors(self) -> bool:
        """Whether `item_vectors` and `query_vectors` work: whether scores are inner products plus a bias."""
        return type(self).item_vectors is not VectorModel.item_vectors

    def item_vectors(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Return a vector and a bias for each item; with `query_vectors` they make the scores.

        Returns
        -------
        vectors : ndarray of shape (n_items, width), float32
            Not to be written to: where the model lies on the CPU, they are its weights themselves.
        bias : ndarray of shape (n_items,), float32, or None
            None where there is none.

        Raises
        ------
        UsageError
            If the model's scores are not inner products; see `has_item_vectors`.
        NotFittedError
            Before `fit`.
        """
        raise _without_vectors(self.name)

    def query_vectors(self, user_items: sp.csr_matrix, *, max_memory: int | None = None) -> np.ndarray:
        """Return what the item vectors are multiplied with, for each user; no score is computed.

        Parameters
        ----------
        user_items : sparse matrix of shape (n_users, n_items)
            Histories of users, seen in training or not.
        max_memory : int, optional
            Bytes that scoring may take.

        Returns
        -------
        ndarray of shape (n_users, width), float32

        Raises
        ------
        UsageError
            If the model's scores are not inner products; see `has_item_vectors`.
        NotFittedError
            Before `fit`.
        """
        histories = self._check_histories(user_items)
        if not self.has_item_vectors:
            raise _without_vectors(self.name)
        return self._each_block(
            histories.shape[0], max_memory, lambda start, end: self._query_block(histories[start:end])
        )

    def _query_block(self, user_items: sp.csr_matrix) -> np.ndarray:  # noqa: ARG002  (of those that have one)
        """Return the query vectors (B, D) of a block of checked rows."""
        raise _without_vectors(self.name)

    def own_item_terms(self, weights: np.ndarray) -> np.ndarray | None:  # noqa: ARG002  (of those that have one)
        """Return what the scores of a user's own items have on top of the inner product, None where that is nothing.

        Parameters
        ----------
        weights : ndarray of shape (n_history,), float32
            Of the items of a history.

        Returns
        -------
        ndarray of shape (n_history,), float32, or None
            At most 0: a search by inner products then finds no fewer of the best items.
        """
        return None


def _without_vectors(name: str) -> UsageError:
    return UsageError(
        f"{name} has no item vectors to search by: its scores are not inner products of a user's and an item's vector; "
        "use als, ials, elsa without entries, or a network with one linear last layer, such as multvae, multdae, "
        "recvae, ae or hvamp"
    )
