"""`recvae train`: fit a model and leave a bundle."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recvae_cli import completion
from recvae_cli.console import (
    DATA_DIR,
    DEVICE,
    RUNS_DIR,
    DataDir,
    DataSet,
    Device,
    Json,
    MaxMemory,
    RunsDir,
    SelectBy,
    check_blends_own,
    command,
    imported_models,
    model_words,
    say,
)
from recvae_cli.processes import hear_run, is_first, share_by, tell_run, train_along
from recvae_cli.refit import Request as RefitRequest
from recvae_cli.refit import refit as train_again
from recvae_cli.streaming import Buffer, Stream, Wanted, wanted
from recvae_cli.tracking import check_tracking, monitors_of, tracked
from recvae_cli.trained import USUAL, announce, report

if TYPE_CHECKING:
    from recvae.bundles.bundle import Bundle
    from recvae.datasets.dataset import Dataset
    from recvae.metrics import Metric
    from recvae.models import Model
    from recvae.runs.run import Run
    from recvae.training.records import Monitor


def train(
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="See `recvae models`, or MODULE:CLASS for your own; after blend, also your own models that it blends.",
            show_default="multvae",
            autocompletion=completion.models,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A hyperparameter; repeat for several.",
            autocompletion=completion.settings,
        ),
    ] = None,
    data: DataSet = None,
    seed: Annotated[int | None, typer.Option(help="Short for --set seed=N.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="Short for --set precision=...: auto, float32 or bfloat16.", show_default="auto")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; by default the model's.")] = None,
    max_memory: MaxMemory = None,
    stream: Stream = False,
    buffer: Buffer = None,
    select_by: SelectBy = None,
    find_beta: Annotated[
        bool,
        typer.Option("--find-beta", help="Run a pilot with beta annealed to 1; cap beta at the best epoch's value."),
    ] = False,
    refit: Annotated[
        str | None,
        typer.Option(
            "--refit",
            metavar="RUN",
            help="Train a finished run again, with its settings and epochs, on more users.",
            autocompletion=completion.runs,
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            "--on", help="With --refit: train+validation, or all (to serve).", show_default="train+validation"
        ),
    ] = None,
    share: Annotated[
        str,
        typer.Option(
            "--share",
            metavar="WHAT",
            help="With torchrun: what each process has a part of: users of each batch, or items of the network.",
        ),
    ] = "users",
    shard_size: Annotated[
        str | None,
        typer.Option(
            "--shard-size", metavar="SIZE", help="Write the weights in files of at most this size, with an index: 5GB."
        ),
    ] = None,
    device: Device = DEVICE,
    overwrite: Annotated[bool, typer.Option(help="Replace the existing run when this one finishes.")] = False,
    resume: Annotated[
        bool,
        typer.Option(help="Resume the latest interrupted run, or the one named by --name."),
    ] = False,
    tensorboard: Annotated[
        str | None,
        typer.Option(
            metavar="[FOLDER]", help="Write curves, histograms and item vectors for TensorBoard, in FOLDER/DATA/NAME."
        ),
    ] = None,
    mlflow: Annotated[
        str | None,
        typer.Option(
            metavar="[URI]", help="Log parameters, metrics and the bundle to MLflow, e.g. sqlite:///mlflow.db."
        ),
    ] = None,
    data_dir: DataDir = DATA_DIR,
    runs_dir: RunsDir = RUNS_DIR,
    as_json: Json = False,
) -> None:
    """Train a model on a prepared data set, and save it in RUNS_DIR/DATA/NAME.

    After Ctrl-C, the best weights so far are kept, and --resume continues, also in TensorBoard and MLflow. --refit
    trains a finished run again on the validation users too (--on all: and the test users), as RUN-refit.

    \b
    Examples:
      recvae train --model multvae --set latent_dim=100 --set epochs=50
      recvae train --model ease --data ml-1m --max-memory 8GB
      recvae train --model blend --set first=recvae --set second=ease
      recvae train --tensorboard --mlflow
      recvae train --resume
      recvae train --refit ml-1m/multvae
      torchrun --nproc-per-node 4 -m recvae train --model multvae --share items
      recvae train --data plays --stream --buffer 500MB
    """
    from recvae.models import is_own, model_class

    metric = None if select_by is None else _objective(select_by)
    model, *others = models or [None]
    own = imported_models([name for name in others if name is not None])
    given = _given(settings, {"seed": seed, "precision": precision})
    file_bytes = share_by(share, shard_size, tensorboard or mlflow)
    asked = wanted(data, data_dir, stream, buffer, max_memory)
    if refit is not None:
        request = RefitRequest(
            run=refit,
            on=on,
            models=models or [],
            given=given,
            name=name,
            data=data,
            max_memory=max_memory,
            device=device,
            overwrite=overwrite,
            resume=resume,
            find_beta=find_beta,
            file_bytes=file_bytes,
            select_by=select_by,
            tensorboard=tensorboard,
            mlflow=mlflow,
            stream=stream,
            data_dir=data_dir,
            runs_dir=runs_dir,
        )
        _refit_and_report(request, as_json)
        return
    _check_options(given, on, resume, overwrite, find_beta, tensorboard=tensorboard, mlflow=mlflow)
    kind = model_class(model or "multvae")  # an unknown one is refused before anything else
    if not is_first():
        run, dataset = hear_run([*own, *([kind] if is_own(kind) else [])], metric, asked)
    elif resume:
        run, dataset = _run_to_resume(asked, model, own, name, given, device, runs_dir, metric)
    else:
        run, dataset = _new_run(asked, kind, own, name, given, overwrite, device, runs_dir, metric, find_beta)
    run = replace(tracked(run, dataset.name, tensorboard, mlflow), file_bytes=file_bytes or run.file_bytes)
    tell_run(run, dataset)
    announce(run, dataset, data_dir, device)
    if find_beta and not run.resumes:  # else it was found before torchrun started this process again
        run = _with_found_beta(run, dataset, device, asked.max_memory)
    _train_and_report(run, dataset, device, asked.max_memory, as_json)


def _given(settings: list[str] | None, short: dict[str, Any]) -> list[str]:
    """Return all settings as they would be given with --set."""
    return [*(settings or []), *(f"{known}={value}" for known, value in short.items() if value is not None)]


def _objective(select_by: str) -> "Metric":
    from recvae.training.validation import objective

    return objective(select_by)


def _check_options(
    given: list[str], on: str | None, resume: bool, overwrite: bool, find_beta: bool, **tracking: str | None
) -> None:
    """Refuse options that do not go together, or need a library that is missing."""
    from recvae.errors import UsageError

    if on is not None:
        raise UsageError(f"got --on {on} without --refit, expected --refit RUN --on {on}; a new run trains on train")
    if resume and (overwrite or find_beta):
        other = "--overwrite" if overwrite else "--find-beta"
        raise UsageError(f"got --resume with {other}; a resumed run keeps its place and settings, leave one out")
    fixed = [setting for setting in given if setting.split("=")[0].strip() in ("beta", "anneal")]
    if find_beta and fixed:
        raise UsageError(f"got --find-beta with --set {fixed[0]}, which it would replace; leave one out")
    check_tracking(**tracking)


def _refit_and_report(request: RefitRequest, as_json: bool) -> None:
    made = train_again(request)
    if made is not None:  # the first of several processes has it
        report(*made, as_json)


def _train_and_report(run: "Run", dataset: "Dataset", device: str, max_memory: int | None, as_json: bool) -> None:
    if is_first():
        report(*_trained(run, dataset, device, max_memory, monitors_of(run)), as_json)
    else:
        train_along(run, dataset, device, max_memory)


def _trained(
    run: "Run", dataset: "Dataset", device: str, max_memory: int | None, followers: "list[Monitor]"
) -> "tuple[Bundle, Path]":
    """Train a run with a progress bar, and say what to do where it was interrupted."""
    from recvae.runs.run import train
    from recvae.training.monitors import MonitorList, ProgressBar, TrainingProgress

    try:
        with ProgressBar(run.model.name) as bar:
            monitor = MonitorList(TrainingProgress(bar), *followers)
            made = train(run, dataset, device=device, monitor=monitor, max_memory=max_memory)
        if str(run.select_by) != USUAL and made[0].training.select_by is None:
            say(f"nothing was chosen on validation users: --select-by {run.select_by.path} had no effect")
        return made
    except KeyboardInterrupt:
        what_next = (
            f"run `{command('train', '--resume', *model_words(type(run.model)))}` to continue"
            if run.work.exists()
            else "no epoch was finished, nothing is kept"
        )
        say(f"interrupted; {what_next}")
        raise


def _new_run(
    asked: Wanted,
    model: "type[Model]",
    own: "list[type[Model]]",
    name: str | None,
    given: list[str],
    overwrite: bool,
    device: str,
    runs_dir: Path,
    metric: "Metric | None",
    find_beta: bool,
) -> "tuple[Run, Dataset]":
    """Make a model and choose its place; or find the run that torchrun has begun before it started again."""
    from recvae.datasets.home import check_name
    from recvae.models.common.hyperparameters import build, parse_settings
    from recvae.models.common.sharing import check_can_share
    from recvae.models.common.variational import check_has_beta
    from recvae.runs.parts import load_parts
    from recvae.runs.run import new_run
    from recvae.runs.sharing import run_before_restart, this_job

    check_blends_own(model, own)
    fresh = build(model, parse_settings(model, given))
    check_can_share(fresh)
    asked.check(model)
    dataset = asked.load()
    _remark_on(load_parts(fresh, runs_dir, dataset, device, own))
    if find_beta:
        check_has_beta(fresh)
    found = ("beta", "anneal", "anneal_steps", "anneal_cycles") if find_beta else ()
    own = own if model in own else [*own, model]
    again = run_before_restart(fresh, dataset, runs_dir, own, metric, found)
    if again is not None:
        return again, dataset
    run = new_run(fresh, runs_dir / dataset.name, check_name(name or model.name), overwrite)
    return replace(run, select_by=metric or run.select_by, job=this_job()), dataset


def _run_to_resume(
    asked: Wanted,
    model: str | None,
    own: "list[type[Model]]",
    name: str | None,
    given: list[str],
    device: str,
    runs_dir: Path,
    metric: "Metric | None",
) -> "tuple[Run, Dataset]":
    """Find the newest run that has not finished, and the data it was started on."""
    from recvae.bundles.card import RUN_STATE
    from recvae.models import is_own, model_class
    from recvae.runs.parts import load_parts
    from recvae.runs.run import find_unfinished, resumed_run
    from recvae.runs.sharing import this_job
    from recvae.runs.state import read_state

    chosen = None if model is None else model_class(model)
    own = [*own, chosen] if chosen is not None and is_own(chosen) else own
    kind = None if chosen is None else chosen.name
    work = find_unfinished(runs_dir, asked.data and asked.folder().name, kind, name)
    dataset = asked.load(work.parent.name, read_state(work / RUN_STATE)["stream"])
    run = replace(resumed_run(work, dataset, given, own, metric), job=this_job())
    _remark_on(load_parts(run.model, runs_dir, dataset, device, own, run.refit))
    return run, dataset


def _remark_on(interrupted: list[Path]) -> None:
    for folder in interrupted:
        say(f"warning: {folder} was interrupted; its best weights so far are blended")


def _with_found_beta(run: "Run", dataset: "Dataset", device: str, max_memory: int | None) -> "Run":
    """Train a pilot to find the cap of beta, and return the run with it."""
    from recvae.models.common.variational import find_beta
    from recvae.training.monitors import ProgressBar, TrainingProgress

    try:
        with ProgressBar(f"{run.model.name} pilot") as bar:
            data, watch = (dataset.train, dataset.validation), TrainingProgress(bar)
            found = find_beta(run.model, *data, device, watch, max_memory, run.select_by)
    except KeyboardInterrupt:
        say("interrupted in the pilot: nothing is kept")
        raise
    settings = " ".join(f"--set {name}={value}" for name, value in found.items())
    highest = ", the highest it tries" if found["beta"] >= 1 else ""
    say(f"the pilot was best on validation with beta {found['beta']:.4g}{highest}; training again with {settings}")
    return replace(run, model=replace(run.model, **found))
