"""Which models several processes can train together, each with a part of the users of every batch."""

import numpy as np
import scipy.sparse as sp

from recvae.compute.ranks import current
from recvae.errors import UsageError
from recvae.interactions import HeldOut
from recvae.metrics import Metric
from recvae.models.common.described import Described
from recvae.models.common.hyperparameters import values_of
from recvae.models.common.streaming import buffer_of


def check_can_share(model: type[Described]) -> None:
    """Refuse a model that several processes cannot train together, where there are several.

    Parameters
    ----------
    model : type of Model
        A class says for itself that it can, by `shares_users`; one derived from it may have another loss.

    Raises
    ------
    UsageError
        With the models that can.
    """
    if current().several and not vars(model).get("shares_users", False):
        from recvae.models import MODELS  # the registry imports this package

        able = ", ".join(name for name, known in MODELS.items() if vars(known).get("shares_users", False))
        raise UsageError(
            f"got {model.name} with {current().size} processes, which cannot share its users; train it with one "
            f"process, or one of {able}"
        )


def check_shares(n_users: int) -> None:
    """Refuse more processes than an update has users.

    Parameters
    ----------
    n_users : int
        Of a batch.

    Raises
    ------
    UsageError
        If some would never have a user.
    """
    if current().size > n_users:
        raise UsageError(
            f"got {current().size} processes for {n_users} users per update, expected at most one for each; start "
            "fewer (torchrun --nproc-per-node), or raise batch_size"
        )


def share_of(n_users: int) -> int:
    """Return the most users of a batch that one process has."""
    return -(-n_users // current().size)


def check_alike(model: Described, train: sp.csr_matrix, validation: HeldOut | None, select_by: Metric) -> None:
    """Refuse to train where processes have different data or settings.

    Parameters
    ----------
    model : Model
        Not fitted.
    train : csr_matrix of shape (n_users, n_items)
        Checked interactions.
    validation : HeldOut, optional
        Checked.
    select_by : Metric
        What the validation users choose by.

    Raises
    ------
    UsageError
        With what differs.
    """
    ranks = current()
    if not ranks.several:
        return
    held_out = [] if validation is None else [validation.fold_in, validation.targets]
    settings = {name: repr(value) for name, value in values_of(model).items()} | {"buffer": buffer_of(train)}
    ranks.check()
    ranks.check_alike(
        {"model": model.name, **settings, "select_by": select_by.path}, "model and settings", "type the same everywhere"
    )
    from recvae.datasets.folder import fingerprint_of_matrices  # a process that trains alone needs none of it

    ranks.check_alike(
        {"shape": list(train.shape), "fingerprint": fingerprint_of_matrices([train, *held_out], np.empty(0))[:12]},
        "training and validation users",
        "copy the data set to all machines, or prepare it with the same command on each",
    )
