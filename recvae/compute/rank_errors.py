"""Errors that one of several processes tells the others of."""

import socket
from collections.abc import Iterator, Mapping, Sequence

from recvae.errors import RecvaeError, TrainingError, is_out_of_memory

_MOST_WORDS = 10_000  # characters of an error that the others are told


def first_line(error: BaseException) -> str:
    """Return the first line of what PyTorch says, without its advice, or the kind of the error if it says nothing."""
    line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__).strip()
    return line.split(". This is typically caused by ")[0]  # which also asks to look before reporting an error


def report_of(error: BaseException) -> dict[str, str]:
    """Return what the others are told of an error."""
    kind = "MemoryError" if is_out_of_memory(error) else ""
    kind = type(error).__name__ if isinstance(error, RecvaeError) else kind
    text = str(error) if kind else f"{type(error).__name__}: {error}"
    return {"kind": kind, "text": text[:_MOST_WORDS], "host": socket.gethostname()}


def error_of(reports: Sequence[Mapping[str, str] | None], first: int) -> Exception:
    """Return the error of the first process that has failed, as the others raise it."""
    report = reports[first]
    assert report is not None
    text, everywhere = report["text"], all(other is not None and other["text"] == report["text"] for other in reports)
    if first and not everywhere:
        text += f" (in process {first} of {len(reports)}, on {report['host']})"
    if report["kind"] == "MemoryError":
        return MemoryError(text)
    known = {kind.__name__: kind for kind in _below(RecvaeError)}.get(report["kind"])
    if known is not None:
        return known(text)
    return TrainingError(f"a process of {len(reports)} has failed with {text}")


def _below(kind: type[RecvaeError]) -> Iterator[type[RecvaeError]]:
    """Yield a class of errors and all that derive from it."""
    yield kind
    for other in kind.__subclasses__():
        yield from _below(other)
