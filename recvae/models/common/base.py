"""What every model is: hyperparameters in, fitted on sparse rows, scores and ranked items out."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp
import torch

from recvae.compute.memory import Needs, check_memory, in_blocks
from recvae.errors import NotFittedError, UsageError
from recvae.interactions import HeldOut, as_interactions, whole_and_without_each
from recvae.items import check_k
from recvae.models.common.footprint import ranking_bytes, scoring_rows
from recvae.models.common.hyperparameters import Space
from recvae.ranking import block_rows, rank
from recvae.training.checkpoints import Checkpoint
from recvae.training.records import Monitor

# Letters in shape comments: U users, I items, B users of a block, k ranks.


@dataclass(kw_only=True)
class Model(ABC):
    """A recommender on integer columns: fields are hyperparameters, learned state ends in an underscore.

    The constructor only stores; `fit` checks. No model knows user ids: a user is a row of interactions.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    space: ClassVar[Space] = {}
    """Where to look for good hyperparameters; a space of values alone is tried whole when the model is a baseline."""

    roles: ClassVar[tuple[str, ...]] = ()
    """Hyperparameters that name other runs, whose models become `parts`."""

    max_memory: int | None = field(default=None, repr=False, compare=False)
    """Bytes that fitting and scoring may take, on the host and on a GPU each, None for what the machine has; it decides
    whether a model is fitted and how many users are scored at a time, not what comes out."""

    grows_with: ClassVar[str] = "users"
    """What to take a part of, users or items, to see how long a closed form takes on all of them."""

    parts: dict[str, "Model"] = field(default_factory=dict, repr=False, compare=False)
    """The models this one is made of, by role; none for most."""

    n_items_: int = field(default=0, init=False, repr=False, compare=False)

    @abstractmethod
    def fit(
        self,
        train: sp.csr_matrix,
        validation: HeldOut | tuple[Any, Any] | None = None,
        *,
        device: str | torch.device = "auto",
        monitor: Monitor | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> Self:
        """Learn from training interactions, forgetting earlier fits.

        Parameters
        ----------
        train : sparse matrix of shape (n_users, n_items)
            Stored entries are interactions, values are weights > 0 (1 for implicit feedback).
        validation : HeldOut or tuple of two sparse matrices, optional
            Users with fold-in and targets, to choose the best epoch by.
        device : str or torch.device
            "auto", "cpu" or "cuda"; models without a network always use the CPU.
        monitor : Monitor, optional
            Is told how the run goes.
        checkpoint : Checkpoint, optional
            Where to keep the state after each epoch; models without epochs do not need one.

        Returns
        -------
        Model
            Itself.

        Raises
        ------
        UsageError
            If a hyperparameter has the wrong type or is out of range, or there is no such device.
        DataError
            If the interactions are not a sparse matrix of finite weights.
        """

    @abstractmethod
    def _score_block(self, user_items: sp.csr_matrix) -> torch.Tensor:
        """Return the scores (B, I) of a block of checked rows, as a tensor that may be overwritten."""

    @abstractmethod
    def weights(self) -> dict[str, np.ndarray]:
        """Return everything learned as named arrays, enough for `load_weights`; NotFittedError before `fit`."""

    @abstractmethod
    def load_weights(self, weights: Mapping[str, np.ndarray], device: str | torch.device = "cpu") -> Self:
        """Take over what `weights` returned, instead of fitting.

        Parameters
        ----------
        weights : mapping of str to ndarray
            Arrays by name.
        device : str or torch.device
            Where to score.

        Returns
        -------
        Model
            Itself, fitted.

        Raises
        ------
        KeyError, ValueError, RuntimeError
            If arrays are missing or have the wrong shape.
        """

    def needs(self, n_users: int, n_items: int, n_interactions: int, *, on_gpu: bool = False) -> Needs:  # noqa: ARG002
        """Say what the model takes with its present hyperparameters, without allocating it.

        Parameters
        ----------
        n_users, n_items, n_interactions : int
            Of the training data; for scoring, only the items matter.
        on_gpu : bool
            Whether a network is to compute on a GPU.

        Returns
        -------
        Needs
            Bytes beside the program and the data set.
        """
        return Needs(parameters=0, training=0, held=0, weights=0, per_user=ranking_bytes(n_items))

    def check_memory(self, n_users: int, n_items: int, n_interactions: int, device: str | torch.device = "cpu") -> None:
        """Refuse to fit what cannot fit, before anything is allocated.

        Parameters
        ----------
        n_users, n_items, n_interactions : int
            Of the training data.
        device : str or torch.device
            Where a network is to be trained.

        Raises
        ------
        MemoryLimitError
            If it needs more than `max_memory`, or than is free; with both figures and what to do instead.
        """
        device = torch.device(device)
        needs = self.needs(n_users, n_items, n_interactions, on_gpu=device.type == "cuda")
        what, instead = f"{self.name} on {n_items:,} items", "leave out rare items (recvae preprocess --min-item-users)"
        check_memory(needs.training, self.max_memory, what, f"raise --max-memory, or {instead}")

    def training_summary(self) -> dict[str, Any]:
        """Say how the last fit went, for the bundle.

        Returns
        -------
        dict
            Ready for JSON; `interrupted` where it was stopped by hand. Empty for models without epochs.
        """
        return {}

    def score(self, user_items: sp.csr_matrix) -> np.ndarray:
        """Score every item for each user, seen ones included.

        Parameters
        ----------
        user_items : sparse matrix of shape (n_users, n_items)
            Histories of users, seen in training or not.

        Returns
        -------
        ndarray of shape (n_users, n_items), float32
            Higher is better; the scale is the model's own. For many users, `recommend` needs less memory.

        Raises
        ------
        NotFittedError
            Before `fit`.
        DataError
            If the number of items is not that of the training data.
        """
        histories = self._check_histories(user_items)
        scores = np.empty(histories.shape, dtype=np.float32)  # (U, I)

        def work(start: int, end: int) -> None:
            scores[start:end] = self._score_block(histories[start:end]).cpu().numpy()

        in_blocks(len(scores), self._rows_at_a_time(), work)
        return scores

    def recommend(
        self,
        user_items: sp.csr_matrix,
        k: int = 10,
        *,
        hidden: sp.csr_matrix | None = None,
        allowed: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the k best items for each user, by default never one of the user's history.

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

        Returns
        -------
        items : ndarray of shape (n_users, k), int64
            Item columns, best first, equal scores by ascending column; -1 where the items ran out.
        scores : ndarray of shape (n_users, k), float32
            Their scores; -inf where the items ran out.

        Raises
        ------
        NotFittedError
            Before `fit`.
        DataError
            If the number of items is not that of the training data.
        UsageError
            If k is not a whole number >= 1.
        """
        check_k(k)
        histories = self._check_histories(user_items)
        masked = histories if hidden is None else as_interactions(hidden, "the hidden items", self.n_items_)
        items = np.empty((histories.shape[0], k), dtype=np.int64)
        scores = np.empty((histories.shape[0], k), dtype=np.float32)

        def work(start: int, end: int) -> None:
            of_block = allowed if allowed is None or allowed.ndim == 1 else allowed[start:end]
            block = self._score_block(histories[start:end])  # (B, I)
            items[start:end], scores[start:end] = rank(block, k, masked[start:end], of_block)

        in_blocks(len(items), self._rows_at_a_time(), work)
        return items, scores

    def similarities(self, columns: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:  # noqa: ARG002
        """Say how similar some items are to others: by the cosine of their vectors; for EASE, the weights on others.

        Parameters
        ----------
        columns, others : ndarray of shape (n_columns,) and (n_others,), int
            Which items; by default all others.

        Returns
        -------
        ndarray of shape (n_columns, n_others), float32

        Raises
        ------
        UsageError
            If the model knows nothing of the kind.
        """
        raise UsageError(f"{self.name} does not tell items apart by similarity; take ease, als or a network")

    def contributions(self, user_items: sp.csr_matrix, columns: np.ndarray) -> np.ndarray:
        """Say how much each item of a history contributed to the scores of some items.

        Parameters
        ----------
        user_items : sparse matrix of shape (1, n_items)
            The history of a user.
        columns : ndarray of shape (n_columns,), int
            Items whose scores are to be explained.

        Returns
        -------
        ndarray of shape (n_interactions, n_columns), float32
            By item of the history. Exact where the score is a sum over the history (EASE, EDLAE, ALS): they add up to
            it. Otherwise what the score loses when the item is left out.
        """
        history, chosen = self._check_histories(user_items), torch.from_numpy(columns)

        def work(start: int, end: int) -> np.ndarray:
            return self._score_block(whole_and_without_each(history, start, end))[:, chosen].cpu().numpy()  # (B, C)

        scores = self._each_block(1 + history.nnz, work)  # (1 + N, C)
        return scores[0] - scores[1:]

    def embed(self, user_items: sp.csr_matrix) -> np.ndarray:
        """Return what the model makes of each user, for clustering, look-alikes or other models.

        Parameters
        ----------
        user_items : sparse matrix of shape (n_users, n_items)
            Histories of users, seen in training or not.

        Returns
        -------
        ndarray of shape (n_users, width), float32
            The mean of the latent variables of a variational autoencoder, the code of another, the user factors of ALS.

        Raises
        ------
        UsageError
            If the model has nothing of the kind.
        """
        histories = self._check_histories(user_items)
        return self._each_block(histories.shape[0], lambda start, end: self._embed_block(histories[start:end]))

    def _each_block(self, n_rows: int, work: Callable[[int, int], np.ndarray]) -> np.ndarray:
        """Return what comes of blocks of rows, one below the other."""
        found: list[np.ndarray] = []
        in_blocks(n_rows, self._rows_at_a_time(), lambda start, end: found.append(work(start, end)))
        return np.concatenate(found)

    def _embed_block(self, user_items: sp.csr_matrix) -> np.ndarray:  # noqa: ARG002  (of those that have one)
        """Return what the model makes of each user of a block of checked rows, (B, width)."""
        raise UsageError(f"{self.name} has no vector of a user; take als or a network")

    def scorer(self) -> torch.nn.Module:
        """Return the scores as a module, for export: see `models.common.scorers`.

        Raises
        ------
        UsageError
            If the model cannot be exported, as ALS, which solves equations for each user.
        """
        raise UsageError(f"{self.name} cannot be exported; take ease or a network, or serve the run as it is")

    def _rows_at_a_time(self) -> int:
        """Return how many users to score at a time; refuse if not even one fits into what may be taken."""
        most, limit = block_rows(self.n_items_), self.max_memory
        return most if limit is None else scoring_rows(self.needs(0, self.n_items_, 0), self.name, limit, most)

    def check_fitted(self) -> None:
        """Refuse to go on before `fit`.

        Raises
        ------
        NotFittedError
            If nothing was learned yet.
        """
        if not self.n_items_:
            raise NotFittedError(f"this {type(self).__name__} is not fitted yet; call fit(train) first")

    def _check_histories(self, user_items: sp.csr_matrix) -> sp.csr_matrix:
        self.check_fitted()
        return as_interactions(user_items, "the histories", self.n_items_)
