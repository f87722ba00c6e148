"""How much memory there is, and refusing what does not fit before it is begun."""

import os
import re
from pathlib import Path

from recvae.errors import MemoryLimitError, UsageError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_MOST = 2**63  # bytes, beyond any machine
_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def available_bytes() -> int:
    """Return how many bytes a computation may take here: what is free, within the limit of a container (cgroup v2)."""
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
        pass  # no container, or one that does not say
    return max(0, min(free))


def _total_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def parse_bytes(text: str) -> int:
    """Read a number of bytes such as 8GB, 500 MiB or 1.5g.

    Parameters
    ----------
    text : str
        A number and a unit: k, M, G, T for thousands, Ki, Mi, Gi, Ti for powers of 1024; a B after it does not matter.

    Raises
    ------
    UsageError
        If it is not of that form, or not above 0.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", text.lower())
    n_bytes = float(found[1]) * _UNITS.get(found[2], 0) if found else 0.0
    if not 1 <= n_bytes < _MOST:
        raise UsageError(f"got '{text}' for an amount of memory, expected a number and a unit, such as 8GB or 500MiB")
    return int(n_bytes)


def human_bytes(n_bytes: float) -> str:
    """Write a number of bytes for people, such as 1.6 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 999.95:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:,.1f} TB"


def check_memory(needed: int, limit: int | None, what: str, alternatives: str) -> None:
    """Refuse what needs more memory than there may be.

    Parameters
    ----------
    needed : int
        Bytes.
    limit : int, optional
        Bytes allowed; None for what the machine has free.
    what, alternatives : str
        For the message: what needs them, and what to do instead.

    Raises
    ------
    MemoryLimitError
        With both figures and the alternatives.
    """
    allowed = available_bytes() if limit is None else limit
    if needed > allowed:
        whose = "this machine has free" if limit is None else "is allowed by --max-memory"
        raise MemoryLimitError(
            f"{what} needs {human_bytes(needed)} of memory, {human_bytes(allowed)} {whose}; {alternatives}"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out; PyTorch says so in words."""
    words = ("can't allocate memory", "out of memory")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(w in str(error) for w in words))
