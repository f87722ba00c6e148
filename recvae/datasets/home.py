"""Where data sets are kept, and how one is found by name."""

from pathlib import Path

from recvae.datasets.dataset import MANIFEST
from recvae.errors import UsageError
from recvae.storage.files import check_name, check_replaceable


def check_new(data_dir: Path, name: str) -> str:
    """Return a name under which a data set may be written: a free one, or that of a data set to replace.

    Raises
    ------
    UsageError
        If it is no name for a folder, or the folder holds something that is not a data set.
    """
    check_replaceable(data_dir / check_name(name), MANIFEST)
    return name


def prepared_datasets(data_dir: Path) -> list[Path]:
    """Return the folders of finished data sets, the newest last."""
    manifests = [path for path in data_dir.glob(f"*/{MANIFEST}") if not path.parent.name.startswith(".")]
    return [path.parent for path in sorted(manifests, key=lambda path: path.stat().st_mtime)]


def find_dataset(data_dir: Path, name: str | None = None) -> Path:
    """Find a prepared data set by name or path, or the newest.

    Parameters
    ----------
    data_dir : Path
        Where data sets are kept.
    name : str, optional
        A folder in `data_dir`, or a path; None takes the newest.

    Returns
    -------
    Path
        Its folder.

    Raises
    ------
    UsageError
        If there is none.
    """
    prepared = prepared_datasets(data_dir)
    if name is None:
        if not prepared:
            raise UsageError(f"no data set in {data_dir}; make one with `recvae preprocess ml-1m`")
        return prepared[-1]
    for folder in (data_dir / name, Path(name)):
        if (folder / MANIFEST).is_file():
            return folder
    known = ", ".join(path.name for path in prepared) or "none"
    raise UsageError(
        f"no data set '{name}' in {data_dir}; there are: {known}; make it with `recvae preprocess {name}`, "
        "or say with --data-dir where it is kept"
    )
