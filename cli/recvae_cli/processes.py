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
_INTERRUPTED = 130  # exit code after Ctrl-C


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

        with joined(ranks):
            yield


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

    if current().several and current().leads:
        from recvae.runs.sharing import description

        check_can_share(type(run.model))
        current().check()
        current().from_first(description(run, dataset))


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
    dataset = wanted.load(told["data"], told["stream"])
    return described(told, models, select_by), dataset
