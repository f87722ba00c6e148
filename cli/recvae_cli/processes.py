"""A verb that torchrun has started in several processes: they act as one, and the first one speaks."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recvae.compute.ranks import Ranks
    from recvae.datasets.dataset import Dataset
    from recvae.metrics import Metric
    from recvae.models import Model
    from recvae.runs.run import Run
    from recvae_cli.streaming import Wanted

_ABLE = ("train",)
_LEAST_FILE = 1_000_000  # bytes: a smaller one is a unit forgotten
_INTERRUPTED = 130  # exit code after Ctrl-C


@contextmanager
def one_voice() -> Iterator[None]:
    """Print nothing in all but one process of a machine: what was typed is the same in all, and so is what is wrong."""
    is_alone = os.environ.get("WORLD_SIZE", "1") == "1" or "RANK" not in os.environ  # as the library decides it
    if is_alone or os.environ.get("LOCAL_RANK", "0") == "0":
        yield
        return
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


@contextmanager
def one_of_several(verb: str) -> Iterator[None]:
    """Run a verb as one of the processes that torchrun has started; alone, nothing is done."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield
        return
    from recvae.compute.ranks import of_environment
    from recvae.errors import UsageError

    ranks = of_environment()
    if not ranks.several:
        yield
        return
    with _silent_after_the_first(ranks):
        if verb not in _ABLE:
            ranks.agreed = UsageError(
                f"got {ranks.size} processes for `recvae {verb}`, expected one: only `recvae {_ABLE[0]}` shares its "
                "work; start it without torchrun"
            )
            raise ranks.agreed
        from recvae.compute.process_group import joined

        with joined(ranks), _tried_once(ranks):
            ranks.be_patient()  # until all have read their data
            yield


@contextmanager
def _tried_once(ranks: "Ranks") -> Iterator[None]:
    """End as the processes before a restart did where that was no accident: finished, or refused."""
    from recvae.errors import BundleError, DataError, UsageError
    from recvae_cli.console import say

    if ranks.restarts.end is not None:
        how = "what was asked for is refused, and" if ranks.restarts.end else "the run was saved before, so"
        say(f"started again by torchrun: {how} there is nothing to try again")
        ranks.agreed = SystemExit(ranks.restarts.end)
        raise ranks.agreed
    try:
        yield
    except (UsageError, DataError, BundleError) as error:
        if ranks.leads:
            ranks.restarts.note_end(error.exit_code)
        raise


@contextmanager
def _silent_after_the_first(ranks: "Ranks") -> Iterator[None]:
    """Print nothing in the other processes, and end them with the exit code of the first; what all know, it says."""
    from recvae.errors import RecvaeError

    if ranks.leads:
        yield
        return
    try:
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            yield
    except (RecvaeError, KeyboardInterrupt, MemoryError) as error:
        if ranks.agreed is None:
            raise  # before they have met
        code = _INTERRUPTED if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_code", 1)
        raise SystemExit(code) from None


def is_first() -> bool:
    """Whether this process prints and writes."""
    from recvae.compute.ranks import current

    return current().leads


def share_by(share: str, shard_size: str | None, tracked: str | None) -> int | None:
    """Have all processes share users or items, as --share says, and end alike; return the bytes of --shard-size."""
    from recvae.compute.ranks import ITEMS, SHARES, current
    from recvae.errors import UsageError

    if share not in SHARES:
        raise UsageError(f"got --share {share}, expected one of {', '.join(SHARES)}")
    if share == ITEMS and not current().several:
        raise UsageError(
            "got --share items with one process, which has nobody to share with; start several (torchrun "
            "--nproc-per-node 4 -m recvae train --share items ...), or leave --share out"
        )
    if current().several:
        current().share = share
    take_sigterm_as_ctrl_c()
    file_bytes = _file_size(shard_size)
    check_followed(file_bytes, tracked is not None)
    return file_bytes


def _file_size(shard_size: str | None) -> int | None:
    """Return the bytes of --shard-size, None where the weights go into one file."""
    from recvae.compute.memory import parse_bytes
    from recvae.errors import UsageError

    if shard_size is None:
        return None
    n_bytes = parse_bytes(shard_size)
    if n_bytes < _LEAST_FILE:
        raise UsageError(
            f"got --shard-size {shard_size}, which is {n_bytes:,} bytes, expected 1MB or more, such as 5GB"
        )
    return n_bytes


def check_followed(file_bytes: int | None, is_followed: bool) -> None:
    """Refuse to show a model in TensorBoard or MLflow, now or as before a run was resumed, that no process will have.

    Parameters
    ----------
    file_bytes : int or None
        The most that a file of the weights holds; None for one file.
    is_followed : bool
        Whether the run is followed there.
    """
    from recvae.compute.ranks import current
    from recvae.errors import UsageError

    if current().by_items and file_bytes is not None and is_followed:
        raise UsageError(
            "got --tensorboard or --mlflow with --share items and --shard-size, where no process has the whole model; "
            "leave --shard-size out, or one of the others where the run was begun with it"
        )


def take_sigterm_as_ctrl_c() -> None:
    """Treat a scheduler's SIGTERM as Ctrl-C: keep the best so far. Several processes have agreed on that already."""
    from recvae.compute.ranks import current

    if not current().several:
        signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: Any) -> None:  # noqa: ARG001  (a signal handler's signature)
    raise KeyboardInterrupt


def tell_run(run: "Run", dataset: "Dataset") -> None:
    """Tell the other processes what to train, if there are any."""
    from recvae.compute.ranks import current
    from recvae.models.common.sharing import check_can_share

    check_followed(run.file_bytes, bool(run.tracking))
    if current().several and current().leads:
        from recvae.runs.sharing import description

        check_can_share(run.model)
        current().check()
        current().from_first(description(run, dataset))
        current().be_patient(False)


def train_along(run: "Run", dataset: "Dataset", device: str, max_memory: int | None) -> None:
    """Train what the first process trains, and write nothing."""
    from recvae.runs import sharing

    sharing.train_along(run, dataset, device=device, max_memory=max_memory)


def hear_run(models: "Sequence[type[Model]]", select_by: "Metric | None", wanted: "Wanted") -> "tuple[Run, Dataset]":
    """Return what the first process tells this one to train, and the data, which lie here by the same name."""
    from recvae.compute.ranks import current
    from recvae.runs.sharing import described

    current().check()
    told = current().from_first(None)
    dataset, run = wanted.load(told["data"], told["stream"]), described(told, models, select_by)
    current().be_patient(False)
    return run, dataset
