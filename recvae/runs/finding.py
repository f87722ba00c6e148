"""Finding runs on disk: by name, the newest, or all that are finished. Imports neither torch nor a model."""

import re
from pathlib import Path

from recvae.bundles.card import CARD, RUN_STATE, read_card
from recvae.errors import UsageError

_REPEAT = re.compile(r"(.+)-seed-\d+(-\d+)?")


def find_run(runs_dir: Path, name: str | None = None, data: str | None = None) -> Path:
    """Find a run by its path, by `DATA/NAME`, by `NAME` alone, or the newest.

    Parameters
    ----------
    runs_dir : Path
        Where runs are kept.
    name : str, optional
        A folder, or what comes after `runs_dir`; None takes the newest finished run.
    data : str, optional
        Name or path of a data set: of several runs of one name, that on it; with no name, the newest on it.

    Returns
    -------
    Path
        A folder with a bundle.

    Raises
    ------
    UsageError
        If there is none, or several of that name.
    BundleError
        If it is damaged or unfinished.
    """
    cards = sorted(runs_dir.glob(f"*/*/{CARD}"), key=lambda card: card.stat().st_mtime)
    finished = [card.parent for card in cards if not card.parent.name.startswith(".")]
    data = data and Path(data).resolve().name  # runs stand in a folder of the data set's name
    if name is None:
        return _newest(runs_dir, finished, data)
    matches = [folder for folder in finished if folder.name == name]
    matches = matches or [state.parent for state in runs_dir.glob(f"*/*/{RUN_STATE}") if state.parent.name == name]
    matches = [folder for folder in matches if folder.parent.name == data] or matches
    paths = [path for path in (Path(name), runs_dir / name) if path.is_dir()]
    found = [path for path in paths if (path / CARD).is_file() or not matches][:1] or matches
    if len(found) == 1:
        read_card(found[0])
        return found[0]
    if matches:
        where = ", ".join(f"{folder.parent.name}/{name}" for folder in matches)
        raise UsageError(f"got run '{name}', which there is on several data sets; name one of: {where}")
    known = ", ".join(f"{folder.parent.name}/{folder.name}" for folder in finished) or "none"
    raise UsageError(f"no run '{name}' in {runs_dir}; there are: {known}")


def _newest(runs_dir: Path, finished: list[Path], data: str | None) -> Path:
    """Return the last of the finished runs, of those on a data set if one is named."""
    wanted = [folder for folder in finished if data in (None, folder.parent.name)] or finished  # it may be renamed
    if not wanted:
        raise UsageError(f"no run in {runs_dir}; make one with `recvae train --model multvae`")
    return wanted[-1]


def finished_runs(parent: Path) -> tuple[list[Path], list[Path]]:
    """Return the finished runs in a folder, oldest first, and the finished repeats of these.

    Parameters
    ----------
    parent : Path
        The runs of one data set.

    Returns
    -------
    runs : list of Path
        Trained to their end, not stopped by hand.
    repeats : list of Path
        Those called after another run and a seed.
    """
    cards = sorted(parent.glob(f"*/{CARD}"), key=lambda card: card.stat().st_mtime)
    whole = [card.parent for card in cards if not card.parent.name.startswith(".")]
    whole = [folder for folder in whole if not read_card(folder).get("interrupted")]
    names = {folder.name for folder in whole}
    found = {folder: _REPEAT.fullmatch(folder.name) for folder in whole}
    repeats = [folder for folder, match in found.items() if match and match[1] in names]
    return [folder for folder in whole if folder not in repeats], repeats
