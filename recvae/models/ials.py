"""iALS: Rendle, Krichene, Zhang and Koren, Revisiting the Performance of iALS, RecSys 2022.

    sum_ui w_ui (1 - x_u . y_i)^2 + a sum_(all u, i) (x_u . y_i)^2
      + lambda [ sum_u (n_u + a I)^p |x_u|^2 + sum_i (n_i + a U)^p |y_i|^2 ]

w_ui is the weight of an interaction, and n_u and n_i are sums of them: an interaction of weight 2 acts as two. (In the
paper all are 1.) As in the authors' code users are solved for first, and item vectors start from N(0, .1^2 / factors).
A user or item without interactions has a vector of 0.

The paper's a and lambda are set through numbers whose good values hardly depend on the data (docs/models.md):

    a = ratio sum w / (U I),  lambda = r / (1 + ratio)^p    (unobserved_ratio, regularization, regularization_power)

a I is then ratio times the mean of n_u, so that the penalty of a user is r times a mean of n_u and of its mean over all
users (to the power p). For p = 1 it is a share of the loss, however long the history; where all users have one weight,
and all items, vectors of 0 are the best from r = 1 on.

All users share Y^T Y = V diag(g) V^T. Their vectors are solved for in the basis V, which changes nothing if items are
turned too. With a diagonal D_u = a g + lambda (n_u + a I)^p, and N_u = W_u^1/2 Y_u D_u^-1/2 (the items of a history),

    D_u^1/2 x_u = (1 + N_u^T N_u)^-1 N_u^T w_u^1/2 = N_u^T (1 + N_u N_u^T)^-1 w_u^1/2

The second form is a system of the size of the history. No eigenvalue of either is below 1, and for p = 1 none is above
1 + max |y|^2 / lambda, however long the history: float32 is enough. Where factors and history exceed `block_size`,
so many factors at a time are solved for, from what they were before: the blocks of iALS++ (Rendle et al. 2021), in one
pass each half of an iteration. As D_u is diagonal, only the history connects one block with another.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
import scipy.sparse as sp
import torch

from recvae.compute.devices import resolve_device
from recvae.compute.matmul import product
from recvae.compute.memory import Needs
from recvae.compute.ranks import ALONE, Ranks, current
from recvae.errors import TrainingError
from recvae.interactions import HeldOut, counts_of
from recvae.models.common.factors import FactorModel, item_factors_of
from recvae.models.common.fit_options import FitOptions
from recvae.models.common.footprint import ranking_bytes
from recvae.models.common.hyperparameters import Space, hyperparameter
from recvae.models.common.learned import learned
from recvae.models.common.ridge import BATCH_BYTES, NO_ANSWER, Histories, batches_of, by_factors, by_history
from recvae.models.common.row_parts import RowPart, most_of_part, row_weights, stop_of_all
from recvae.training.records import Monitor, NullMonitor, StopTraining, TrainingSummary

# Letters in shape comments: U users, I items, R rows that are solved for, C columns of these rows, B rows of a batch,
# N interactions of a history, F factors.

_INITIAL_STD = 0.1
_TURNED_ROWS = 1 << 14  # at a time in float64
_SMALLEST = 1e-6  # of D beside its largest value: below, the rounding of float32 would show
_NOTHING = "all factors became 0; lower regularization"


@dataclass(kw_only=True)
class IALS(FactorModel):
    """Factorise the interactions, with regularisation in proportion to the interactions of a user or item.

    Examples
    --------
    >>> train = sp.csr_matrix(np.kron(np.eye(2), np.ones((4, 4))))
    >>> model = IALS(factors=2, seed=1).fit(train)
    >>> sorted(model.recommend(sp.csr_matrix([[1, 1, 0, 0, 0, 0, 0, 0]]), k=2)[0][0].tolist())
    [2, 3]
    """

    name: ClassVar[str] = "ials"
    shares_users: ClassVar[bool] = True
    paper: ClassVar[str] = "Rendle et al.: Revisiting the Performance of iALS on Item Recommendation (RecSys 2022)"
    space: ClassVar[Space] = {
        "factors": (64, 200, 400),
        "regularization": (0.02, 0.05, 0.1, 0.2),
        "unobserved_ratio": (3.0, 10.0, 30.0),
    }
    grid: ClassVar[Space] = {
        "factors": (64, 200),
        "regularization": (0.05, 0.2),
        "unobserved_ratio": (3.0, 10.0, 30.0),
    }

    regularization: float = hyperparameter(
        0.05, "weight of the squared factors, in that of a user's or item's interactions", low=0
    )
    unobserved_ratio: float = hyperparameter(
        10.0, "weight of all pairs of user and item, in that of all interactions", low=0
    )
    regularization_power: float = hyperparameter(
        1.0, "exponent with which regularisation grows with interactions; 0: the same for all", low=0, high=2
    )
    iterations: int = hyperparameter(16, "alternations between users and items", low=1)
    block_size: int = hyperparameter(
        128, "factors solved for at a time, for users and items with more interactions", low=1
    )
    seed: int = hyperparameter(0, "seed of the initial factors", low=0, high=2**32 - 1)

    device_: torch.device = field(default=torch.device("cpu"), init=False, repr=False, compare=False)
    summary_: TrainingSummary = field(default_factory=TrainingSummary, init=False, repr=False, compare=False)
    _folding: "_Basis | None" = field(default=None, init=False, repr=False, compare=False)
    unobserved_weight_: np.ndarray = learned(1, per_item=False, counted=False)  # a, (1,), float64

    @property
    def uses_device(self) -> bool:
        """Whether it computes on the device that `fit` is given: yes."""
        return True

    def _fit(
        self,
        train: sp.csr_matrix,
        validation: HeldOut | None,  # noqa: ARG002  (nothing is chosen by them)
        options: FitOptions,
    ) -> StopTraining | None:
        """Alternate between users and items; where the monitor ends it, the last iteration is kept.

        Raises
        ------
        TrainingError
            If float32 is not enough, which takes a regularization near 0, or all factors became 0.
        """
        ranks = current()
        monitor = options.monitor if ranks.leads else NullMonitor()
        monitor.start(self.iterations, [])
        started = time.perf_counter()
        with ranks.together():
            items, done, stop = self._alternate(train, options.device, monitor, ranks)
        if stop is not None and not done:
            return stop
        learned = {"item_factors": items.cpu().numpy(), "unobserved_weight": self.unobserved_weight_}
        self.load_weights(learned, options.device)
        self.summary_ = TrainingSummary(
            seconds=time.perf_counter() - started,
            device=str(options.device),
            epochs=done,
            stopped=None if stop is None else stop.reason,
        )
        return None

    def _alternate(
        self, train: sp.csr_matrix, device: torch.device, monitor: Monitor, ranks: Ranks
    ) -> tuple[torch.Tensor, int, StopTraining | None]:
        """Return the item vectors (I, F), how many iterations have led to them, and what has ended it before.

        Several processes share the rows of each half, users and items by turns: each has all vectors, the rows of all
        users, as the data set has them, and the columns of its own items.
        """
        of_users, of_items = row_weights(train), counts_of(train.indices, train.shape[1])  # (U,), (I,)
        self.unobserved_weight_ = np.array([self.unobserved_ratio * (of_users.sum() / train.shape[0] / train.shape[1])])
        by_user, by_item = self._part(np.diff(train.indptr), ranks), self._part(of_items, ranks)
        columns = by_item.columns_as_rows(train)  # (I, U)
        items = self._start(train.shape[1], ranks).to(device)
        users: torch.Tensor | None = None  # (U, F)
        done, stop = 0, None
        while done < self.iterations and stop is None:
            solved, turned = self._half(train, items, users, by_user)
            stop = stop_of_all(ranks, monitor.advance(done + 0.5, None))
            if stop is not None:
                break
            items, users = self._half(columns, solved, turned, by_item)
            done += 1
            stop = stop_of_all(ranks, monitor.advance(done, None))
        return items, done, stop

    def _part(self, lengths: np.ndarray, ranks: Ranks = ALONE) -> RowPart:
        return RowPart(ranks, lengths, self.factors, min(self.block_size, self.factors))

    def _start(self, n_items: int, ranks: Ranks) -> torch.Tensor:
        """Return the item vectors (I, F) to start from; those of the first process, since others may round otherwise.

        They are drawn on the CPU: a seed means the same start everywhere.
        """
        start = torch.zeros(n_items, self.factors)
        if ranks.leads:
            start.normal_(generator=torch.Generator().manual_seed(self.seed)).mul_(_INITIAL_STD / self.factors**0.5)
        ranks.check(same=start.numel())
        ranks.sum(start)
        return start

    def _half(
        self, rows: sp.csr_matrix, columns: torch.Tensor, before: torch.Tensor | None, part: RowPart | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return new vectors of the rows (R, F), and those of the columns (C, F) in the same basis."""
        part = part or self._part(np.diff(rows.indptr))
        basis = _Basis.of(columns, part.ranks)
        has_blocks = self.block_size < self.factors  # otherwise it does not matter what they were before
        before = basis.turn(before) if before is not None and has_blocks else None
        found = part.of_all(self._solve(rows, basis, self.block_size, before, part))
        if part.has_any and not found.abs().max() > 0:
            raise TrainingError(_NOTHING)
        return found, basis.vectors

    def _solve(
        self,
        rows: sp.csr_matrix,
        basis: "_Basis",
        block_size: int,
        before: torch.Tensor | None = None,
        part: RowPart | None = None,
    ) -> torch.Tensor:
        """Return the vector of each row (R, F) in a basis; of 0 where a row has no interaction, or is not its own."""
        penalty = self._penalty(row_weights(rows), rows.shape[1])  # (R,)
        found = basis.vectors.new_zeros(rows.shape[0], self.factors)
        block = min(block_size, self.factors)
        batches = part.batches if part else batches_of(np.diff(rows.indptr), self.factors, block)
        for batch, length in batches:
            scale = self._scale(basis, penalty[batch])  # (B, F)
            histories = Histories(rows, batch, length, basis.vectors, scale)
            if length <= block:
                scaled = by_history(histories)
            else:
                where = torch.from_numpy(batch).to(found.device)
                start = torch.zeros_like(scale) if before is None else before[where] / scale
                scaled = by_factors(histories, start, block)
            found[torch.from_numpy(batch).to(found.device)] = scaled * scale  # (B, F)
            if part is not None and part.ranks.interrupted:
                break  # all end where they meet next, and what was found is not looked at
        return found

    def _penalty(self, weight: np.ndarray, n_columns: int) -> np.ndarray:
        """Return lambda (n + a C)^p of rows of some weight n, (R,)."""
        mean = (weight + self.unobserved_weight_ * n_columns) / (1 + self.unobserved_ratio)  # (R,)
        return self.regularization * mean**self.regularization_power

    def _scale(self, basis: "_Basis", penalty: np.ndarray) -> torch.Tensor:
        """Return D^-1/2 of some rows, (B, F)."""
        shared = self.unobserved_weight_ * basis.values  # (F,)
        diagonal = shared + penalty[:, None]  # (B, F)
        if not diagonal.min() > _SMALLEST * shared.max():
            raise TrainingError(NO_ANSWER)
        return torch.from_numpy(diagonal**-0.5).to(basis.vectors)

    def needs(self, n_users: int, n_items: int, n_interactions: int, *, on_gpu: bool = False) -> Needs:
        """Count both factors before and after, and the interactions by user and by item; see `Model.needs`.

        Of several processes each has all factors, and its part of the interactions.
        """
        factor = 4 * self.factors
        own = most_of_part(n_interactions, n_users, self.factors, self.block_size)  # by item
        of_batch = 5 * min(BATCH_BYTES, factor * (n_interactions + 1))
        turning = 8 * self.factors * (min(_TURNED_ROWS, max(n_users, n_items)) + 5 * self.factors)
        factors = factor * (n_users + n_items + 3 * max(n_users, n_items))  # before, turned, and after
        rows = 24 * own + 48 * (n_users + n_items)
        return Needs(
            parameters=self.factors * n_items,
            training=factors + of_batch + turning + (0 if on_gpu else rows),
            held=factor * n_items,
            host=rows + 2 * factor * n_items + turning if on_gpu else 0,
            weights=2 * factor * n_items + turning,
            per_user=ranking_bytes(n_items) + 3 * factor + 8 * n_items,
        )

    def bytes_shared(self, n_users: int, n_items: int) -> tuple[int, int]:
        """Return what each of several processes has in vectors, and adds up in half an iteration, in bytes."""
        vectors = 4 * self.factors * (n_users + n_items)
        return vectors, vectors // 2 + 8 * self.factors * (self.factors + 1)

    def _basis(self) -> "_Basis":
        if self._folding is None:
            self._folding = _Basis.of(torch.from_numpy(self.item_factors_).to(self.device_))
        return self._folding

    def _embed_block(self, user_items: sp.csr_matrix) -> np.ndarray:
        basis = self._basis()
        found = self._solve(user_items, basis, self.factors)  # (B, F), exact
        return product(found, basis.matrix.T).cpu().numpy()  # in the basis of the item factors

    def _score_block(self, user_items: sp.csr_matrix) -> torch.Tensor:
        basis = self._basis()
        return product(self._solve(user_items, basis, self.factors), basis.vectors.T)  # (B, F) x (F, I) -> (B, I)

    def contributions(
        self,
        user_items: sp.csr_matrix,
        columns: np.ndarray,
        *,
        max_memory: int | None = None,  # noqa: ARG002  (no users are scored)
    ) -> np.ndarray:
        """Return w_uj y_j^T (Y^T W Y + D)^-1 y_i, which add up to the score; see `Model.contributions`."""
        history = self._check_histories(user_items)
        factors, weights = self.item_factors_.astype(np.float64), history.data.astype(np.float64)  # (I, F), (N,)
        own = factors[history.indices]  # (N, F)
        system = self.unobserved_weight_ * factors.T @ factors + (own.T * weights) @ own  # (F, F)
        system += self._penalty(weights.sum(), len(factors)) * np.eye(self.factors)
        solved = np.linalg.solve(system, own.T)  # (F, N)
        return ((factors[columns] @ solved).T * weights[:, None]).astype(np.float32)  # (C, N) -> (N, C)

    def training_summary(self) -> TrainingSummary:
        """Return how the last fit went; see `Model.training_summary`."""
        return self.summary_

    def load_weights(self, weights: Mapping[str, np.ndarray], device: str | torch.device = "cpu") -> Self:
        """Load item factors and the weight of unobserved pairs; see `Model.load_weights`."""
        factors = item_factors_of(weights, self.factors)
        self._folding, self.device_ = None, resolve_device(device)
        unobserved = np.asarray(weights["unobserved_weight"], dtype=np.float64)
        if unobserved.shape != (1,):
            raise ValueError(f"an unobserved weight of shape {unobserved.shape} is not one number")
        arrays = {"item_factors": factors, "unobserved_weight": unobserved}
        return super().load_weights(arrays, device)


@dataclass(frozen=True)
class _Basis:
    """Vectors in the basis where their sum of outer products is a diagonal."""

    matrix: torch.Tensor  # V, (F, F)
    values: np.ndarray  # g, (F,), float64
    vectors: torch.Tensor  # (C, F)

    @classmethod
    def of(cls, vectors: torch.Tensor, ranks: Ranks = ALONE) -> Self:
        """Turn vectors (C, F) into it; the basis is found in float64.

        The first of several processes finds it for all: the basis of another kind of processor could have other signs.
        """
        n = vectors.shape[1]
        found = torch.from_numpy(_eigen(vectors)) if ranks.leads else torch.zeros(n + 1, n, dtype=torch.float64)
        ranks.check(same=found.numel())
        ranks.sum(found)
        matrix = found[1:].to(vectors)
        return cls(matrix, found[0].numpy(), product(vectors, matrix))

    def turn(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return other vectors (R, F) in this basis."""
        return product(vectors, self.matrix)


def _eigen(vectors: torch.Tensor) -> np.ndarray:
    """Return the eigenvalues of the sum of outer products of vectors (C, F), and below them its basis, (1 + F, F)."""
    gram = torch.zeros(vectors.shape[1], vectors.shape[1], dtype=torch.float64, device=vectors.device)  # (F, F)
    for some in vectors.split(_TURNED_ROWS):
        gram += some.double().T @ some.double()
    if not gram.isfinite().all():
        raise TrainingError(NO_ANSWER)
    values, matrix = np.linalg.eigh(gram.cpu().numpy())
    return np.vstack([np.maximum(values, 0.0), matrix])
