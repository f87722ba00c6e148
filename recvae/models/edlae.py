"""EDLAE and its relatives: one closed form for linear autoencoders with dropout, relaxed or normalised.

Steck, Autoencoders that Don't Overfit towards the Identity, NeurIPS 2020: dropout with probability p on the input, with
an item always among the hidden ones when it is predicted, is in expectation a penalty that grows with its popularity:

    gamma_i = l2 + p / (1 - p) n_i,  P = (G + diag(gamma))^-1,  B_ij = -P_ij / P_jj for i != j,  G = X^T X,  n_i = G_ii

Moon et al., It's Enough: Relaxing Diagonal Constraints in Linear Autoencoders, SIGIR 2023: the diagonal of the weights
may be up to xi instead of 0, from EDLAE (xi = 0) to DLAE (xi = 1), which is dropout alone:

    B = -P diag(gamma + mu),  mu_j = (1 - xi) / P_jj - gamma_j where 1 - gamma_j P_jj > xi, else 0

An item never speaks for itself in a ranking: B_ii is set to 0 in all of them.

Park et al., Why is Normalization Necessary for Linear Recommenders? (DAN), SIGIR 2025: users with many interactions and
popular items count less:

    G = X^T diag(n_u^-beta) X,  W_ij = B_ij (n_i / n_j)^alpha

Here l2 is multiplied by the mean of n_u^-beta over the users who have items, so that it means the same for every beta,
and n_i in gamma is the diagonal of the new G. In W, and in n_u^-beta, interactions are counted, whatever their weights.

    p = 0, xi = 0      EASE          p > 0, xi = 0      EDLAE
    p = 0, xi > 0      RLAE          p > 0, xi > 0      RDLAE, xi = 1: DLAE
    alpha, beta > 0    DAN of each
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from recvae.interactions import item_counts_of
from recvae.models.common.hyperparameters import Space, hyperparameter
from recvae.models.ease import EASE, gram_matrix, inverse_of, weights_without_diagonal


@dataclass(kw_only=True)
class EDLAE(EASE):
    """EASE with a penalty that grows with popularity, the effect of dropout; also RLAE, RDLAE, DLAE and DAN.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> train = sp.csr_matrix(np.kron(np.eye(2), np.ones((20, 5))))
    >>> model = EDLAE(l2=1.0, dropout=0.3, relax=0.2, user_power=0.1, item_power=0.1).fit(train)
    >>> sorted(model.recommend(sp.csr_matrix([[1, 1, 1, 0, 0, 0, 0, 0, 0, 0]]), k=2)[0][0].tolist())
    [3, 4]
    """

    name: ClassVar[str] = "edlae"
    paper: ClassVar[str] = "Steck: Autoencoders that Don't Overfit towards the Identity (NeurIPS 2020)"
    space: ClassVar[Space] = {
        "l2": (None, 10.0, 20.0, 50.0, 100.0, 200.0, 300.0, 500.0, 1000.0),
        "dropout": (0.1, 0.2, 0.33, 0.5, 0.7),
        "relax": (0.0, 0.1, 0.2, 0.3, 0.4, 0.6),
        "user_power": (0.0, 0.1, 0.2, 0.3),
        "item_power": (0.0, 0.1, 0.2, 0.3),
    }
    # Of the space, 4,320 points, what EDLAE's paper has; each is an inverse of items x items.
    grid: ClassVar[Space] = {"l2": (None, 50.0, 200.0, 500.0), "dropout": (0.1, 0.33, 0.5)}

    dropout: float = hyperparameter(
        0.33, "probability p of hiding an interaction from the input", low=0, high=1, below_high=True
    )
    relax: float = hyperparameter(0.0, "largest weight xi of an item on itself while fitting", low=0, high=1)
    user_power: float = hyperparameter(
        0.0, "power beta by which users with many interactions count less", low=0, high=1
    )
    item_power: float = hyperparameter(0.0, "power alpha by which popular items are recommended less", low=0, high=1)

    @property
    def _share_of_l2(self) -> float:
        return 0.7 if self.dropout else 1.0  # dropout does a part of the work

    def _penalty(self, counts: np.ndarray, l2: float) -> np.ndarray:
        """Return gamma, shape (n_items,), given the diagonal of X^T X."""
        return l2 + self.dropout / (1 - self.dropout) * counts

    def _solve(self, train: sp.csr_matrix, l2: float) -> np.ndarray:
        sums = []  # of n_u^-beta and of users, of each part of them; who has no items is no user here

        def weigh(rows: sp.csr_matrix) -> sp.csr_matrix:
            lengths = np.diff(rows.indptr)  # (U,)
            shares = np.maximum(lengths, 1).astype(np.float64) ** -self.user_power  # (U,)
            sums.append((shares[lengths > 0].sum(), np.count_nonzero(lengths)))
            weighted = rows if self.user_power == 0 else sp.csr_matrix(sp.diags_array(np.sqrt(shares)) @ rows)
            return weighted.astype(np.float32)

        gram = gram_matrix(train, weigh)
        total, n_users = np.sum(sums, axis=0)
        mean = float(total / n_users) if n_users else 1.0
        penalty = self._penalty(gram.diagonal(), l2 * mean).astype(np.float32)  # (I,)
        gram[np.diag_indices_from(gram)] += penalty
        precision = inverse_of(gram)
        free = 1 / precision.diagonal()  # gamma + mu of EDLAE
        columns = np.where(1 - penalty / free > self.relax, (1 - self.relax) * free, penalty)  # (I,): gamma + mu
        if self.item_power == 0:
            return weights_without_diagonal(precision, columns)
        counts = item_counts_of(train)
        popularity = np.maximum(counts, 1).astype(np.float32) ** np.float32(self.item_power)  # (I,)
        return weights_without_diagonal(precision, columns / popularity, popularity)
