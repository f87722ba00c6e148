"""The folder of data sets, and finding a data set by name."""

from pathlib import Path

from recvae.datasets.dataset import MANIFEST
from recvae.errors import UsageError, did_you_mean
from recvae.storage.files import check_name, check_replaceable


def check_new(data_dir: Path, name: str, overwrite: bool = True) -> str:
    """Return the name if a data set may be written under it.

    Parameters
    ----------
    data_dir : Path
        The folder of data sets.
    name : str
        The name.
    overwrite : bool
        Whether a data set of that name may be replaced.

    Raises
    ------
    UsageError
        If it cannot be the name of a folder, the folder is not a data set, or there is one that must not be replaced.
    """
    folder = data_dir / check_name(name)
    check_replaceable(folder, MANIFEST)
    if not overwrite and (folder / MANIFEST).is_file():
        raise UsageError(
            f"{folder} is a data set already, expected a new name; give --overwrite to replace it, or --name NAME"
        )
    return name


def prepared_datasets(data_dir: Path) -> list[Path]:
    """Return the folders of finished data sets, the newest last."""
    manifests = [path for path in data_dir.glob(f"*/{MANIFEST}") if not path.parent.name.startswith(".")]
    return [path.parent for path in sorted(manifests, key=lambda path: path.stat().st_mtime)]


def find_dataset(data_dir: Path, name: str | None = None) -> Path:
    """Find a prepared data set by name or path; by default the newest.

    Parameters
    ----------
    data_dir : Path
        The folder of data sets.
    name : str, optional
        A folder in `data_dir`, or a path; by default the newest.

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
        f"or give its folder with --data-dir{did_you_mean(name, [path.name for path in prepared])}"
    )
