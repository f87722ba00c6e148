"""Users whose history a model finds odd, with the conventions of PyOD: higher is odder.

    raw score of a user = -log p / n, the mean surprise of an interaction in nats
        "reconstruction"   p = p(x | z), z ~ q(z | x): can the row be made again from its own code?
        "prediction"       p = p(part | rest), each fifth of the row in turn: does each part follow from the others?
        "likelihood"       the bound of log p(x) from draws, which also charges for the code (multvae, recvae, hvamp)
    score = (raw - median) / (1.4826 MAD), median and MAD of the reference users who are nearest in length

The surprise depends on how long a history is, for reasons that have nothing to do with oddness; hence the last line.
A history has the same score wherever it stands: draws come from what it holds, and each is scored once.
Reference users must be others than those the model was trained on, who look too familiar to it.

Letters in shape comments: U users, R reference users, N interactions, W reference users of similar length.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.special import logsumexp

from recvae.compute.memory import in_blocks, rows_within
from recvae.display import plural
from recvae.errors import DataError, NotFittedError, UsageError
from recvae.interactions import as_interactions
from recvae.models.common.base import Model
from recvae.models.common.densities import DensityModel
from recvae.models.common.draws import check_samples, check_seed, content_keys, draws_for
from recvae.progress import Progress, part_of

SCORES = ("reconstruction", "prediction", "likelihood")
_PARTS = 5  # of a row, foreseen one by one
_LEAST_REFERENCE, _NEAR = 20, 1 / 3  # users; of them, at most: all of them are not of similar length
_LEAST_SPREAD = 1e-9
_EQUAL = 1e-5  # of a raw score: float32 adds up in another order beside other users
_BLOCK_BYTES, _COPIES = 64 << 20, 4  # of neighbours at a time, at most; of them, in float64
_NORMAL = 1.4826  # MAD of a normal distribution times this is its standard deviation


@dataclass(frozen=True)
class _Reference:
    """Raw scores of reference users, in order of their length."""

    lengths: np.ndarray  # (R,)
    raw: np.ndarray  # (R,)
    window: int

    def near(self, lengths: np.ndarray) -> np.ndarray:
        """Return the raw scores of the reference users nearest in length, (n_users,) -> (n_users, window)."""
        middle = (np.searchsorted(self.lengths, lengths, "left") + np.searchsorted(self.lengths, lengths, "right")) // 2
        first = np.clip(middle - self.window // 2, 0, len(self.raw) - self.window)  # (U,)
        return self.raw[first[:, None] + np.arange(self.window)]  # (U, W)


class AnomalyDetector:
    """Scores of oddness for users' histories, from a fitted autoencoder.

    Parameters
    ----------
    model : Model
        A fitted autoencoder whose scores are made of its codes: ae, multdae, multvae, recvae or hvamp.
    contamination : float
        Share of users that `fit` takes for odd, in (0, 0.5]; it sets the threshold of `predict`.
    score : str
        "reconstruction", "prediction" or "likelihood"; see `recvae.latent.anomalies`.
    n_samples : int
        Draws of each user's code.
    neighbours : int
        Reference users of similar length that a user is compared with; at most a third of them, but 20 or more.
    seed : int
        Of the draws, and of the parts of "prediction".
    max_memory : int, optional
        Bytes that scoring may take at a time.

    Attributes
    ----------
    decision_scores_ : ndarray of shape (n_reference,), float64
        Scores of the users that `fit` was given.
    threshold_ : float
        Scores above it are odd.
    labels_ : ndarray of shape (n_reference,), int64
        1 for an odd user of `fit`, 0 for others.

    Raises
    ------
    UsageError
        If the model is no autoencoder, has no such score, or a parameter is out of range.

    Examples
    --------
    >>> import recvae, numpy as np
    >>> events, _ = recvae.synthetic_log(n_users=400, n_items=100, n_events=9000, seed=1)
    >>> dataset = recvae.Dataset.from_events(events, name="toy", heldout_users=80)
    >>> model = recvae.MultVAE(epochs=5, hidden_dims=(32,), latent_dim=8).fit(dataset.train)
    >>> detector = AnomalyDetector(model, contamination=0.05).fit(dataset.validation.fold_in)
    >>> detector.predict(dataset.test.fold_in).shape
    (80,)
    """

    def __init__(
        self,
        model: Model,
        *,
        contamination: float = 0.1,
        score: str = "reconstruction",
        n_samples: int = 10,
        neighbours: int = 100,
        seed: int = 0,
        max_memory: int | None = None,
    ) -> None:
        if not isinstance(model, DensityModel):
            raise UsageError(
                f"got {model.name}, which has no likelihood of a history; use multvae, multdae, recvae, hvamp or ae"
            )
        if not isinstance(contamination, int | float) or not 0 < contamination <= 0.5:
            raise UsageError(f"got contamination={contamination}, expected a share above 0 and at most 0.5, e.g. 0.1")
        if score not in SCORES:
            raise UsageError(f"got score={score!r}, expected one of {', '.join(SCORES)}")
        if not isinstance(neighbours, int) or isinstance(neighbours, bool) or neighbours < _LEAST_REFERENCE:
            raise UsageError(f"got neighbours={neighbours}, expected {_LEAST_REFERENCE} or more; give e.g. 100")
        check_seed(seed)
        can = {
            "reconstruction": model._check_reconstruction,
            "prediction": model._check_foresight,
            "likelihood": model._check_likelihood,
        }
        can[score]()
        self.model = model
        self.contamination = contamination
        self.score = score
        self.n_samples, self.neighbours, self.seed = check_samples(n_samples), neighbours, seed
        self.max_memory = max_memory
        self._reference: _Reference | None = None

    def __repr__(self) -> str:
        """Return what it was made of."""
        return f"AnomalyDetector({self.model.name}, contamination={self.contamination}, score={self.score!r})"

    def fit(
        self,
        user_items: sp.csr_matrix,
        y: Any = None,  # noqa: ARG002  (PyOD's signature)
        *,
        progress: Progress | None = None,
    ) -> "AnomalyDetector":
        """Learn how surprising ordinary users are, by length.

        Parameters
        ----------
        user_items : sparse matrix of shape (n_users, n_items)
            Users the model was not trained on, such as the validation users; a few odd ones do no harm. Users without
            an interaction are left out.
        y : object
            Ignored; as in PyOD and scikit-learn.
        progress : Progress, optional
            Called with the draws done and the draws in all.

        Returns
        -------
        AnomalyDetector
            Itself.

        Raises
        ------
        DataError
            If there are fewer than 20 users with an interaction.
        """
        raw, lengths = self._raw(user_items, progress)
        known = lengths > 0
        if known.sum() < _LEAST_REFERENCE:
            raise DataError(
                f"got {plural(int(known.sum()), 'user')} with an interaction, expected {_LEAST_REFERENCE} or more to "
                "compare with; hold out more users"
            )
        # Which of equal length are the nearest must not hang on their order: their keys are as good as a draw.
        keys = np.array([int.from_bytes(key[:8]) for key in content_keys(self._rows(user_items))], np.uint64)
        order = np.lexsort((keys[known], lengths[known]))
        window = min(self.neighbours, max(_LEAST_REFERENCE, int(_NEAR * len(order))))
        self._reference = _Reference(lengths[known][order], raw[known][order], window)
        self.decision_scores_ = self._calibrated(raw, lengths)  # (R,)
        self.threshold_ = float(np.quantile(self.decision_scores_[known], 1 - self.contamination))
        self.labels_ = (self.decision_scores_ > self.threshold_).astype(np.int64)
        return self

    def decision_function(self, user_items: sp.csr_matrix) -> np.ndarray:
        """Return how odd users are, in standard deviations of reference users of similar length.

        Parameters
        ----------
        user_items : sparse matrix of shape (n_users, n_items)
            Histories.

        Returns
        -------
        ndarray of shape (n_users,), float64
            Higher is odder, 0 is usual; also 0 for a user without interactions, of whom nothing is known.

        Raises
        ------
        NotFittedError
            Before `fit`.
        """
        self._check_fitted()
        return self._calibrated(*self._raw(user_items))

    def predict(self, user_items: sp.csr_matrix) -> np.ndarray:
        """Return 1 for users odder than the threshold and 0 for others, shape (n_users,), int64."""
        return (self.decision_function(user_items) > self.threshold_).astype(np.int64)

    def p_values(self, user_items: sp.csr_matrix) -> np.ndarray:
        """Return the share of reference users of similar length that are as surprising or more.

        Parameters
        ----------
        user_items : sparse matrix of shape (n_users, n_items)
            Histories.

        Returns
        -------
        ndarray of shape (n_users,), float64
            (1 + number of these) / (1 + number compared with), so never 0; for users like the reference it is spread
            evenly from 0 to 1. 1 for a user without interactions.

        Raises
        ------
        NotFittedError
            Before `fit`.
        """
        return self.scores_and_p_values(user_items)[1]

    def scores_and_p_values(
        self, user_items: sp.csr_matrix, *, progress: Progress | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what `decision_function` and `p_values` do, in half the time; `progress` as in `fit`."""
        reference = self._check_fitted()
        raw, lengths = self._raw(user_items, progress)
        as_odd = np.empty(len(raw))  # (U,)
        least = raw - _EQUAL * np.maximum(np.abs(raw), 1)  # a reference user's own copy may differ in the last digits

        def work(start: int, end: int) -> None:
            as_odd[start:end] = (reference.near(lengths[start:end]) >= least[start:end, None]).sum(axis=1)  # (B, W)

        in_blocks(len(raw), self._block(), work)
        return self._calibrated(raw, lengths), np.where(lengths > 0, (1 + as_odd) / (1 + reference.window), 1.0)

    @property
    def has_surprises(self) -> bool:
        """Whether `surprises` works: whether the likelihood is multinomial."""
        return (self.model._likelihood() or ("", 1.0))[0] == "multinomial"

    def surprises(self, user_items: sp.csr_matrix) -> sp.csr_matrix:
        """Return how surprising each interaction of a user is to the model: -log p(i | z) at the mean of q(z | x).

        Parameters
        ----------
        user_items : sparse matrix of shape (n_users, n_items)
            Histories.

        Returns
        -------
        csr_matrix of shape (n_users, n_items), float32
            Nats at the user's own items; what stands out in a history.
        """
        rows = self._rows(user_items)
        if not self.has_surprises:
            raise UsageError(f"got {self.model.name} without a multinomial likelihood, which says what stands out")
        values = np.empty(rows.nnz, np.float32)

        def work(start: int, end: int) -> None:
            part = rows[start:end]
            scores = self.model.score(part, max_memory=self.max_memory)  # (B, I)
            of_rows = np.repeat(np.arange(part.shape[0]), np.diff(part.indptr))
            total = logsumexp(scores, axis=1)  # (B,)
            values[rows.indptr[start] : rows.indptr[end]] = total[of_rows] - scores[of_rows, part.indices]

        in_blocks(rows.shape[0], self.model.rows_at_a_time(self.max_memory), work)
        return sp.csr_matrix((values, rows.indices, rows.indptr), shape=rows.shape)

    def _check_fitted(self) -> _Reference:
        if self._reference is None:
            raise NotFittedError("this AnomalyDetector is not fitted yet; call fit(users) with users to compare with")
        return self._reference

    def _rows(self, user_items: sp.csr_matrix) -> sp.csr_matrix:
        """Return checked rows: a stored zero is no interaction, and counts nowhere."""
        self.model.check_fitted()
        return as_interactions(user_items, "the users", self.model.n_items_)

    def _raw(self, user_items: sp.csr_matrix, progress: Progress | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean surprise of each user's interactions, and how many these are, each (n_users,)."""
        every = self._rows(user_items)
        rows, places = _different(every)
        options: dict[str, Any] = {"seed": self.seed, "max_memory": self.max_memory, "progress": progress}
        if self.score == "reconstruction":
            log_p = self.model.reconstruction(rows, self.n_samples, **options)
        elif self.score == "likelihood":
            log_p = self.model.log_likelihood(rows, self.n_samples, **options)
        else:
            log_p = self._foreseen(rows, progress)
        weights = np.asarray(rows.sum(axis=1), dtype=np.float64).ravel()  # (U,)
        return (-log_p / np.maximum(weights, 1e-12))[places], every.getnnz(axis=1)

    def _foreseen(self, rows: sp.csr_matrix, progress: Progress | None) -> np.ndarray:
        """Return the sum of log p of each part of a row given the others, (n_users,)."""
        parts = np.empty(rows.nnz, np.int64)
        for key, start, end in zip(content_keys(rows), rows.indptr[:-1], rows.indptr[1:], strict=True):
            parts[start:end] = draws_for(self.seed, key, of="items").permutation(end - start) % _PARTS
        total = np.zeros(rows.shape[0])
        for part in range(_PARTS):
            seen, hidden = rows.copy(), rows.copy()
            seen.data[parts == part], hidden.data[parts != part] = 0, 0
            seen.eliminate_zeros()
            hidden.eliminate_zeros()
            step = part_of(progress, part / _PARTS, (part + 1) / _PARTS, f"part {part + 1} of {_PARTS}")
            options: dict[str, Any] = {"seed": self.seed, "max_memory": self.max_memory, "progress": step}
            total += self.model.target_log_likelihood(seen, hidden, self.n_samples, **options)
        return total

    def _calibrated(self, raw: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return the distance of each raw score from those of similar length, in their spreads, (n_users,)."""
        reference, found = self._check_fitted(), np.empty(len(raw))  # (U,)

        def work(start: int, end: int) -> None:
            near = reference.near(lengths[start:end])  # (B, W)
            middle = np.median(near, axis=1)  # (B,)
            spread = _NORMAL * np.median(np.abs(near - middle[:, None]), axis=1)
            found[start:end] = (raw[start:end] - middle) / np.maximum(spread, _LEAST_SPREAD)

        in_blocks(len(raw), self._block(), work)
        return np.where(lengths > 0, found, 0.0)

    def _block(self) -> int:
        """Return how many users are compared with their neighbours at a time."""
        limit = _BLOCK_BYTES if self.max_memory is None else min(_BLOCK_BYTES, self.max_memory)
        return rows_within(limit, 0, _COPIES * 8 * self.neighbours, 1 << 20)


def _different(rows: sp.csr_matrix) -> tuple[sp.csr_matrix, np.ndarray]:
    """Return each different row once, in an order of their own, and which of these (n_users,) each user has.

    A row's product with a matrix may differ in the last bit by its place in a block. So what is scored must not depend
    on the order of the users.
    """
    first: dict[bytes, int] = {}
    keys = content_keys(rows)
    for user, key in enumerate(keys):
        first.setdefault(key, user)
    place = {key: number for number, key in enumerate(sorted(first))}
    return rows[[first[key] for key in place]], np.array([place[key] for key in keys])
