"""Where processes that torchrun has started meet, and what they know of those that it had started before them.

torchrun starts all processes again where one was lost (`--max-restarts`), and keeps a store for them meanwhile. Each
machine counts its own restarts, so that their counts may differ, and the store still has what earlier processes put
there: addresses that no longer listen. So those that are there find one another by a name that each draws for itself.
"""

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

_PAUSE, _MOST = 0.01, 0.25  # seconds until a process looks again, each time longer: many ask one store
_ROUNDS, _END = "recvae rounds", "recvae end"


@dataclass
class Restarts:
    """What a process knows of those that torchrun had started before it, in the same call.

    Parameters
    ----------
    before : bool
        Whether there were any.
    end : int, optional
        The exit code of those that came to an end by themselves, so that there is nothing to try again.
    store : Store, optional
        What torchrun keeps.
    """

    before: bool = False
    end: int | None = None
    store: Any = None

    def note_end(self, code: int) -> None:
        """Note that this call has come to its end, in case that torchrun starts processes again all the same."""
        if self.store is not None:
            self.store.set(_END, str(code))


def rounds_before(store: Any) -> int:
    """Count this round of processes, which one of them does, and return how many there were before it."""
    return store.add(_ROUNDS, 1) - 1


def end_of(store: Any) -> int | None:
    """Return the exit code that earlier processes have noted."""
    return int(store.get(_END)) if store.check([_END]) else None


def meet(store: Any, rank: int, size: int, waiting: timedelta) -> str:
    """Wait for the other processes of this round, and return a name that is theirs alone.

    The first one writes down which processes it sees, one of each rank. Each that finds itself there agrees to it. A
    process that was lost agrees to nothing, so that what all have agreed to are processes that are there.

    Parameters
    ----------
    store : Store
        Which all can reach.
    rank, size : int
        Which process this one is, and how many there are.
    waiting : timedelta
        How long to wait for them.

    Raises
    ------
    RuntimeError
        If they have not come by then.
    """
    own, last, agreed = uuid4().hex, time.monotonic() + waiting.total_seconds(), []
    pause, here = _PAUSE, [f"recvae process {other}" for other in range(size)]
    store.set(here[rank], own)
    while True:
        if rank == 0 and store.check(here):
            store.set("recvae all", " ".join(store.get(name).decode() for name in here))
        seen = store.get("recvae all").decode() if store.check(["recvae all"]) else ""
        if seen not in agreed and len(names := seen.split()) == size and names[rank] == own:
            store.set(f"{seen} {rank}", "")
            agreed.append(seen)
        for name in agreed:
            if store.check([f"{name} {other}" for other in range(size)]):
                return name
        if time.monotonic() > last:
            raise RuntimeError(f"{size} processes were to come within {waiting}, and some have not")
        time.sleep(pause)
        pause = min(1.5 * pause, _MOST)
