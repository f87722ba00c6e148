"""Several processes that train one model, as torchrun starts them: who this one is, and what all of them agree on.

All of them run the same code on the same data. They meet in collectives of PyTorch (gloo, and NCCL between GPUs), and
each meeting begins with `check`: one small sum that says whether all are well. A process that fails, or is asked to
stop, says so there, so that all end at the same place, and nobody waits for who has gone. Nothing is pickled.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from recvae.compute.rank_errors import error_of, first_line, report_of
from recvae.compute.restarts import Restarts
from recvae.errors import RecvaeError, TrainingError, UsageError

if TYPE_CHECKING:
    import torch

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_LARGE = 1 << 16  # numbers
_LONG = timedelta(days=7)
_WELL, _WISH, _STOPPED, _FAILED = 0, 1, 2, 3  # what a process says at a check; the highest counts

USERS, ITEMS = "users", "items"
SHARES = (USERS, ITEMS)
"""What processes may have a part of each: the users of every batch, or the items of the network."""


class Ranks:
    """One of the processes that train together; by default the only one.

    Parameters
    ----------
    rank, size : int
        Which one it is, from 0, and how many there are.
    local_rank, local_size : int
        The same on its machine.
    share : str
        One of `SHARES`.
    """

    def __init__(
        self, rank: int = 0, size: int = 1, local_rank: int = 0, local_size: int = 1, share: str = USERS
    ) -> None:
        self.rank, self.size = rank, size
        self.local_rank, self.local_size, self.share = local_rank, local_size, share
        self.interrupted = False
        """Whether a signal has asked it to end; all hear of it at the next check."""
        self.agreed: BaseException | None = None
        """What all have ended with, if they have."""
        self.lost = False
        """Whether the others cannot be reached any more."""
        self.patient: Any = None
        """The process group in which processes wait for one another however long that takes, while they do."""
        self._long: Any = None  # the same, once it was made
        self.trained = False
        """Whether all is trained, so that the first one needs the others no longer."""
        self.restarts = Restarts()

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.size > 1

    @property
    def leads(self) -> bool:
        """Whether it is the one that prints and writes."""
        return self.rank == 0

    @property
    def by_users(self) -> bool:
        """Whether there are others, each with a part of the users of a batch."""
        return self.several and self.share == USERS

    def typed(self, command: str) -> str:
        """Return a `recvae train` command as it is typed; where items are shared, for as many processes."""
        return f"torchrun --nproc-per-node {self.size} -m {command} --share {ITEMS}" if self.by_items else command

    @property
    def by_items(self) -> bool:
        """Whether there are others, each with a part of the items of the network, and all users."""
        return self.several and self.share == ITEMS

    def part_of(self, n: int, rank: int | None = None) -> tuple[int, int]:
        """Return the first of n consecutive things that are its own, or of another rank, and the one after the last."""
        rank = self.rank if rank is None else rank
        return rank * n // self.size, (rank + 1) * n // self.size

    def check(self, *, to_stop: bool = True, wish: bool = False, same: int = 0) -> bool:
        """Wait for all, and end with them where one has failed or was interrupted.

        Parameters
        ----------
        to_stop : bool
            Whether an interruption counts: once all is trained, it comes too late.
        wish : bool
            Whether this process would like to end.
        same : int
            What must be the same in all, such as how many numbers will be added up next.

        Returns
        -------
        bool
            Whether one of them would like to end.

        Raises
        ------
        KeyboardInterrupt
            If one was interrupted.
        RecvaeError, MemoryError
            If one has failed: what it has failed with.
        TrainingError
            If what must be the same is not.
        """
        if not self.several:
            return wish
        return self._meet(_STOPPED if self.interrupted and to_stop else _WISH if wish else _WELL, None, same)

    def be_patient(self, patient: bool = True, *, to_stop: bool = True) -> None:
        """Meet; then wait for those that read or write much, or no longer than for one that hangs."""
        if self.several:
            import torch

            self.check(to_stop=to_stop)
            if patient and self._long is None:
                with self._lost():
                    self._long = torch.distributed.new_group(timeout=_LONG, backend="gloo")
            self.patient = self._long if patient else None

    def end(self) -> None:
        """Meet after training; the next meeting, when the first process has written all, may be long after it."""
        self.be_patient(to_stop=False)
        self.trained = True

    def finish(self) -> None:
        """Meet for the last time; once all was trained, the first one needs the others no longer."""
        try:
            self.check(to_stop=False)
        except TrainingError:
            if not (self.lost and self.leads and self.trained):
                raise

    @contextmanager
    def together(self) -> Iterator[None]:
        """Tell the others of an error that leaves the block; they hear of it at their next check."""
        try:
            yield
        except BaseException as error:
            if self.several and not self.lost and error is not self.agreed:
                self._meet(_STOPPED if isinstance(error, KeyboardInterrupt) else _FAILED, error)
                self.agreed = error
            raise

    def _meet(self, said: int, error: BaseException | None, same: int = 0) -> bool:
        import torch

        with self._lost():
            found = torch.tensor([said, same, -same])
            torch.distributed.all_reduce(found, op=torch.distributed.ReduceOp.MAX, group=self.patient)
        highest, most, least = found.tolist()
        if highest == _STOPPED:
            self.interrupted = False
            self.agreed = error or KeyboardInterrupt()
            raise self.agreed
        if highest == _FAILED:
            reports = self.gather(None if error is None else report_of(error))
            first = next(rank for rank, report in enumerate(reports) if report is not None)
            if first != self.rank:
                self.agreed = error_of(reports, first)
                raise self.agreed from error
        elif most != -least:
            self.agreed = TrainingError(
                f"the {self.size} processes have from {-least:,} to {most:,} numbers to add up, expected as many in "
                "each; a loss may not depend on which process computes it"
            )
            raise self.agreed
        return highest == _WISH

    @contextmanager
    def _lost(self) -> Iterator[None]:
        """Make one sentence of what PyTorch says where another process is gone."""
        try:
            yield
        except RuntimeError as error:
            self.lost = True
            self.agreed = TrainingError(
                f"lost contact with another of the {self.size} processes ({first_line(error)}); `recvae train "
                "--resume` continues from the last whole epoch, with any number of processes; where there is none, "
                "train again"
            )
            raise self.agreed from error

    def sum(self, *tensors: "torch.Tensor") -> None:
        """Put the sum over all processes into each tensor, which must be contiguous; check first."""
        if not self.several:
            return
        import torch

        with self._lost():  # nothing large is made here: memory that runs out would leave the others waiting
            waits = [torch.distributed.all_reduce(tensor, async_op=True) for tensor in tensors]
            for wait in waits:
                if wait is not None:
                    wait.wait()

    def highest(self, tensor: "torch.Tensor") -> None:
        """Put the highest over all processes in the place of each number; check first."""
        if not self.several:
            return
        import torch

        with self._lost():
            torch.distributed.all_reduce(tensor, op=torch.distributed.ReduceOp.MAX)

    def hand(self, tensor: "torch.Tensor", source: int, target: int) -> None:
        """Copy a tensor of the CPU from one process into that of another; nothing in all others. Check first."""
        import torch

        with self._lost():
            if source != target and self.rank == source:
                torch.distributed.send(tensor, target)
            if source != target and self.rank == target:
                torch.distributed.recv(tensor, source)

    def gather_rows(self, own: "torch.Tensor") -> "torch.Tensor":
        """Return the rows of all, those of the first process first; the columns are the same everywhere."""
        if not self.several:
            return own
        import torch

        with self._lost():
            counts = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
            torch.distributed.all_gather(counts, torch.tensor([len(own)]))
        padded = own.new_zeros((max(int(count) for count in counts), *own.shape[1:]))
        padded[: len(own)] = own
        found = [torch.empty_like(padded) for _ in range(self.size)]
        if padded.numel() > _LARGE:  # memory may have run out for it
            self.check()
        with self._lost():
            torch.distributed.all_gather(found, padded)
        return torch.cat([rows[: int(count)] for rows, count in zip(found, counts, strict=True)])

    def gather(self, own: Any) -> list[Any]:
        """Return what each process has, by rank; it must be what JSON can hold."""
        if not self.several:
            return [own]
        text = json.dumps(own).encode()
        lengths = self.gather_rows(_tensor([len(text)])).tolist()
        together = bytes(self.gather_rows(_tensor(list(text), "uint8")).tolist())
        ends = [sum(lengths[: rank + 1]) for rank in range(self.size)]
        return [json.loads(together[end - n : end]) for end, n in zip(ends, lengths, strict=True)]

    def from_first(self, own: Any) -> Any:
        """Return what the first process has, in all of them; it must be what JSON can hold."""
        return self.gather(own if self.leads else None)[0]

    def tensors_from_first(self, own: "Mapping[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
        """Return the tensors of the first process by name, on the CPU, in all of them."""
        if not self.several:
            return dict(own)
        import torch

        shapes = {name: [str(value.dtype).removeprefix("torch."), list(value.shape)] for name, value in own.items()}
        found = {}
        for name, (dtype, shape) in self.from_first(shapes).items():
            empty = torch.empty(shape if not self.leads else 0, dtype=getattr(torch, dtype))
            found[name] = own[name].detach().cpu().contiguous() if self.leads else empty
        self.check()  # memory may have run out for them
        for tensor in found.values():
            with self._lost():
                torch.distributed.broadcast(tensor, src=0)
        return found

    def check_alike(self, own: Mapping[str, Any], what: str, advice: str, kind: type[RecvaeError] = UsageError) -> None:
        """Refuse to go on where the processes differ in something.

        Parameters
        ----------
        own : mapping of str to what JSON can hold
            By what it is called in the message.
        what, advice : str
            For the message: of what, and what to do.
        kind : type
            Of the error.

        Raises
        ------
        RecvaeError
            With the first thing in which two of them differ.
        """
        reports = self.gather(dict(own))
        for name in reports[0]:
            of_all = [report.get(name) for report in reports]
            other = next((rank for rank, found in enumerate(of_all) if found != of_all[0]), 0)
            if other:
                self.agreed = kind(
                    f"got {name} {of_all[other]} in process {other} and {of_all[0]} in process 0, expected the same "
                    f"{what} in all {self.size} processes; {advice}"
                )
                raise self.agreed


ALONE = Ranks()
_CURRENT: ContextVar[Ranks] = ContextVar("ranks", default=ALONE)


def current() -> Ranks:
    """Return which process this one is of those that train together; `ALONE` outside of `joined`."""
    return _CURRENT.get()


@contextmanager
def supposed(ranks: Ranks) -> Iterator[None]:
    """Have memory counted as if this were one of several processes, which do not meet."""
    token = _CURRENT.set(ranks)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def of_environment() -> Ranks:
    """Return which process this one is, as torchrun says in the environment.

    Raises
    ------
    UsageError
        If a part of it is missing or is no number.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1" or "RANK" not in os.environ:
        return Ranks()
    missing = [name for name in _TORCHRUN if name not in os.environ]
    numbers = [os.environ.get(name, "0") for name in (*_TORCHRUN[:4], "MASTER_PORT")]
    if missing or not all(number.isdigit() for number in numbers):
        found = ", ".join(f"{name}={os.environ.get(name, '')}" for name in _TORCHRUN)
        raise UsageError(
            f"got {found} in the environment, expected whole numbers and an address in all of them; start several "
            "processes with torchrun"
        )
    rank, size, local_rank, local_size, _ = map(int, numbers)
    return Ranks(rank, size, local_rank, local_size)


def _tensor(values: list[int], dtype: str = "int64") -> "torch.Tensor":
    import torch

    return torch.tensor(values, dtype=getattr(torch, dtype))
