"""How everything that takes long reports its progress."""

from collections.abc import Callable

Progress = Callable[[float, float | None, str], None]
"""Called with how much is done, of how much (None where that is not known), and a note; `ProgressBar` is one."""

_WHOLE = 100.0


def part_of(progress: Progress | None, start: float, end: float, note: str) -> Progress | None:
    """Return what reports one step of a longer work as a part of the whole.

    Parameters
    ----------
    progress : Progress, optional
        Called with the progress of the whole, in per cent; without it, nothing is reported.
    start, end : float
        Shares of the whole that are done before the step and after it, from 0 to 1.
    note : str
        What the step does.

    Returns
    -------
    callable or None
        For the step. Nobody knows how far it is where its total is None, so the whole stays at `start`.
    """
    if progress is None:
        return None

    def tell(done: float, total: float | None, _: str = "") -> None:
        share = min(done / total, 1.0) if total else 0.0
        progress(_WHOLE * (start + share * (end - start)), _WHOLE, note)

    return tell
