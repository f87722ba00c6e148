"""What each of several processes needs to train a model, and what they send, for both ways to share it.

Memory is what the model says of itself as one of so many processes. What is added up over processes is counted: a copy
of the model makes an update of each kind, on few items, as one process that only notes what it would have sent; since
all of it is a number for each item and a number besides, two sizes tell that of any.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from recvae.compute.devices import resolve_device
from recvae.compute.memory import Needs
from recvae.compute.ranks import SHARES, Ranks, supposed
from recvae.datasets.dataset import Dataset
from recvae.errors import MemoryLimitError, UsageError
from recvae.models.common.autoencoder import Autoencoder
from recvae.models.common.base import Model
from recvae.models.common.sharing import check_can_share, check_shares
from recvae.models.common.streaming import as_held, buffer_of, check_fits
from recvae.models.ials import IALS
from recvae.training.records import EpochRecord, NullMonitor

_FEW = 4  # items of each process in the smaller of two trials


@dataclass(frozen=True, kw_only=True)
class SharePlan:
    """What one of several processes needs.

    Parameters
    ----------
    share : str
        "users" or "items".
    ranks : int
        How many processes there are.
    needs : Needs or None
        Memory of the process that has most; None of what cannot be shared so.
    weights, moments : int
        Bytes of its weights, and of what Adam keeps of them; of iALS, the vectors of all users and items.
    added_up : int or None
        Bytes that it gives to sums over all processes in an update, on average over an epoch; a ring of processes sends
        nearly twice as many. None where that depends on the rows of a batch. Of iALS, an update is half an iteration.
    obstacle : str
        Why it cannot be trained so; empty if it can.
    """

    share: str
    ranks: int
    needs: Needs | None
    weights: int
    moments: int
    added_up: int | None
    obstacle: str

    @property
    def fits(self) -> bool:
        """Whether it can be trained so."""
        return not self.obstacle


def plan_shares(
    model: Model, dataset: Dataset, ranks: int, *, device: str = "auto", max_memory: int | None = None
) -> list[SharePlan]:
    """Find out what each of several processes would need, without starting any.

    Parameters
    ----------
    model : Model
        With its hyperparameters.
    dataset : Dataset
        Only the size of its training users counts, and the buffer of those that are streamed: each process has one.
    ranks : int
        Number of processes, 2 or more.
    device : str
        "auto", "cpu" or "cuda".
    max_memory : int, optional
        Bytes that each may take; by default what is free, as if each had a machine of its own.

    Returns
    -------
    list of SharePlan
        Of users, and of items.

    Raises
    ------
    UsageError
        If there is no such device, or fewer than two processes.
    """
    if ranks < 2:
        raise UsageError(f"got {ranks} processes, expected 2 or more")
    return [_plan_share(model, dataset, Ranks(size=ranks, share=share), device, max_memory) for share in SHARES]


def _plan_share(model: Model, dataset: Dataset, ranks: Ranks, device: str, max_memory: int | None) -> SharePlan:
    place = resolve_device(device)
    size = (*dataset.train.shape, dataset.train.nnz)
    with supposed(ranks):
        try:
            check_can_share(model)
            users = min(model.users_per_update(size[0]), size[0]) if isinstance(model, Autoencoder) else size[0]
            if isinstance(model, Autoencoder):
                check_shares(users, size[1])
        except UsageError as error:
            nothing: dict[str, Any] = {"needs": None, "weights": 0, "moments": 0, "added_up": None}
            return SharePlan(share=ranks.share, ranks=ranks.size, **nothing, obstacle=str(error))
        held, in_memory = as_held(model, dataset.train, buffer_of(dataset.train))
        obstacle, needs = "", held.needs(*in_memory, on_gpu=place.type == "cuda")
        try:
            check_fits(model, dataset.train, place, max_memory)
        except MemoryLimitError as error:
            obstacle = str(error)
        sizes = _sizes(model, *size[:2])
    if isinstance(model, Autoencoder):
        sizes["added_up"] = _added_up_by(model, users, size[1], ranks)
    return SharePlan(share=ranks.share, ranks=ranks.size, needs=needs, **sizes, obstacle=obstacle)


def _sizes(model: Model, n_users: int, n_items: int) -> dict[str, Any]:
    """Return bytes of weights and moments, and of what is added up, where a model states that."""
    if isinstance(model, Autoencoder):
        weights, moments = model.bytes_of_weights(n_items)
        return {"weights": weights, "moments": moments}
    weights, added_up = model.bytes_shared(n_users, n_items) if isinstance(model, IALS) else (0, None)
    return {"weights": weights, "moments": 0, "added_up": added_up}


def _added_up_by(model: Autoencoder[Any], users: int, n_items: int, ranks: Ranks) -> int | None:
    """Return how many bytes an update adds up, from two trials; None where it sends rows."""
    few = _FEW * ranks.size
    first, second = (_added_up(model, users, n, ranks) for n in (few, 2 * few))
    if first is None or second is None:
        return None
    return round(first + (second - first) / few * (n_items - few))


class _Counting(Ranks):
    """One of several processes without the others: what it would send is counted, and not sent."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__(size=ranks.size, share=ranks.share)
        self.n_bytes = 0
        self.sends_rows = False

    def check(self, *, to_stop: bool = True, wish: bool = False, same: int = 0) -> bool:  # noqa: ARG002
        self.n_bytes += 3 * 8  # what is said, and what must be the same
        return wish

    def be_patient(self, patient: bool = True, *, to_stop: bool = True) -> None:  # noqa: ARG002
        self.check(to_stop=to_stop)

    def sum(self, *tensors: torch.Tensor) -> None:
        self.n_bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def highest(self, tensor: torch.Tensor) -> None:
        self.sum(tensor)

    def gather_rows(self, own: torch.Tensor) -> torch.Tensor:
        self.sends_rows = True
        return own

    def gather(self, own: Any) -> list[Any]:
        return [own] * self.size

    def check_alike(self, own: Mapping[str, Any], *_: Any, **__: Any) -> None:
        """Believe it."""

    @contextmanager
    def together(self) -> Iterator[None]:
        yield


class _Noted(NullMonitor):
    """What was sent from the first update of an epoch to the last."""

    def __init__(self, counting: _Counting) -> None:
        self.n_bytes, self.updates = 0, 0
        self._counting, self._before = counting, 0

    def start(self, epochs: int, done: list[EpochRecord]) -> None:  # noqa: ARG002
        """Leave out what was sent before the first one."""
        self._before = self._counting.n_bytes

    def advance(self, epochs_done: float, beta: float | None) -> None:  # noqa: ARG002  (every monitor's signature)
        """Note it."""
        self.n_bytes, self.updates = self._counting.n_bytes - self._before, self.updates + 1


def _added_up(model: Autoencoder[Any], users: int, n_items: int, ranks: Ranks) -> float | None:
    """Return how many bytes an update adds up, with so many items; None where it sends rows."""
    changes = {"anneal": "constant", "precision": "float32", "patience": 0, "averaging": 0.0}
    known = {name: value for name, value in changes.items() if hasattr(model, name)}
    copy = replace(model, **known, epochs=1, batch_size=users, parts={})
    columns = np.arange(users, dtype=np.int32) % n_items
    train = sp.csr_matrix((np.ones(users, np.float32), columns, np.arange(users + 1)), shape=(users, n_items))
    counting = _Counting(ranks)
    noted = _Noted(counting)
    with supposed(counting):
        copy.fit(train, device="cpu", monitor=noted)
    return None if counting.sends_rows else noted.n_bytes / noted.updates


def lightest(plans: list[SharePlan]) -> SharePlan | None:
    """Return the way to share that fits and adds up less, the first where that is not known; None if none fits."""
    return min((found for found in plans if found.fits), key=lambda found: found.added_up or 0, default=None)


def fewer_bytes(plans: list[SharePlan]) -> str:
    """Say which of the ways to share fits, and which adds up less."""
    less, fitting = lightest(plans), [found for found in plans if found.fits]
    if less is None or len(fitting) < 2:
        return f"only sharing {less.share} is possible" if less else "neither way is possible"
    if any(found.added_up is None for found in fitting):
        return "both fit"
    return f"both fit; sharing {less.share} sends less"
