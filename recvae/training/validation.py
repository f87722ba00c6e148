"""What validation users choose by: epochs, weights of a blend, hyperparameters.

Letters in shape comments: U users.
"""

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import torch

from recvae.compute.memory import in_blocks
from recvae.interactions import HeldOut
from recvae.metrics import Metric, ndcg_at_k
from recvae.ranking import block_rows, rank

OBJECTIVE = Metric("ndcg", 100)
"""What validation users choose by: epochs, weights of a blend, hyperparameters."""


def validation_ndcg(
    score: Callable[[sp.csr_matrix], torch.Tensor], validation: HeldOut, rows: int | None = None
) -> float | None:
    """Return the mean NDCG@100 of the validation users, None if none of them has a target.

    Parameters
    ----------
    score : callable
        Block of users -> Tensor of shape (n_users, n_items).
    validation : HeldOut
        Checked.
    rows : int, optional
        How many users to score at a time; None for as many as `block_rows` says.
    """
    values = []

    def work(start: int, end: int) -> None:
        fold_in = validation.fold_in[start:end]
        ranked, _ = rank(score(fold_in), OBJECTIVE.k, seen=fold_in)
        values.append(ndcg_at_k(ranked, validation.targets[start:end], OBJECTIVE.k))

    in_blocks(validation.n_users, rows or block_rows(validation.fold_in.shape[1]), work)
    per_user = np.concatenate(values)  # (U,)
    return None if np.isnan(per_user).all() else float(np.nanmean(per_user))
