"""The process group of PyTorch in which several processes train: opened and closed; and what signals do in it."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch

from recvae.compute.rank_errors import first_line
from recvae.compute.ranks import _CURRENT, SHARES, Ranks, of_environment
from recvae.compute.restarts import Restarts, end_of, meet, rounds_before
from recvae.errors import UsageError
from recvae.version import __version__

_WAITING = timedelta(minutes=20)  # for one that writes or reads a large file; one that has died is noticed at once


@contextmanager
def joined(ranks: Ranks | None = None, *, share: str | None = None) -> Iterator[Ranks]:
    """Be one of the processes that torchrun has started, within the block; alone, nothing is done.

    An error that leaves the block of one process leaves those of all, and none leaves it before all have come to its
    end. SIGINT and SIGTERM end the block of all by `KeyboardInterrupt`, at the next place where they meet.

    Parameters
    ----------
    ranks : Ranks, optional
        Which one it is; by default what the environment says.
    share : str, optional
        What each has a part of: "users" of every batch, or "items" of a network that is too large for one of them. By
        default what `ranks` says, which is users.

    Raises
    ------
    UsageError
        If the others cannot be reached, or have another version, or there is no such thing to share.
    """
    if share is not None and share not in SHARES:
        raise UsageError(f"got share={share!r}, expected one of {', '.join(SHARES)}")
    ranks = ranks or of_environment()
    ranks.share = share or ranks.share
    if not ranks.several:
        yield ranks
        return
    with _group(ranks) as store, _signals(ranks):
        token = _CURRENT.set(ranks)
        try:
            with ranks.together():
                ranks.check()
                versions = {"recvae": __version__, "torch": str(torch.__version__)}
                ranks.check_alike(versions, "version", "install the same on all machines")
                ranks.restarts = _restarts(ranks, store)
                yield ranks
                ranks.finish()
        finally:
            _CURRENT.reset(token)


@contextmanager
def _group(ranks: Ranks) -> Iterator[Any]:
    # Imported while there is a group, as optimisers do, these functions keep it as the default of their arguments: it
    # would not be destroyed, and its threads would sometimes abort the process when it has already ended well.
    import torch.distributed.nn.functional
    from torch.distributed.distributed_c10d import PrefixStore  # not in every build of PyTorch
    from torch.distributed.rendezvous import rendezvous

    has_gpus = torch.cuda.is_available() and torch.distributed.is_nccl_available()
    backend = "cpu:gloo,cuda:nccl" if has_gpus else "gloo"
    try:
        store, rank, size = next(rendezvous("env://", timeout=_WAITING))
        place = PrefixStore(meet(store, rank, size, _WAITING), store)
        torch.distributed.init_process_group(backend, store=place, rank=rank, world_size=size, timeout=_WAITING)
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"process {ranks.rank} of {ranks.size} cannot meet the others ({first_line(error)}); choose another "
            "--master-port, or let torchrun choose one (--standalone), and see that the machines reach one another"
        ) from error
    try:
        yield store
    finally:
        torch.distributed.destroy_process_group()


def _restarts(ranks: Ranks, store: Any) -> Restarts:
    """Return what is known of processes that were started before these, the same in all of them."""
    counted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    before = ranks.gather(counted or (rounds_before(store) > 0 if ranks.leads else False))
    return Restarts(before=any(before), end=ranks.from_first(end_of(store) if ranks.leads else None), store=store)


@contextmanager
def _signals(ranks: Ranks) -> Iterator[None]:
    """Note SIGINT and SIGTERM, which torchrun sends to all, but not at the same moment."""

    def note(number: int, frame: Any) -> None:  # noqa: ARG001  (a signal handler's signature)
        ranks.interrupted = True

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
