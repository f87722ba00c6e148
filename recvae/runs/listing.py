"""A list of runs: model, validation figure, size, state. A damaged run is a line of it, and does not end it.

Imports neither torch nor a model: a list must come at once.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any

from recvae.bundles.card import CARD, RUN_LOCK, RUN_LOG, RUN_STATE, read_card
from recvae.errors import BundleError, UsageError
from recvae.runs.finding import UNFINISHED, RunFolder, list_runs
from recvae.storage.integrity import UNREADABLE as UNREADABLE_JSON

TRAINING, UNREADABLE = "training", "unreadable"
OBJECTIVE = "ndcg@100"  # a copy: the metric that training validates by

# Of a run that is neither a bundle nor resumable.
_REMAINS = ("weights.safetensors", "weights-*-of-*.safetensors", "checkpoint.safetensors", RUN_LOG)


@dataclass(frozen=True, kw_only=True)
class ListedRun:
    """A run in a list; made by `listed_runs`.

    Parameters
    ----------
    run : str
        DATA/NAME, by which the command finds it.
    path : Path
        Its folder.
    state : str
        "finished", "interrupted" (a bundle of the best weights so far), "unfinished" (no bundle), "training" (by
        another process, now) or "unreadable".
    model : str or None
        Name of its model; None where that cannot be read.
    made : str
        When its bundle was written; of a run without one, when it was last started. ISO 8601, UTC.
    metric : str or None
        What `validation` is of: NDCG@100 wherever that was measured.
    validation : float or None
        Mean over the validation users; of a run without a bundle, the best epoch so far. None where that is not known.
    n_bytes : int
        Size of all files in its folder.
    note : str
        What else there is to say: the epochs done, what it is a refit of, why it cannot be read.
    """

    run: str
    path: Path
    state: str
    model: str | None
    made: str
    metric: str | None
    validation: float | None
    n_bytes: int
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {**asdict(self), "path": str(self.path)}


def listed_runs(runs_dir: Path, data: str | None = None) -> list[ListedRun]:
    """Describe the runs in a folder, oldest first; what cannot be read is named, with the reason.

    Parameters
    ----------
    runs_dir : Path
        Where runs are kept.
    data : str, optional
        Name or path of a data set; by default all.

    Raises
    ------
    UsageError
        If there is no run on `data`.
    """
    name = None if data is None else Path(data).resolve().name  # runs are in a folder of the data set's name
    folders = [run for run in list_runs(runs_dir) if run.can_resume or not run.is_hidden]
    folders += _remains(runs_dir, {run.path for run in folders})
    chosen = [run for run in folders if name in (None, run.path.parent.name)]
    if name is not None and not chosen:
        known = ", ".join(sorted({run.path.parent.name for run in folders})) or "none"
        raise UsageError(f"no run on '{name}' in {runs_dir}; there are runs on: {known}")
    return sorted((_described(run) for run in chosen), key=lambda run: (run.made, run.run))


def _remains(runs_dir: Path, known: set[Path]) -> Iterator[RunFolder]:
    """Find folders that hold parts of a run, but nothing that says what it is, such as half a copy."""
    for folder in {file.parent for name in _REMAINS for file in runs_dir.glob(f"*/*/{name}")} - known:
        if not folder.name.startswith("."):
            yield RunFolder(path=folder, is_bundle=False, can_resume=False, changed=_changed(folder))


def _described(run: RunFolder) -> ListedRun:
    facts: dict[str, Any] = {"run": f"{run.path.parent.name}/{run.path.name}", "path": run.path}
    facts |= {
        "state": UNREADABLE,
        "model": None,
        "metric": None,
        "validation": None,
        "made": _iso(run.changed),
        "n_bytes": _size(run.path),
    }
    try:
        if run.is_bundle:
            return ListedRun(**{**facts, **_of_card(run)})
        if run.can_resume:
            return ListedRun(**{**facts, **_of_state(run.path)})
        note = f"there is no {CARD}, so this is only a part of a run; copy it again, or remove it"
    except (BundleError, UsageError, OSError, ValueError) as error:
        note = str(error)
    return ListedRun(**{**facts, "note": note})


def _of_card(run: RunFolder) -> dict[str, Any]:
    card = read_card(run.path)
    refit, means = card["training"].get("refit"), card["metrics"].get("validation", {})
    ndcg = [metric for metric in means if metric.startswith("ndcg@")]
    metric = OBJECTIVE if OBJECTIVE in means else next(iter([*ndcg[-1:], *means]), None)
    facts = {"state": run.state(), "model": card["model"], "made": _checked(card["created"], run.changed)}
    if isinstance(refit, dict):
        facts["note"] = f"{refit.get('run')} trained again on {refit.get('on')}"
    elif card["training"].get("failure"):
        facts["note"] = str(card["training"]["failure"])
    return facts | {"metric": metric, "validation": None if metric is None else float(means[metric])}


def _of_state(folder: Path) -> dict[str, Any]:
    """Read what a run without a bundle says of itself, and how far it is."""
    try:
        state = json.loads((folder / RUN_STATE).read_text(encoding="utf-8"))
        model = state["model"]
        if not isinstance(model, str):
            raise TypeError(f"got model {model!r:.60}")
    except UNREADABLE_JSON as error:
        raise BundleError(f"{folder / RUN_STATE} cannot be read ({error!r}); train again") from error
    n_epochs, best = _progress(folder / RUN_LOG)
    facts = {"state": TRAINING if is_being_trained(folder) else UNFINISHED, "model": model}
    facts["note"] = f"{n_epochs:,} epoch{'' if n_epochs == 1 else 's'} done" if n_epochs else "no epoch done"
    if folder.name.startswith("."):
        facts["note"] += f", to replace {state.get('folder')}"
    return facts | {"metric": None if best is None else OBJECTIVE, "validation": best}


def _progress(log: Path) -> tuple[int, float | None]:
    """Return how many epochs a log has, and NDCG@100 of the one that is kept; its last line may be cut."""
    last, best = 0, None
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0, None
    for line in lines:
        try:
            record = json.loads(line)
            epoch, ndcg = int(record["epoch"]), record.get("ndcg")
        except UNREADABLE_JSON:
            continue
        last, kept = max(last, epoch), record.get("best")  # by another metric, which need not be the highest here
        if isinstance(ndcg, int | float) and isfinite(ndcg):
            best = float(ndcg) if (kept if isinstance(kept, bool) else best is None or ndcg > best) else best
    return last, best


def is_being_trained(folder: Path) -> bool:
    """Whether another process holds the lock of a run; nothing is written."""
    try:
        import fcntl  # imported here: not every system has it

        with (folder / RUN_LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (OSError, ImportError):
        return False
    return False


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size if path.is_file() else 0
        except OSError:  # removed in the meantime
            continue
    return total


def _changed(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _checked(created: str, changed: float) -> str:
    """Return a time of a card in UTC, and that of its file where it cannot be read."""
    try:
        return datetime.fromisoformat(created).astimezone(UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError):
        return _iso(changed)
