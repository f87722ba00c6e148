"""The exceptions of `recvae`, in one tree.

    RecvaeError
    ├── UsageError       the call is wrong: an unknown name, a value out of range, a missing path (exit code 2)
    ├── DataError        the data is wrong: a bad line, an empty log, a damaged data set (exit code 1)
    ├── BundleError      a bundle or checkpoint is damaged, unfinished or foreign (exit code 1)
    ├── NotFittedError   a model was asked for scores before it was fitted (exit code 1)
    ├── TrainingError    training cannot continue: the loss is no longer a number (exit code 1)
    │   └── OutOfMemoryError    memory ran out during training (exit code 1)
    ├── ExportError      an exported model does not give the scores of the original model (exit code 1)
    ├── DownloadError    no network, or the downloaded file is not the expected one (exit code 1)
    ├── MemoryLimitError a model would need more memory than is free or allowed (exit code 1)
    ├── EngineError      another engine, such as Spark, could not do its part: its session is lost (exit code 1)
    └── StorageError     a file could not be written: the disk is full, a folder is read-only (exit code 1)

Every message says what was found, what was expected, and what to do.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class RecvaeError(Exception):
    """Base of all errors of this package; `exit_code` is the exit code of the command."""

    exit_code = 1


class UsageError(RecvaeError, ValueError):
    """Raised when a call is wrong for any data: name, type, range or path."""

    exit_code = 2


class DataError(RecvaeError, ValueError):
    """Raised when the content of a log, a split or a stored data set cannot be used."""


class BundleError(RecvaeError):
    """Raised when a bundle or a checkpoint is damaged, unfinished, too new, or of another kind."""


class NotFittedError(RecvaeError):
    """Raised when a model is asked to score, recommend or be saved before `fit`."""


class TrainingError(RecvaeError):
    """Raised when training diverged and cannot continue."""


class OutOfMemoryError(TrainingError):
    """Raised when memory ran out during training; it can be resumed with more memory or smaller batches."""


class ExportError(RecvaeError):
    """Raised when an exported model does not give the scores of the original model; nothing is written."""


class DownloadError(RecvaeError):
    """Raised when a known data set cannot be downloaded, or is not the published one."""


class MemoryLimitError(RecvaeError, MemoryError):
    """Raised before training or loading when a model would need more memory than is free or allowed."""


class StorageError(RecvaeError):
    """Raised when a file cannot be written; an existing file is untouched."""


class EngineError(RecvaeError):
    """Raised when another engine, such as Spark, could not do its part; nothing is written."""


@contextmanager
def requires_extra(extra: str, what: str) -> Iterator[None]:
    """Import optional libraries; where one is missing, say how to install it.

    Parameters
    ----------
    extra : str
        The extra of this package that installs them, e.g. "onnx".
    what : str
        What needs them, as the message begins.

    Raises
    ------
    UsageError
        If an import in the block fails, with the command that installs the extra.
    """
    with requires_package(f"'recvae[{extra}]'", what):
        yield


@contextmanager
def requires_package(package: str, what: str) -> Iterator[None]:
    """Import libraries; where one is missing, say how to install it.

    Parameters
    ----------
    package : str
        What pip is given to install them.
    what : str
        What needs them, as the message begins.

    Raises
    ------
    UsageError
        If an import in the block fails, with the command that installs the package.
    """
    try:
        yield
    except ImportError as error:
        if (error.name or "").split(".")[0] in ("recvae", "recvae_cli"):
            raise  # a bug of this package, which no installation would fix
        raise UsageError(
            f"{what} needs a library that cannot be imported ({error}); install it with: pip install {package}"
        ) from error


def did_you_mean(name: str, known: Iterable[str], pattern: str = "{}") -> str:
    """Return what a message asks where a name is close to one that is known, such as "; did you mean ease?".

    Parameters
    ----------
    name : str
        What was given; upper and lower case are one.
    known : iterable of str
        What there is.
    pattern : str
        How the known name is written, e.g. "--{}".

    Returns
    -------
    str
        To be put behind what is wrong; empty where nothing is close.
    """
    by_lower = {other.lower(): other for other in known}
    close = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.7)
    return f"; did you mean {pattern.format(by_lower[close[0]])}?" if close else ""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out; PyTorch has no class for it."""
    words = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(w in str(error) for w in words))
