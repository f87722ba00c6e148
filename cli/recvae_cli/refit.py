"""`recvae train --refit`: train a finished run again on its held-out users too."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from recvae_cli.console import imported_models, memory_limit, model_words, resuming, say, say_removed
from recvae_cli.processes import hear_run, is_first, tell_run, train_along
from recvae_cli.streaming import STREAMED_REFIT, Wanted
from recvae_cli.tracking import check_tracking, monitors_of, tracked

if TYPE_CHECKING:
    from recvae.bundles.bundle import Bundle
    from recvae.datasets.dataset import Dataset
    from recvae.runs.run import Run
    from recvae.training.records import Monitor


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was typed beside --refit."""

    run: str
    on: str | None
    models: list[str]
    given: list[str]
    name: str | None
    data: str | None
    max_memory: str | None
    device: str
    overwrite: bool
    resume: bool
    find_beta: bool
    file_bytes: int | None
    select_by: str | None
    tensorboard: str | None
    mlflow: str | None
    stream: bool
    data_dir: Path
    runs_dir: Path


def check_request(request: Request) -> None:
    """Refuse what does not go with --refit: the run has chosen everything but the users."""
    from recvae.errors import UsageError

    if request.resume:
        raise UsageError(
            "got --resume with --refit; an interrupted refit is continued by --resume alone (and --name), so leave out "
            "--refit"
        )
    if request.stream:
        raise UsageError(STREAMED_REFIT)
    chosen = [f"--set {setting}" for setting in request.given] + (["--find-beta"] if request.find_beta else [])
    chosen += [f"--select-by {request.select_by}"] if request.select_by else []
    if chosen:
        raise UsageError(
            f"got {chosen[0]} with --refit, but the settings are those of {request.run}; leave it out, or train a run "
            "with it first and refit that one"
        )
    named = [model for model in request.models if ":" not in model]
    if named:
        raise UsageError(
            f"got --model {named[0]} with --refit, but the model is that of {request.run}; leave it out (only your own "
            "model is named, as MODULE:CLASS)"
        )


def refit(request: Request) -> "tuple[Bundle, Path] | None":
    """Train a finished run again, and return the new bundle and its folder; None where another process has these."""
    from recvae.bundles.card import read_card
    from recvae.datasets.dataset import Dataset
    from recvae.datasets.home import check_name, find_dataset
    from recvae.datasets.parts import VALIDATION_TOO, check_on
    from recvae.models.common.sharing import check_can_share
    from recvae.runs.finding import find_run
    from recvae.runs.refitting import chosen_by, name_of, refit_run

    check_request(request)
    check_tracking(request.tensorboard, request.mlflow)
    on, name = check_on(request.on or VALIDATION_TOO), request.name and check_name(request.name)
    limit, own = memory_limit(request.max_memory), imported_models(request.models)
    if not is_first():
        run, dataset = hear_run(own, None, Wanted(request.data, request.data_dir, None, limit))
        train_along(run, dataset, request.device, limit)
        return None
    folder = find_run(request.runs_dir, request.run, request.data)
    home = find_dataset(request.data_dir, request.data or str(read_card(folder)["dataset"].get("name")))
    dataset = Dataset.load(home)
    chosen = chosen_by(folder, dataset, request.runs_dir, on, own)
    check_can_share(chosen.model)
    say(f"training {chosen.model.name} on {on} of {home}")
    if request.overwrite:
        say_removed(request.runs_dir / dataset.name / name_of(chosen, name))
    try:
        return refit_run(
            chosen,
            dataset,
            request.runs_dir,
            name=name,
            overwrite=request.overwrite,
            device=request.device,
            max_memory=limit,
            watch=lambda run: _watch(run, dataset, request),
            models=own,
            tell=_say_part,
        )
    except KeyboardInterrupt:
        again = (
            "run the same command again"
            if chosen.parts
            else f"`{resuming(*model_words(type(chosen.model)))}` continues"
        )
        say(f"interrupted; {again}, if an epoch was finished")
        raise


def _say_part(role: str, folder: Path, is_new: bool) -> None:
    say(f"{role} run of the blend: {folder}" + ("" if is_new else ", which exists already"))


@contextmanager
def _watch(run: "Run", dataset: "Dataset", request: Request) -> "Iterator[tuple[Run, Monitor]]":
    from recvae.runs.sharing import this_job
    from recvae.training.monitors import MonitorList, ProgressBar, TrainingProgress

    if not run.resumes:  # which knows where it is followed
        run = tracked(run, dataset.name, request.tensorboard, request.mlflow)
    run = replace(run, file_bytes=request.file_bytes or run.file_bytes, job=this_job())
    tell_run(run, dataset)
    followers = monitors_of(run)
    with ProgressBar(run.model.name) as bar:
        yield run, MonitorList(TrainingProgress(bar), *followers)
