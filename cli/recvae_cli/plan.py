"""`recvae plan`: what each model, or a refit, needs before a long run: memory, time, and whether it fits."""

from collections.abc import Callable
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
    OwnModels,
    RunsDir,
    command,
    imported_models,
    memory_limit,
    say,
    say_next,
    show,
    show_json,
)
from recvae_cli.plan_shares import planned_shares, print_shares, shares_as_json, shares_that_fit
from recvae_cli.streaming import STREAMED_REFIT, Buffer, Stream, Wanted, remark_on_stream, wanted

if TYPE_CHECKING:
    from rich.table import Table

    from recvae.datasets.dataset import Dataset
    from recvae.models.common.base import Model
    from recvae.runs.planning import Plan
    from recvae.training.refits import Refit

    Asked = tuple[Dataset, list[tuple[Model, Refit | None]], Callable[[Plan], list[str]]]


def plan(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="By default all models but blend.", autocompletion=completion.models),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A hyperparameter, for each model that has it (repeatable).",
            autocompletion=completion.settings,
        ),
    ] = None,
    data: DataSet = None,
    seconds: Annotated[
        float, typer.Option("--seconds", help="Seconds to try out each model; 0 estimates no times.")
    ] = 2.0,
    refit: Annotated[
        str | None,
        typer.Option(
            "--refit", metavar="RUN", help="Plan `recvae train --refit RUN` instead.", autocompletion=completion.runs
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option("--on", help="With --refit: train+validation, or all.", show_default="train+validation"),
    ] = None,
    own: OwnModels = None,
    ranks: Annotated[
        int | None,
        typer.Option("--ranks", metavar="N", help="Also plan N processes of torchrun: memory and traffic."),
    ] = None,
    stream: Stream = False,
    buffer: Buffer = None,
    max_memory: MaxMemory = None,
    device: Device = DEVICE,
    data_dir: DataDir = DATA_DIR,
    runs_dir: RunsDir = RUNS_DIR,
    as_json: Json = False,
) -> None:
    """Estimate what training needs: parameters, memory, time.

    Each model is trained on the data for a few seconds. Nothing is written. With --ranks, users and items shared by
    several processes are compared, as `recvae train --share` has them; none is started.

    \b
    Examples:
      recvae plan
      recvae plan multvae recvae --set batch_size=200 --max-memory 4GB
      recvae plan blend --set first=recvae --set second=ease
      recvae plan --refit ml-1m/recvae --on all
      recvae plan multvae --ranks 4 --seconds 0
      recvae plan multvae --data plays --stream --buffer 500MB
    """
    from recvae.compute.devices import resolve_device
    from recvae.errors import UsageError
    from recvae.runs.planning import plan
    from recvae.training.monitors import ProgressBar

    if not 0 <= seconds < float("inf"):
        raise UsageError(f"got --seconds {seconds}, expected a number of seconds, 0 or more")
    if ranks is not None and ranks < 2:
        raise UsageError(f"got --ranks {ranks}, expected 2 or more processes; leave it out for one")
    limit, rows = memory_limit(max_memory), wanted(data, data_dir, stream, buffer, None)
    resolve_device(device)
    if refit is not None:
        asked = _to_refit(refit, on, names or [], settings or [], rows, own, device, runs_dir)
    elif on is not None:
        raise UsageError(f"got --on {on} without --refit, expected --refit RUN --on {on}; a new run trains on train")
    else:
        asked = _to_train(names or [], settings or [], rows, own, device, runs_dir)
    dataset, models, following = asked
    remark_on_stream(dataset)
    plans = []
    with ProgressBar("trying out models") as bar:
        for done, (model, chosen) in enumerate(models):
            bar(done, len(models), model.name)
            plans.append(plan(model, dataset, device=device, seconds=seconds, max_memory=limit, refit=chosen))
    shares = {} if ranks is None else planned_shares([found.model for found in plans], dataset, ranks, device, limit)
    if as_json:
        show_json({**_as_json(plans, dataset, limit), **({"shares": shares_as_json(shares)} if ranks else {})})
    else:
        _print(plans, dataset, limit)
        if ranks is not None:
            print_shares(shares, ranks)
    together = {} if ranks is None else shares_that_fit(shares)
    fitting = [found for found in plans if (found.model.name in together if together else found.fits)]
    if not fitting or (refit is not None and len(fitting) < len(plans)):
        say("no model fits; allow more memory or use smaller dimensions" if refit is None else "allow more memory")
        return
    words = following(fitting[0])
    words += ["--max-memory", max_memory] if max_memory else []
    words += ["--device", device] if device != DEVICE else []
    if not together:
        say_next(command("train", *words))
        return
    words += ["--share", "items"] if together[fitting[0].model.name] == "items" else []
    say_next(f"torchrun --nproc-per-node {ranks} -m {command('train', *words)}")


def _to_train(
    names: list[str],
    settings: list[str],
    rows: Wanted,
    own: list[str] | None,
    device: str,
    runs_dir: Path,
) -> "Asked":
    """Return the models to plan, and what follows `train` for the one that is trained."""
    from recvae.models import import_path
    from recvae.runs.parts import load_parts

    models = _models(names, settings, rows.data_dir)
    dataset, own_classes = rows.load(), imported_models(own)
    for model in models:
        load_parts(model, runs_dir, dataset, device, own_classes)

    def following(found: "Plan") -> list[str]:
        kind = type(found.model)
        chosen = [word for setting in _settings_for(kind, settings) for word in ("--set", setting)]
        return ["--model", import_path(kind), "--data", rows.data or rows.folder().name, *chosen, *rows.words()]

    return dataset, [(model, None) for model in models], following


def _to_refit(
    run: str,
    on: str | None,
    names: list[str],
    settings: list[str],
    rows: Wanted,
    own: list[str] | None,
    device: str,
    runs_dir: Path,
) -> "Asked":
    """Return what a finished run has chosen, of a blend after its runs, and what follows `train` to refit it."""
    from recvae.bundles.card import read_card
    from recvae.datasets.joining import join
    from recvae.datasets.parts import VALIDATION_TOO, check_on
    from recvae.errors import UsageError
    from recvae.runs.finding import find_run
    from recvae.runs.parts import load_parts
    from recvae.runs.refitting import all_of, chosen_by

    if names or settings:
        found = names[0] if names else f"--set {settings[0]}"
        raise UsageError(f"got {found} with --refit, but model and settings are those of {run}; leave it out")
    if rows.buffer is not None:
        raise UsageError(STREAMED_REFIT)
    folder = find_run(runs_dir, run, rows.data)
    dataset = rows.load(str(read_card(folder)["dataset"].get("name")))
    own_classes = imported_models(own)
    parts = check_on(on or VALIDATION_TOO)
    every = all_of(chosen_by(folder, dataset, runs_dir, parts, own_classes))
    models = [replace(one.model, parts={}) for one in every]
    for model in models:
        load_parts(model, runs_dir, dataset, device, own_classes)  # those not refitted yet are as large
    words = ["--refit", run, *(["--on", on] if on else []), *(["--data", rows.data] if rows.data else [])]
    words += [word for name in own or [] for word in ("--model", name)]
    joined = replace(dataset, train=join(dataset, parts), train_user_ids=None)
    return joined, [(model, one.refit) for model, one in zip(models, every, strict=True)], lambda _: words


def _models(names: list[str], settings: list[str], data_dir: Path) -> "list[Model]":
    """Make the models that are named, or all but blends, each with the settings that it has."""
    from recvae.errors import UsageError, did_you_mean
    from recvae.models import MODELS, model_class
    from recvae.models.common.hyperparameters import build, hyperparameters_of, parse_settings
    from recvae_cli.hints import data_set_hint

    try:
        chosen = list(dict.fromkeys(model_class(name) for name in names))
    except UsageError as error:
        hints = [hint for name in names if (hint := data_set_hint(name, data_dir))]
        raise UsageError("; ".join([str(error), *hints])) from None
    chosen = chosen or [model for model in MODELS.values() if not model.roles]
    for setting in settings if len(chosen) > 1 else []:
        name = setting.split("=")[0].strip()
        if "=" in setting and not any(name in hyperparameters_of(model) for model in chosen):
            known = ", ".join(model.name for model in chosen)
            hint = did_you_mean(name, [one for model in chosen for one in hyperparameters_of(model)])
            raise UsageError(f"got unknown hyperparameter '{name}'; none of {known} has it{hint}")
    given = [_settings_for(model, settings) if len(chosen) > 1 else settings for model in chosen]
    return [build(model, parse_settings(model, own)) for model, own in zip(chosen, given, strict=True)]


def _settings_for(model: "type[Model]", settings: list[str]) -> list[str]:
    """Return the settings of hyperparameters that a model has, and those that are not of the form name=value."""
    from recvae.models.common.hyperparameters import hyperparameters_of

    known = hyperparameters_of(model)
    return [setting for setting in settings if "=" not in setting or setting.split("=")[0].strip() in known]


def _as_json(plans: "list[Plan]", dataset: "Dataset", limit: int | None) -> dict[str, Any]:
    from recvae.models.common.hyperparameters import values_of

    n_users, n_items = dataset.train.shape
    return {
        "dataset": dataset.name,
        "n_users": n_users,
        "n_items": n_items,
        "n_interactions": int(dataset.train.nnz),
        "max_memory": limit,
        "models": [
            {
                "model": found.model.name,
                "hyperparameters": values_of(found.model),
                "device": found.device,
                "parameters": found.needs.parameters,
                "host_bytes": found.on_host,
                "device_bytes": found.on_gpu,
                "scoring_bytes": found.scoring,
                "scoring_bytes_per_user": found.needs.per_user,
                "users_scored_at_a_time": found.rows,
                "epochs": found.epochs,
                "seconds_per_epoch": found.epoch_seconds,
                "seconds": found.seconds,
                "fits": found.fits,
                "obstacle": found.obstacle,
            }
            for found in plans
        ],
    }


def _print(plans: "list[Plan]", dataset: "Dataset", limit: int | None) -> None:
    from recvae.compute.memory import available_bytes, human_bytes
    from recvae.interactions import StoredRows

    n_users, n_items = dataset.train.shape
    size = f"{n_users:,} training users x {n_items:,} items, {dataset.train.nnz:,} interactions"
    allowed = f"{human_bytes(available_bytes())} of memory free" if limit is None else f"{human_bytes(limit)} allowed"
    show(f"{dataset.name}: {size}; {allowed}", _table(plans))
    show("memory excludes program and data; times are estimates under the current load")
    if isinstance(dataset.train, StoredRows):
        show("--stream: times leave out reading; the time of a model without epochs is not estimated")
    if any(found.epochs for found in plans):
        show("whole run: all epochs; most runs stop early (patience)")
    for found in plans:
        if not found.fits:
            show(found.obstacle)


def _table(plans: "list[Plan]") -> "Table":
    from rich.table import Table

    from recvae.compute.memory import human_bytes

    table = Table()
    for heading in ("model", "parameters", "on host", "on GPU", "to score", "per epoch", "whole run", "fits"):
        table.add_column(heading, justify="left" if heading in ("model", "fits") else "right")
    for found in plans:
        table.add_row(
            found.model.name,
            f"{found.needs.parameters:,}",
            human_bytes(found.on_host),
            human_bytes(found.on_gpu) if found.on_gpu else "-",
            human_bytes(found.scoring),
            _time(found.epoch_seconds),
            _time(found.seconds),
            "yes" if found.fits else "no",
        )
    return table


def _time(seconds: float | None) -> str:
    """Write a time for people, e.g. 3.2 min; more than two digits would be false precision."""
    if seconds is None:
        return "-"
    for unit, length in (("s", 60.0), ("min", 60.0), ("h", 48.0)):
        if seconds < length:
            return f"{seconds:.2g} {unit}" if seconds < 9.95 else f"{seconds:.0f} {unit}"
        seconds /= 60.0 if unit != "h" else 24.0
    return f"{seconds:,.0f} d"
