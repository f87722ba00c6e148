"""How much memory is free, what a model needs, and refusing what does not fit before it starts."""

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING

from recvae.compute.ranks import current
from recvae.errors import MemoryLimitError, UsageError, is_out_of_memory

if TYPE_CHECKING:
    import torch

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_MOST = 2**63  # bytes, more than any machine has
_SURELY_MISTAKEN = 10_000  # bytes: a smaller number without a unit is a mistake
_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def available_bytes() -> int:
    """Return the number of free bytes, within the limit of a container (cgroup v2).

    Where several processes train together, it is one part for each of those on this machine.
    """
    free = [_total_bytes()]
    if _MEMINFO.exists():
        found = re.search(r"MemAvailable:\s+(\d+) kB", _MEMINFO.read_text(encoding="ascii"))
        free += [int(found[1]) * 1024] if found else []
    try:
        limit = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        reclaimable = re.search(r"^inactive_file (\d+)", (_CGROUP / "memory.stat").read_text(encoding="ascii"), re.M)
        free += [int(limit) - used + int(reclaimable[1] if reclaimable else 0)] if limit != "max" else []
    except (OSError, ValueError):
        pass  # no container, or no limit
    return max(0, min(free)) // current().local_size


def _total_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def parse_bytes(text: str) -> int:
    """Read an amount of memory, e.g. 8GB, 500 MiB or 1.5g, in bytes.

    Parameters
    ----------
    text : str
        A number and a unit: k, M, G, T are powers of 1000, Ki, Mi, Gi, Ti powers of 1024; a B may follow.

    Raises
    ------
    UsageError
        If it has another form, or is not above 0.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", text.lower())
    n_bytes = float(found[1]) * _UNITS.get(found[2], 0) if found else 0.0
    if not 1 <= n_bytes < _MOST:
        raise UsageError(f"got '{text}' for an amount of memory, expected a number and a unit, such as 8GB or 500MiB")
    return int(n_bytes)


def parse_limit(text: str, option: str = "--max-memory") -> int:
    """Read a memory limit in bytes; a small number without a unit is refused, because the unit was forgotten.

    Parameters
    ----------
    text : str
        See `parse_bytes`.
    option : str
        What it was given for.

    Raises
    ------
    UsageError
        If it is no amount of memory, or a small number without a unit.
    """
    n_bytes = parse_bytes(text)
    bare = text.strip()
    if n_bytes < _SURELY_MISTAKEN and bare.replace(".", "").isdigit():
        unit = "GB" if n_bytes < 1000 else "MB"
        raise UsageError(f"got {option} {bare}, which is {n_bytes:,} bytes; write {bare}{unit}")
    return n_bytes


def human_bytes(n_bytes: float) -> str:
    """Format a number of bytes for people, e.g. 1.6 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 999.95:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:,.1f} TB"


def enough_bytes(n_bytes: int) -> str:
    """Format a number of bytes for --max-memory, rounded up, e.g. 1.61GB."""
    power = min(4, max(0, int(math.log10(max(n_bytes, 1))) // 3))
    amount = math.ceil(100 * n_bytes / 1000**power) / 100
    return f"{amount:g}{('B', 'kB', 'MB', 'GB', 'TB')[power]}"


@dataclass(frozen=True, kw_only=True)
class Needs:
    """The memory that a model needs on data of one size, in bytes, excluding the program and the data set.

    The device is the GPU for a network that is trained or used on one, and the host for everything else.

    Parameters
    ----------
    parameters : int
        Number of learned parameters.
    training : int
        On the device, at the peak of training.
    held : int
        Of these, the part that is still allocated while validation users are scored.
    host : int
        On the host of a GPU, at the peak of training; 0 if the device is the host.
    weights : int
        On the device, for scoring any number of users.
    per_user : int
        On the device, for each user scored at the same time.
    """

    parameters: int
    training: int
    held: int
    host: int = 0
    weights: int
    per_user: int

    @property
    def scoring(self) -> int:
        """The least that scoring needs: the weights, and one user at a time."""
        return self.weights + self.per_user

    @property
    def reading(self) -> int:
        """The least that loading a bundle and scoring need: while loading, the weights are in memory twice."""
        return max(2 * self.weights, self.scoring)


def rows_within(limit: int | None, held: int, per_user: int, most: int) -> int:
    """Return how many users can be scored at a time, at least 1.

    Parameters
    ----------
    limit : int, optional
        Bytes allowed; None for no limit.
    held : int
        Bytes already in use.
    per_user : int
        Bytes for each user.
    most : int
        Maximum number of users.
    """
    return most if limit is None else max(1, min(most, (limit - held) // max(per_user, 1)))


def in_blocks(n_rows: int, rows: int, work: Callable[[int, int], None]) -> None:
    """Process consecutive blocks of rows; if memory runs out, continue with blocks of half the size.

    Parameters
    ----------
    n_rows : int
        Number of rows.
    rows : int
        Rows per block, >= 1.
    work : callable
        Called with the first row of a block and the row after its last; called again if memory ran out.
    """
    start = 0
    while start < n_rows:
        end = min(start + rows, n_rows)
        try:
            work(start, end)
        except Exception as error:
            if end - start == 1 or isinstance(error, MemoryLimitError) or not is_out_of_memory(error):
                raise
            rows = (end - start) // 2
        else:
            start = end
            continue
        import torch  # here, because what only reads limits needs no PyTorch

        torch.cuda.empty_cache()  # out here, where the error no longer keeps the block; no effect without a GPU


def free_on(device: "torch.device") -> int:
    """Return the number of free bytes on the host, or on a GPU."""
    if device.type != "cuda":
        return available_bytes()
    import torch

    return torch.cuda.mem_get_info(device)[0]


def check_amount(n_bytes: object, name: str, least: int = 0) -> None:
    """Refuse what is no number of bytes, before it is compared with one: that would look like a damaged file.

    Parameters
    ----------
    n_bytes : int or None
        What was given; None is allowed.
    name : str
        The argument.
    least : int
        The smallest that is allowed; where it is above 0, the number must be a whole one.

    Raises
    ------
    UsageError
        If it is no such number.
    """
    is_number = isinstance(n_bytes, Integral if least else Real) and not isinstance(n_bytes, bool)
    if n_bytes is not None and not (is_number and float(n_bytes) >= least):  # type: ignore[arg-type]
        raise UsageError(f"got {name}={n_bytes!r}, expected a number of bytes, {least} or more, such as 8_000_000_000")


def allowed_on(device: "torch.device", limit: int | None) -> int:
    """Return the number of bytes allowed on a device: the limit, or what is free; on a GPU the smaller of both."""
    if limit is None:
        return free_on(device)
    return limit if device.type == "cpu" else min(limit, free_on(device))


def check_memory(
    needed: int, limit: int | None, what: str, alternatives: str, device: "torch.device | None" = None
) -> None:
    """Refuse what needs more memory than is allowed or free.

    Parameters
    ----------
    needed : int
        Bytes.
    limit : int, optional
        Bytes allowed; None for all free memory.
    what, alternatives : str
        For the message: what needs the memory, and what to do instead.
    device : torch.device, optional
        By default the host.

    Raises
    ------
    MemoryLimitError
        With both numbers and the alternatives.
    """
    is_host = device is None or device.type == "cpu"
    allowed = (available_bytes() if limit is None else limit) if device is None else allowed_on(device, limit)
    if needed > allowed:
        place = "this machine" if is_host else str(device)
        whose = "is allowed by --max-memory" if allowed == limit else f"{place} has free"
        raise MemoryLimitError(
            f"{what} needs {human_bytes(needed)} of memory, {human_bytes(allowed)} {whose}; {alternatives}"
        )
