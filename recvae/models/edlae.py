"""EDLAE: Steck, Autoencoders that Don't Overfit towards the Identity, NeurIPS 2020.

Dropout with probability p on the input of a linear autoencoder, with its own item always among the hidden ones,
is in expectation a penalty that grows with an item's popularity:

    P = (X^T X + diag(l2 + p / (1 - p) * n_i))^-1,  B_ij = -P_ij / P_jj for i != j,  n_i = (X^T X)_ii

With p = 0 this is EASE.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from recvae.models.common.hyperparameters import Space, hyperparameter
from recvae.models.ease import EASE


@dataclass(kw_only=True)
class EDLAE(EASE):
    """EASE with a penalty that grows with popularity: the effect of dropout on its input.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> train = sp.csr_matrix(np.kron(np.eye(2), np.ones((20, 5))))
    >>> model = EDLAE(l2=1.0, dropout=0.3).fit(train)
    >>> sorted(model.recommend(sp.csr_matrix([[1, 1, 1, 0, 0, 0, 0, 0, 0, 0]]), k=2)[0][0].tolist())
    [3, 4]
    """

    name: ClassVar[str] = "edlae"
    paper: ClassVar[str] = "Steck: Autoencoders that Don't Overfit towards the Identity (NeurIPS 2020)"
    space: ClassVar[Space] = {
        "l2": (10.0, 20.0, 50.0, 100.0, 200.0, 300.0, 500.0, 1000.0),
        "dropout": (0.1, 0.2, 0.33, 0.5, 0.7),
    }

    l2: float = hyperparameter(300.0, "weight of the squared weights, in interactions", low=0)
    dropout: float = hyperparameter(
        0.33, "probability p of hiding an interaction from the input", low=0, high=1, below_high=True
    )

    def _penalty(self, counts: np.ndarray) -> np.ndarray:
        return self.l2 + self.dropout / (1 - self.dropout) * counts
