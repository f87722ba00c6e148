"""Which models several processes can train together, each with a part of the users of every batch, or of the items."""

import numpy as np
import scipy.sparse as sp
import torch

from recvae.compute.ranks import current
from recvae.errors import UsageError
from recvae.interactions import HeldOut
from recvae.metrics import Metric
from recvae.models.common.described import Described
from recvae.models.common.hyperparameters import values_of
from recvae.models.common.streaming import buffer_of, layout_of
from recvae.training.shards import Shard


def check_can_share(model: "Described | type[Described]") -> None:
    """Refuse a model that several processes cannot train together, where there are several.

    Parameters
    ----------
    model : Model or type of Model
        A class says for itself that it can, by `shares_users` and `shares_items`; one derived from it may have another
        loss. Of a model, its settings are looked at too.

    Raises
    ------
    UsageError
        With the models that can, or the setting that cannot.
    """
    if not current().several:
        return
    kind, says = (model if isinstance(model, type) else type(model)), f"shares_{current().share}"
    what = f"got {kind.name} with {current().size} processes, which cannot share its {current().share}"
    if not vars(kind).get(says, False):
        from recvae.models import MODELS  # the registry imports this package

        able = ", ".join(name for name, known in MODELS.items() if vars(known).get(says, False))
        raise UsageError(f"{what}; train it with one process, or one of {able}")
    setting = getattr(model, "needs_all_items", None) if current().by_items and not isinstance(model, type) else None
    if setting is not None:
        raise UsageError(f"{what} with {setting}; leave that out, share users (--share users), or train with one")


def check_shares(n_users: int, n_items: int) -> None:
    """Refuse more processes than there is something to share.

    Parameters
    ----------
    n_users : int
        Of a batch.
    n_items : int
        Of the network.

    Raises
    ------
    UsageError
        If some would never have a user, or have no item.
    """
    ranks = current()
    if ranks.by_items and ranks.size > n_items:
        raise UsageError(
            f"got {ranks.size} processes for {n_items} items, expected at most one for each; start fewer (torchrun "
            "--nproc-per-node)"
        )
    if ranks.by_users and ranks.size > n_users:
        raise UsageError(
            f"got {ranks.size} processes for {n_users} users per update, expected at most one for each; start "
            "fewer (torchrun --nproc-per-node), or raise batch_size"
        )


def share_of(n_users: int) -> int:
    """Return the most users of a batch that one process has."""
    return -(-n_users // current().size) if current().by_users else n_users


def items_of(n_items: int) -> int:
    """Return the most items that one process has."""
    return -(-n_items // current().size) if current().by_items else n_items


def shard_of(n_items: int) -> Shard | None:
    """Return which items this process has, None where it has all."""
    return Shard(n_items, current()) if current().by_items else None


def check_precision(dtype: torch.dtype) -> None:
    """Refuse to train where processors of several processes would choose another number format of their products."""
    ranks = current()
    if ranks.several:
        ranks.check()
        name = str(dtype).removeprefix("torch.")
        advice = "add --precision float32 (in Python precision='float32')"
        ranks.check_alike({"precision": name}, "number format of products", advice)


def check_alike(
    model: Described, train: sp.csr_matrix, validation: HeldOut | None, select_by: Metric, device: torch.device
) -> None:
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
    device : torch.device
        Where it is trained.

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
        {"share": ranks.share, "model": model.name, **settings, "select_by": select_by.path, "device": device.type},
        "model and settings",
        "type the same everywhere",
    )
    from recvae.datasets.folder import fingerprint_of_matrices  # a process that trains alone needs none of it

    ranks.be_patient()  # rows that stay on disk are read
    found = {"shape": list(train.shape), "fingerprint": fingerprint_of_matrices([train, *held_out], np.empty(0))[:12]}
    ranks.be_patient(False)
    ranks.check_alike(
        {**found, "shards": layout_of(train)},  # which decide the order
        "training and validation users",
        "copy the data set to all machines, or prepare it with the same command on each",
    )
