"""Tables that verbs write for other programs: CSV or Parquet, whole or not at all."""

from pathlib import Path
from typing import Any

_ENDINGS = (".csv", ".parquet")


def check_table(path: Path, overwrite: bool, also: tuple[str, ...] = ()) -> None:
    """Refuse a file that cannot be written, before any work.

    Parameters
    ----------
    path : Path
        The file.
    overwrite : bool
        Whether it may replace another.
    also : tuple of str
        Endings of what else a verb writes.

    Raises
    ------
    UsageError
        If its ending is unknown, or it is there already.
    StorageError
        If it could not be written.
    """
    from recvae.errors import UsageError
    from recvae.storage.files import check_new_file

    endings = (*_ENDINGS, *also)
    if path.suffix.lower() not in endings:
        named = f"{', '.join(endings[:-1])} or {endings[-1]}"
        raise UsageError(f"got --output {path}, expected a name that ends in {named}")
    check_new_file(path, overwrite)


def write_table(path: Path, columns: dict[str, list[Any]]) -> None:
    """Write columns of one length.

    Parameters
    ----------
    path : Path
        Checked by `check_table`.
    columns : dict of str to list
        By name.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    import pandas as pd

    from recvae.storage.files import write_file

    frame = pd.DataFrame(columns)
    with write_file(path) as file:
        if path.suffix.lower() == ".csv":
            frame.to_csv(file, index=False)
        else:
            frame.to_parquet(file, index=False)
