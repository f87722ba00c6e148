"""A run that several processes train: the first one has its folder, the others train along and write nothing.

torchrun starts all processes again where one of them was lost (`--max-restarts`): the run that it has begun before is
found by what it has written down of this call, its job.
"""

import json
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from recvae.bundles.bundle import gather_weights
from recvae.bundles.card import RUN_STATE
from recvae.compute.ranks import current
from recvae.datasets.dataset import Dataset
from recvae.errors import BundleError
from recvae.evaluation.fitting import fit
from recvae.metrics import Metric
from recvae.models import known_model
from recvae.models.common.base import Model
from recvae.models.common.hyperparameters import build, values_of
from recvae.models.common.streaming import buffer_of
from recvae.runs.finding import list_runs
from recvae.runs.run import Run, resumed_run
from recvae.runs.state import is_locked, read_state
from recvae.training.refits import Refit
from recvae.training.validation import objective


def description(run: Run, dataset: Dataset) -> dict[str, Any]:
    """Return what the first process tells the others of a run, as JSON has it.

    Parameters
    ----------
    run : Run
        To be trained.
    dataset : Dataset
        What it is trained on.
    """
    return {
        "data": dataset.name,
        "stream": buffer_of(dataset.train),
        "model": run.model.name,
        "hyperparameters": values_of(run.model),
        "work": str(run.work),
        "folder": str(run.folder),
        "resumes": run.resumes,
        "refit": None if run.refit is None else run.refit.to_json(),
        "select_by": run.select_by.path,
    }


def described(told: Mapping[str, Any], models: Sequence[type[Model]] = (), select_by: Metric | None = None) -> Run:
    """Return the run that the first process has told of.

    Parameters
    ----------
    told : mapping
        From `description`.
    models : sequence of type of Model
        Models of your own that are known.
    select_by : Metric, optional
        What was typed here; a metric of your own is not imported because another process names it.
    """
    return Run(
        model=build(known_model(told["model"], models), told["hyperparameters"], effects=False),
        work=Path(told["work"]),
        folder=Path(told["folder"]),
        resumes=told["resumes"],
        refit=None if told["refit"] is None else Refit.from_json(told["refit"]),
        select_by=select_by or objective(told["select_by"]),
    )


def train_along(run: Run, dataset: Dataset, *, device: str = "auto", max_memory: int | None = None) -> None:
    """Train a run whose folder another process has, which calls `recvae.runs.run.train` at the same time.

    Parameters
    ----------
    run : Run
        From `described`.
    dataset : Dataset
        The same as there.
    device : str
        "auto", "cpu" or "cuda".
    max_memory : int, optional
        Bytes that fitting may take.
    """
    fitted = fit(run.model, dataset, device=device, max_memory=max_memory, refit=run.refit, select_by=run.select_by)
    gather_weights(fitted.model)
    current().end()


def this_job() -> str | None:
    """Return what tells this call of torchrun from others, the same after a restart; None without torchrun."""
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    return f"{socket.gethostname()}:{os.getppid()}" if name == "none" else name  # which is its own process id


def is_restarted() -> bool:
    """Whether torchrun has started this process again, after one was lost."""
    return this_job() is not None and current().restarts.before


def run_before_restart(
    model: Model,
    dataset: Dataset,
    runs_dir: Path,
    models: Sequence[type[Model]] = (),
    select_by: Metric | None = None,
    without: Iterable[str] = (),
) -> Run | None:
    """Return the unfinished run that the same call of torchrun has begun before, to continue it.

    Parameters
    ----------
    model : Model
        What shall be trained.
    dataset : Dataset
        On which data.
    runs_dir : Path
        Where runs are kept, in a folder for each data set.
    models : sequence of type of Model
        Models of your own that the run may train.
    select_by : Metric, optional
        What the validation users choose by.
    without : iterable of str
        Hyperparameters in which the run may differ.

    Returns
    -------
    Run or None
        None where nothing was started again, or there is no such run.
    """
    if not is_restarted():
        return None
    wanted = json.loads(json.dumps(values_of(model)))
    for run in reversed([run for run in list_runs(runs_dir / dataset.name, ".") if run.can_resume]):
        try:
            state = read_state(run.path / RUN_STATE)
        except BundleError:
            continue
        differing = {name for name, value in state["hyperparameters"].items() if wanted.get(name) != value}
        same = (state["model"], state["stream"]) == (model.name, buffer_of(dataset.train)) and differing <= set(without)
        if same and state["job"] == this_job() and not is_locked(run.path):
            return replace(resumed_run(run.path, dataset, (), models, select_by), job=this_job())
    return None
