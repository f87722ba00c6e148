"""A study's folder: `study.db` (Optuna's tables in SQLite), `study.lock`, and `best/`, the best bundle so far.

The database says what is searched, and is only continued by a search for the same on the same data.
"""

import shutil
import sqlite3
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recvae.errors import BundleError, StorageError, UsageError, requires_extra
from recvae.metrics import Metric
from recvae.storage.files import locked, storage_errors, write_file
from recvae.training.validation import OBJECTIVE
from recvae.tuning.search import Search
from recvae.tuning.study import ID, Study, counted

if TYPE_CHECKING:
    import optuna
    from optuna.storages import RDBStorage

DATABASE = "study.db"
BEST = "best"
FORMAT_VERSION = 1
_LOCK = "study.lock"
_NAME = "recvae"  # of the one study in a database
_IDENTITY = "recvae"


def check_optuna() -> None:
    """Refuse to tune without Optuna.

    Raises
    ------
    UsageError
        If it is not installed, with the command that installs it.
    """
    with requires_extra("tune", "tuning"):
        import optuna.storages  # noqa: F401


@contextmanager
def open_study(
    folder: Path,
    search: Search,
    fingerprint: str,
    *,
    fresh: bool = False,
    select_by: Metric = OBJECTIVE,
    order: Mapping[str, Any] | None = None,
) -> Iterator[Study]:
    """Open the study of a folder, or begin one, and lock it for this process.

    Parameters
    ----------
    folder : Path
        Where the study is kept; made if missing.
    search : Search
        What is searched.
    fingerprint : str
        Of the data; a study is never continued on other data.
    fresh : bool
        Whether to forget an older study.
    select_by : Metric
        What is searched for; a study by another metric is another study.
    order : mapping, optional
        What the order of streamed users depends on, see `recvae.models.common.streaming.order_of`: in another order,
        trials of the same settings reach other values.

    Yields
    ------
    Study
        Closed after the block.

    Raises
    ------
    UsageError
        If Optuna is missing, another process has the study, or its trials were made with other data or settings.
    BundleError
        If the existing database is damaged, or no study.
    StorageError
        If it cannot be written.
    """
    check_optuna()
    path = folder / DATABASE
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    refusal = f"{folder} is being tuned by another process; wait until it is done, or stop it"
    with locked(folder / _LOCK, refusal), _quiet():
        identity = {"model": search.model_class.name, "data": fingerprint[:12], **search.describe(), **(order or {})}
        if select_by != OBJECTIVE:  # which studies of earlier versions do not say
            identity["select_by"] = select_by.path
        if fresh or not path.exists() or _is_empty_and_other(path, identity):
            _forget(folder)
            _create(path, identity)
        with _database(path) as study, _writing(path):
            yield Study(study, search, select_by)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from logging every trial, only as long as it is ours."""
    from optuna import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(level)


@contextmanager
def _storage(path: Path) -> Iterator["RDBStorage"]:
    """Open Optuna's tables, making them where there are none, and close every connection afterwards."""
    from optuna.storages import RDBStorage
    from sqlalchemy.pool import NullPool

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(path, check_same_thread=False)

    # Connected to by ourselves: in a URL, not every path means what it says. No pool: what fails leaves nothing open.
    storage = RDBStorage(f"sqlite:///{DATABASE}", engine_kwargs={"creator": connect, "poolclass": NullPool})
    try:
        yield storage
    finally:
        storage.scoped_session.remove()
        storage.engine.dispose()


def _forget(folder: Path) -> None:
    """Remove a study, and the journal that a kill may have left of it: it would be applied to the next one."""
    with storage_errors(folder):
        for name in (DATABASE, f"{DATABASE}-journal"):
            (folder / name).unlink(missing_ok=True)
        if (folder / BEST).exists():
            shutil.rmtree(folder / BEST)


def _create(path: Path, identity: Mapping[str, Any]) -> None:
    """Write a database without trials, whole or not at all."""
    import optuna

    with write_file(path) as aside, _writing(path), _storage(aside) as storage:
        study = optuna.create_study(study_name=_NAME, storage=storage, direction="maximize")
        study.set_user_attr(_IDENTITY, {"format": FORMAT_VERSION, **identity})
        study.set_user_attr(ID, uuid.uuid4().hex)


@contextmanager
def _database(path: Path) -> Iterator["optuna.Study"]:
    """Open the study of a database that is there."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    _check_tables(path)
    unusable = (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError, LookupError, ValueError, TypeError)
    with ExitStack() as stack:
        try:
            storage = stack.enter_context(_storage(path))
            study = optuna.load_study(study_name=_NAME, storage=storage)
            study.get_trials()
        except unusable as error:
            raise _damaged(path, str(error)) from error
        yield study


def _is_empty_and_other(path: Path, identity: Mapping[str, Any]) -> bool:
    """Whether a study of other data or settings has no trial that could be lost; refused where it has."""
    with _database(path) as study:
        found = study.user_attrs.get(_IDENTITY)
        n_trials = len(counted(study))
    if not isinstance(found, dict) or not isinstance(found.get("format"), int):
        raise _damaged(path, "it does not say what it searches")
    if found["format"] > FORMAT_VERSION:
        raise BundleError(
            f"{path} has format {found['format']}, this version reads up to {FORMAT_VERSION}; upgrade recvae, "
            "or start over with --fresh"
        )
    wanted = {"format": FORMAT_VERSION, **identity}
    different = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
    if different and n_trials:
        unsaid = {"select_by": str(OBJECTIVE), "stream": "all in memory", "shards": "any"}
        before, now = ({**dict.fromkeys(different, "unknown"), **unsaid, **one} for one in (found, wanted))
        words = [f"{name}: {before[name]}, now {now[name]}" for name in different]
        raise UsageError(
            f"{path.parent} holds a study of something else ({'; '.join(words)}); continue with the same settings, "
            f"or start over with --fresh, which forgets its {n_trials} trials"
        )
    return bool(different)


def _check_tables(path: Path) -> None:
    """Refuse a file that is not Optuna's before Optuna adds its tables to it."""
    try:  # not read-only: after a kill, the first who reads must be able to undo what was half done
        with closing(sqlite3.connect(path)) as connection:
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as error:
        raise _damaged(path, str(error)) from error
    if not {"version_info", "studies", "trials"} <= names:
        raise _damaged(path, f"its tables are {', '.join(sorted(names)) or 'none'}")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Name what keeps a database from being written: usually a full disk."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        cause = error.__cause__ or error
        reason = getattr(cause, "orig", None) or cause
        raise StorageError(
            f"could not write {path}: {reason}; see that there is space and that it may be written, then tune again"
        ) from error


def _damaged(path: Path, what: str) -> BundleError:
    return BundleError(
        f"{path} is damaged or not a study of recvae: {what}; put it back as it was, or start over with --fresh"
    )
