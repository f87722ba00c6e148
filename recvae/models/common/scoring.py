"""What a fitted model can be asked: scores, ranked items, similar items, reasons, user embeddings.

Letters in shape comments: U users, I items, B users of a block, C columns, N items of a history, k ranks.
"""

import inspect
import traceback
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
import torch

from recvae.compute.memory import Needs, in_blocks
from recvae.errors import NotFittedError, RecvaeError, UsageError, is_out_of_memory
from recvae.interactions import as_interactions, whole_and_without_each
from recvae.items import check_k
from recvae.models.common.footprint import scoring_rows
from recvae.models.common.vectors import VectorModel
from recvae.progress import Progress
from recvae.ranking import block_rows, rank, rank_sparse


def refuse_own_code(model: object, method: str, error: Exception) -> None:
    """Say where the code of a model that is not of this package failed; nothing for what this package raises.

    Raises
    ------
    UsageError
        With the error, the file and the line.
    """
    is_own = type(model).__module__.partition(".")[0] != "recvae"
    if not is_own or isinstance(error, RecvaeError) or is_out_of_memory(error):
        return
    frames = traceback.extract_tb(error.__traceback__)
    written = inspect.getsourcefile(type(model))
    frame = next((frame for frame in reversed(frames) if frame.filename == written), frames[-1])
    raise UsageError(
        f"{type(model).__name__}.{method} failed with {type(error).__name__}: {error} "
        f"({frame.filename}, line {frame.lineno}); fix it there"
    ) from error


@dataclass(kw_only=True)
class ScoringModel(VectorModel):
    """The half of `Model` that answers, once it is fitted; a user is a row of interactions, seen in training or not."""

    n_items_: int = field(default=0, init=False, repr=False, compare=False)

    @abstractmethod
    def _score_block(self, user_items: sp.csr_matrix) -> torch.Tensor:
        """Return the scores (B, I) of a block of checked rows, float32, as a tensor that may be overwritten."""

    @abstractmethod
    def scoring_needs(self, n_items: int) -> Needs:
        """Return what scoring takes with so many items; of `Needs`, only what concerns scoring counts.

        Parameters
        ----------
        n_items : int
            Columns of a user's row.
        """

    def _sparse_block(self, user_items: sp.csr_matrix) -> sp.csr_matrix | None:  # noqa: ARG002  (of those that have one)
        """Return the same scores as a sparse matrix, 0 where nothing is stored; None where they are dense."""
        return None

    @property
    def has_similarities(self) -> bool:
        """Whether `similarities` works: whether the model says how similar two items are."""
        return type(self).similarities is not ScoringModel.similarities

    @property
    def has_embeddings(self) -> bool:
        """Whether `embed` works: whether the model makes a vector of a user."""
        return type(self)._embed_block is not ScoringModel._embed_block

    @property
    def is_exportable(self) -> bool:
        """Whether `scorer` works: whether scores can be computed outside this package."""
        return type(self).scorer is not ScoringModel.scorer

    def score(self, user_items: sp.csr_matrix, *, max_memory: int | None = None) -> np.ndarray:
        """Score every item for each user, also those of the history.

        Parameters
        ----------
        user_items : sparse matrix of shape (n_users, n_items)
            Histories of users, seen in training or not.
        max_memory : int, optional
            Bytes that scoring may take; it decides how many users are scored at a time.

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
            scores[start:end] = self.scores_of(histories[start:end]).cpu().numpy()

        in_blocks(len(scores), self.rows_at_a_time(max_memory), work)
        return scores

    def recommend(
        self,
        user_items: sp.csr_matrix,
        k: int = 10,
        *,
        hidden: sp.csr_matrix | None = None,
        allowed: np.ndarray | None = None,
        max_memory: int | None = None,
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
        max_memory : int, optional
            Bytes that scoring may take; it decides how many users are scored at a time.

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
            sparse = self._sparse_block(histories[start:end])  # (B, I)
            if sparse is not None:
                items[start:end], scores[start:end] = rank_sparse(sparse, k, masked[start:end], of_block)
                return
            block = self.scores_of(histories[start:end])  # (B, I)
            items[start:end], scores[start:end] = rank(block, k, masked[start:end], of_block)

        in_blocks(len(items), self.rows_at_a_time(max_memory), work)
        return items, scores

    def similarities(self, columns: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:  # noqa: ARG002
        """Return how similar some items are to others: the cosine of their vectors; for EASE, its weights.

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
            If the model has no similarities; see `has_similarities`.
        """
        raise UsageError(f"{self.name} has no item similarities; use ease, als or a network")

    def contributions(
        self, user_items: sp.csr_matrix, columns: np.ndarray, *, max_memory: int | None = None
    ) -> np.ndarray:
        """Return how much each item of a history contributed to the scores of some items.

        Parameters
        ----------
        user_items : sparse matrix of shape (1, n_items)
            The history of a user.
        columns : ndarray of shape (n_columns,), int
            Items whose scores are to be explained.
        max_memory : int, optional
            Bytes that scoring may take.

        Returns
        -------
        ndarray of shape (n_interactions, n_columns), float32
            By item of the history. Where the score is a sum over the history (EASE, EDLAE, SANSA, ELSA, ALS, iALS),
            they add up to it. Otherwise, what the score loses when the item is left out.
        """
        history, chosen = self._check_histories(user_items), torch.from_numpy(columns)

        def work(start: int, end: int) -> np.ndarray:
            return self.scores_of(whole_and_without_each(history, start, end))[:, chosen].cpu().numpy()  # (B, C)

        scores = self._each_block(1 + history.nnz, max_memory, work)  # (1 + N, C)
        return scores[0] - scores[1:]

    def embed(
        self, user_items: sp.csr_matrix, *, max_memory: int | None = None, progress: Progress | None = None
    ) -> np.ndarray:
        """Return a vector for each user, for clustering, look-alikes or other models.

        Parameters
        ----------
        user_items : sparse matrix of shape (n_users, n_items)
            Histories of users, seen in training or not.
        max_memory : int, optional
            Bytes that scoring may take.
        progress : Progress, optional
            Called with the users done and the users in all.

        Returns
        -------
        ndarray of shape (n_users, width), float32
            The mean of the latent variables (variational autoencoders), the code (others), user factors (ALS).

        Raises
        ------
        UsageError
            If the model has no user embeddings; see `has_embeddings`.
        """
        histories = self._check_histories(user_items)
        n_users = histories.shape[0]

        def work(start: int, end: int) -> np.ndarray:
            found = self._embed_block(histories[start:end])
            if progress is not None:
                progress(end, n_users, "users")
            return found

        return self._each_block(n_users, max_memory, work)

    def _each_block(self, n_rows: int, max_memory: int | None, work: Callable[[int, int], np.ndarray]) -> np.ndarray:
        """Return what comes of blocks of rows, one below the other."""
        found: list[np.ndarray] = []
        in_blocks(n_rows, self.rows_at_a_time(max_memory), lambda start, end: found.append(work(start, end)))
        return np.concatenate(found)

    def _embed_block(self, user_items: sp.csr_matrix) -> np.ndarray:  # noqa: ARG002  (of those that have one)
        """Return the vector of each user of a block of checked rows, (B, width)."""
        raise UsageError(f"{self.name} has no user embeddings; use als or a network")

    def scorer(self) -> torch.nn.Module:
        """Return the scores as a module, for export: see `models.common.graphs`.

        Raises
        ------
        UsageError
            If the model cannot be exported, e.g. ALS, which solves equations for each user; see `is_exportable`.
        """
        raise UsageError(f"{self.name} cannot be exported; use ease or a network, or serve the run as it is")

    def scores_of(self, user_items: sp.csr_matrix) -> torch.Tensor:
        """Return the scores of a block of users, checked for what a model of somebody else's may get wrong.

        Parameters
        ----------
        user_items : csr_matrix of shape (n_users, n_items), float32
            Checked rows, few enough to be scored at once.

        Returns
        -------
        Tensor of shape (n_users, n_items), float32
            May be overwritten.

        Raises
        ------
        UsageError
            If `_score_block` returned something else.
        """
        try:
            found = self._score_block(user_items)
        except Exception as error:
            refuse_own_code(self, "_score_block", error)
            raise
        if isinstance(found, np.ndarray):
            found = torch.tensor(found)  # a copy, which may be overwritten
        if not isinstance(found, torch.Tensor) or tuple(found.shape) != user_items.shape:
            shape = getattr(found, "shape", None)
            is_array = isinstance(found, np.ndarray | torch.Tensor)
            got = f"scores of shape {tuple(shape or ())}" if is_array else f"a {type(found).__name__}"
            raise UsageError(
                f"got {got} from {type(self).__name__}._score_block, expected an array of scores of shape "
                f"{user_items.shape}: a row for each user, a column for each item"
            )
        return found.float()

    def rows_at_a_time(self, max_memory: int | None = None) -> int:
        """Return how many users to score at a time.

        Parameters
        ----------
        max_memory : int, optional
            Bytes that scoring may take.

        Raises
        ------
        MemoryLimitError
            If not even one user fits.
        """
        most = block_rows(self.n_items_)
        if max_memory is None:
            return most
        return scoring_rows(self.scoring_needs(self.n_items_), self.name, max_memory, most)

    def check_fitted(self) -> None:
        """Refuse to answer before `fit`.

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
