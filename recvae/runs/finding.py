"""Finding runs on disk: by name, the newest, all that are finished or not. Imports neither torch nor a model."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recvae.bundles.card import CARD, RUN_STATE, read_card
from recvae.errors import UsageError, did_you_mean

FINISHED, INTERRUPTED, UNFINISHED = "finished", "interrupted", "unfinished"
_REPEAT = re.compile(r"(.+)-seed-\d+(-\d+)?")


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """A folder that holds a run; made by `list_runs`.

    Parameters
    ----------
    path : Path
        The folder.
    is_bundle : bool
        Whether there is a bundle, of a run that has finished or was interrupted.
    can_resume : bool
        Whether there is what is needed to continue it.
    changed : float
        When its bundle was written; of a run without one, when it was last started. Seconds since 1970.
    """

    path: Path
    is_bundle: bool
    can_resume: bool
    changed: float

    @property
    def is_hidden(self) -> bool:
        """Whether it is being written, to take the place of another run later."""
        return self.path.name.startswith(".")

    def state(self) -> str:
        """Return "finished", "interrupted" (a bundle of the best weights so far) or "unfinished" (no bundle).

        Raises
        ------
        BundleError
            If the bundle is damaged.
        """
        if not self.is_bundle:
            return UNFINISHED
        return INTERRUPTED if read_card(self.path)["interrupted"] else FINISHED


def list_runs(folder: Path, data: str = "*") -> list[RunFolder]:
    """List the runs below a folder, oldest first.

    Parameters
    ----------
    folder : Path
        Where runs are kept, in a folder for each data set.
    data : str
        Name of a data set, by default all; "." if `folder` is that of one data set.

    Returns
    -------
    list of RunFolder
        Hidden ones included.
    """
    markers = [marker for name in (CARD, RUN_STATE) for marker in folder.glob(f"{data}/*/{name}")]
    runs = [_run_at(path) for path in {marker.parent for marker in markers}]
    return sorted((run for run in runs if run is not None), key=lambda run: (run.changed, run.path))


def _run_at(path: Path) -> RunFolder | None:
    """Look at a folder, which another process may be writing or removing."""
    times = {}
    for name in (CARD, RUN_STATE):
        try:
            times[name] = (path / name).stat().st_mtime
        except OSError:
            continue
    if not times:
        return None
    changed = times.get(CARD, times.get(RUN_STATE, 0.0))
    return RunFolder(path=path, is_bundle=CARD in times, can_resume=RUN_STATE in times, changed=changed)


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
    runs = list_runs(runs_dir)
    bundles = [run.path for run in runs if run.is_bundle and not run.is_hidden]
    data = data and Path(data).resolve().name  # runs are in a folder of the data set's name
    if name is None:
        return _newest(runs_dir, bundles, data)
    matches = [folder for folder in bundles if folder.name == name]
    matches = matches or [run.path for run in runs if run.can_resume and run.path.name == name]
    matches = [folder for folder in matches if folder.parent.name == data] or matches
    paths = [path for path in (Path(name), runs_dir / name) if path.is_dir()]
    found = [path for path in paths if (path / CARD).is_file() or not matches][:1] or matches
    if len(found) == 1:
        is_run = (found[0] / CARD).is_file()
        of_data = [] if is_run else [run for run in bundles if run.parent.resolve() == found[0].resolve()]
        if of_data:
            names = ", ".join(f"{run.parent.name}/{run.name}" for run in of_data)
            raise UsageError(f"got '{name}', which holds the runs of a data set, expected one; name one of: {names}")
        read_card(found[0])
        return found[0]
    if matches:
        where = ", ".join(f"{folder.parent.name}/{name}" for folder in matches)
        raise UsageError(f"got run '{name}', which exists on several data sets; name one of: {where}")
    known = ", ".join(f"{folder.parent.name}/{folder.name}" for folder in bundles) or "none"
    hint = did_you_mean(name, [one for run in bundles for one in (run.name, f"{run.parent.name}/{run.name}")])
    if Path(name).is_file():
        hint = f"; {name} is a file, of which `recvae preprocess` makes a data set and `recvae train` a run"
    raise UsageError(f"no run '{name}' in {runs_dir}; there are: {known}{hint}")


def find_runs(runs_dir: Path, names: Sequence[str] | None = None, data: str | None = None) -> list[Path]:
    """Find several runs, each once; without names the newest, see `find_run`.

    Parameters
    ----------
    runs_dir : Path
        Where runs are kept.
    names : sequence of str, optional
        Of each, what `find_run` takes.
    data : str, optional
        Name or path of a data set.

    Returns
    -------
    list of Path
        Folders with a bundle, in the order of the names.

    Raises
    ------
    UsageError, BundleError
        See `find_run`.
    """
    return list(dict.fromkeys(find_run(runs_dir, name, data) for name in names or [None]))


def _newest(runs_dir: Path, bundles: list[Path], data: str | None) -> Path:
    """Return the last bundle, of those on a data set if one is named."""
    wanted = [folder for folder in bundles if data in (None, folder.parent.name)] or bundles  # it may be renamed
    places = {(folder.parent, folder.name) for folder in wanted}
    matches = {folder: _REPEAT.fullmatch(folder.name) for folder in wanted}
    repeats = [folder for folder, match in matches.items() if match and (folder.parent, match[1]) in places]
    wanted = [folder for folder in wanted if folder not in repeats]
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
        Trained to their end, not interrupted.
    repeats : list of Path
        Those that repeat another run with another seed, named after both.
    """
    runs = [run for run in list_runs(parent, ".") if run.is_bundle and not run.is_hidden]
    whole = [run.path for run in runs if run.state() == FINISHED]
    names = {folder.name for folder in whole}
    found = {folder: _REPEAT.fullmatch(folder.name) for folder in whole}
    repeats = [folder for folder, match in found.items() if match and match[1] in names]
    return [folder for folder in whole if folder not in repeats], repeats


def repeats_of(folder: Path, seed: int) -> list[Path]:
    """Return the runs next to another one that are named as its repeats with a seed, finished or not, by name.

    Parameters
    ----------
    folder : Path
        A run.
    seed : int
        Of the repeats.
    """
    pattern = re.compile(re.escape(f"{folder.name}-seed-{seed}") + r"(-\d+)?")
    return sorted(run.path for run in list_runs(folder.parent, ".") if pattern.fullmatch(run.path.name))
