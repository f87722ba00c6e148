"""Implicit ALS: weighted matrix factorisation, Hu, Koren and Volinsky, ICDM 2008. The baseline to beat.

Fitting is done by the `implicit` package. A user, seen in training or not, is folded in by solving their own
least-squares problem against the item factors (eq. 4 of the paper), so nothing but the item factors is kept.
"""

import functools
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp
import torch
from threadpoolctl import ThreadpoolController

from recvae.compute.matmul import product
from recvae.compute.memory import Needs
from recvae.errors import TrainingError, requires_package
from recvae.interactions import HeldOut
from recvae.models.common.factors import FactorModel, item_factors_of
from recvae.models.common.fit_options import FitOptions
from recvae.models.common.footprint import ranking_bytes
from recvae.models.common.hyperparameters import Space, hyperparameter
from recvae.models.common.learned import learned
from recvae.models.common.penalties import l2_of_ones, two_digits
from recvae.training.records import StopTraining, TrainingSummary

if TYPE_CHECKING:
    from implicit.cpu.als import AlternatingLeastSquares

# Letters in shape comments: B users of a block, I items, F factors.


# The limit holds for the whole process: two threads that set it and set it back would leave it as it should not be.
_ONE_AT_A_TIME = threading.Lock()


@functools.cache
def _import_implicit() -> None:
    """Import what takes 0.3 s and no other model needs."""
    with warnings.catch_warnings(), requires_package("implicit", "als"):
        warnings.simplefilter("ignore")  # in a notebook, tqdm complains of a progress bar that nobody asked for
        import implicit.cpu.als  # noqa: F401


@functools.cache
def _blas() -> ThreadpoolController:
    """Find the libraries to limit, once: looking for them takes a hundred times as long as limiting them."""
    _import_implicit()  # they must be loaded by now
    return ThreadpoolController()


class _Stop(Exception):
    """Leaves implicit's loop, which has no other way out."""

    def __init__(self, stop: StopTraining) -> None:
        super().__init__(stop.reason)
        self.stop = stop


@contextmanager
def _solving() -> Iterator[None]:
    """Keep BLAS from adding its own threads to implicit's, which makes it many times slower, and name its failures."""
    _import_implicit()
    from implicit.recommender_base import ModelFitError

    try:
        with _ONE_AT_A_TIME, _blas().limit(limits=1, user_api="blas"):
            yield
    except (ModelFitError, ValueError) as error:
        raise TrainingError(f"the least-squares problems have no answer ({error}); raise regularization") from error


@dataclass(kw_only=True)
class ALS(FactorModel):
    """Factorise the interactions with a higher confidence in those observed than in all others.

    Minimises sum_ui c_ui (p_ui - x_u . y_i)^2 + regularization * (sum_u |x_u|^2 + sum_i |y_i|^2), where p_ui is 1
    and c_ui = alpha r_ui for an interaction of weight r_ui, and p_ui is 0 and c_ui = 1 elsewhere; the paper has
    1 + alpha r_ui. Unless it is given, the
    regularisation is .06 sqrt(alpha) times the l2 that `l2_of_ones` finds typical.

    Examples
    --------
    >>> train = sp.csr_matrix(np.kron(np.eye(2), np.ones((4, 4))))
    >>> model = ALS(factors=2, regularization=0.1, seed=1).fit(train)
    >>> sorted(model.recommend(sp.csr_matrix([[1, 1, 0, 0, 0, 0, 0, 0]]), k=2)[0][0].tolist())
    [2, 3]
    """

    name: ClassVar[str] = "als"
    paper: ClassVar[str] = "Hu, Koren, Volinsky: Collaborative Filtering for Implicit Feedback Datasets (ICDM 2008)"
    space: ClassVar[Space] = {
        "factors": (64, 200),
        "regularization": (None, 5.0, 20.0, 50.0, 100.0),
        "alpha": (2.0, 10.0, 40.0),
    }
    grid: ClassVar[Space] = {"factors": (64, 200), "alpha": (2.0, 10.0, 40.0)}  # the regularisation follows from both

    regularization: float | None = hyperparameter(
        None, "weight of the squared factors; none: from the size of the data", low=0
    )
    alpha: float = hyperparameter(10.0, "confidence of an observed interaction", low=0)
    iterations: int = hyperparameter(15, "alternations between users and items", low=1)
    seed: int = hyperparameter(0, "seed of the initial factors", low=0, high=2**32 - 1)

    _folding: Any = field(default=None, init=False, repr=False, compare=False)
    regularization_: np.ndarray = learned(1, per_item=False, counted=False)
    """The regularisation (1,) of the last fit, by which users are folded in."""

    @classmethod
    def check_libraries(cls) -> None:
        """Refuse to continue without the package `implicit`; see `Model.check_libraries`."""
        _import_implicit()

    def _fit(
        self,
        train: sp.csr_matrix,
        validation: HeldOut | None,  # noqa: ARG002  (nothing is chosen by them)
        options: FitOptions,
    ) -> StopTraining | None:
        options.monitor.start(self.iterations, [])

        def show(iteration: int, seconds: float, loss: float | None) -> None:  # noqa: ARG001  (implicit's signature)
            stop = options.monitor.advance(iteration + 1, None)
            if stop is not None:
                raise _Stop(stop)

        self.regularization_ = self._regularization(train)
        try:
            with _solving():
                solver = self._solver()
                solver.fit(train, show_progress=False, callback=show)
        except _Stop as end:
            return end.stop  # there are no factors to keep
        self.load_weights({"item_factors": solver.item_factors, "regularization": self.regularization_})
        return None

    def needs(self, n_users: int, n_items: int, n_interactions: int, *, on_gpu: bool = False) -> Needs:  # noqa: ARG002
        """Count both factors, and the interactions by user and by item; see `Model.needs`."""
        factor = 4 * self.factors
        return Needs(
            parameters=self.factors * n_items,
            training=factor * (n_users + 2 * n_items + self.factors) + 24 * n_interactions,
            held=factor * n_items,
            weights=factor * (n_items + self.factors),
            per_user=ranking_bytes(n_items) + factor,
        )

    def _regularization(self, train: sp.csr_matrix) -> np.ndarray:
        """Return the regularisation (1,): where it is not given, what was best on the data sets of docs/models.md."""
        if self.regularization is not None:
            return np.array([self.regularization], dtype=np.float64)
        confidence = self.alpha * (train.data.mean(dtype=np.float64) if train.nnz else 1.0)
        return np.array([two_digits(0.06 * np.sqrt(confidence) * l2_of_ones(train))], dtype=np.float64)

    def training_summary(self) -> TrainingSummary:
        """Return what was left to the data; see `Model.training_summary`."""
        left = self.regularization is None and len(self.regularization_)
        return TrainingSummary(from_data={"regularization": float(self.regularization_[0])} if left else None)

    def _solver(self) -> "AlternatingLeastSquares":
        from implicit.cpu.als import AlternatingLeastSquares

        return AlternatingLeastSquares(
            factors=self.factors,
            regularization=float(self.regularization_[0]),
            alpha=self.alpha,
            iterations=self.iterations,
            random_state=self.seed,
        )

    def _embed_block(self, user_items: sp.csr_matrix) -> np.ndarray:
        with _solving():
            if self._folding is None:
                folding = self._solver()  # kept, since it remembers the product of the item factors
                folding.item_factors = self.item_factors_
                folding.YtY  # noqa: B018  (computed here, so that threads find it there)
                self._folding = folding
            return self._folding.recalculate_user(np.arange(user_items.shape[0]), user_items)  # (B, F)

    def _score_block(self, user_items: sp.csr_matrix) -> torch.Tensor:
        user_factors = torch.from_numpy(self._embed_block(user_items))  # (B, F)
        return product(user_factors, torch.from_numpy(self.item_factors_).T)  # (B, I)

    def contributions(
        self,
        user_items: sp.csr_matrix,
        columns: np.ndarray,
        *,
        max_memory: int | None = None,  # noqa: ARG002  (no users are scored)
    ) -> np.ndarray:
        """Return c_ui y_j^T (Y^T C Y + r 1)^-1 y_i, which add up to the score: Hu et al. 2008, section 5."""
        history = self._check_histories(user_items)
        factors = self.item_factors_.astype(np.float64)
        own, confidence = factors[history.indices], self.alpha * history.data.astype(np.float64)  # (N, F), (N,)
        system = factors.T @ factors + self.regularization_ * np.eye(self.factors)  # (F, F)
        system += own.T @ ((confidence - 1)[:, None] * own)
        solved = np.linalg.solve(system, own.T)  # (F, N)
        return ((factors[columns] @ solved).T * confidence[:, None]).astype(np.float32)  # (C, N) -> (N, C)

    def load_weights(self, weights: Mapping[str, np.ndarray], device: str | torch.device = "cpu") -> Self:
        """Load item factors; see `Model.load_weights`."""
        factors = item_factors_of(weights, self.factors)
        given = self.regularization  # bundles of earlier versions had no other place for it
        if "regularization" not in weights and given is None:
            raise ValueError("neither the weights nor the hyperparameters say the regularization")
        regularization = np.array(weights.get("regularization", [given]), dtype=np.float64)
        if regularization.shape != (1,) or not np.isfinite(regularization) or regularization < 0:
            raise ValueError(f"a regularization {regularization} of shape {regularization.shape} is no number >= 0")
        self._folding = None
        return super().load_weights({"item_factors": factors, "regularization": regularization}, device)
