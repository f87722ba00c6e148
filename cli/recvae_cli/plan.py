"""`recvae plan`: what each model needs before a long run: memory, time, and whether it fits."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from recvae_cli.console import (
    DATA_DIR,
    DEVICE,
    RUNS_DIR,
    DataDir,
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

if TYPE_CHECKING:
    from rich.table import Table

    from recvae.datasets.dataset import Dataset
    from recvae.models.common.base import Model
    from recvae.runs.planning import Plan


def plan(
    names: Annotated[list[str] | None, typer.Argument(metavar="MODEL", help="By default all models but blend.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A hyperparameter, for each model that has it (repeatable)."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Name of a data set; by default the newest.")] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", help="Seconds to try out each model; 0 estimates no times.")
    ] = 2.0,
    own: OwnModels = None,
    max_memory: MaxMemory = None,
    device: Device = DEVICE,
    data_dir: DataDir = DATA_DIR,
    runs_dir: RunsDir = RUNS_DIR,
    as_json: Json = False,
) -> None:
    """Estimate what training needs: parameters, memory, time.

    Each model is trained on the data for a few seconds. Nothing is written.

    \b
    Examples:
      recvae plan
      recvae plan multvae recvae --set batch_size=200 --max-memory 4GB
      recvae plan blend --set first=recvae --set second=ease
    """
    from recvae.compute.devices import resolve_device
    from recvae.datasets.dataset import Dataset
    from recvae.datasets.home import find_dataset
    from recvae.errors import UsageError
    from recvae.models import import_path
    from recvae.runs.parts import load_parts
    from recvae.runs.planning import plan
    from recvae.training.monitors import ProgressBar

    if not 0 <= seconds < float("inf"):
        raise UsageError(f"got --seconds {seconds}, expected a number of seconds, 0 or more")
    models = _models(names or [], settings or [])
    limit = memory_limit(max_memory)
    resolve_device(device)
    home = find_dataset(data_dir, data)
    dataset = Dataset.load(home)
    plans, own_classes = [], imported_models(own)
    for model in models:
        load_parts(model, runs_dir, dataset, device, own_classes)
    with ProgressBar("trying out models") as bar:
        for done, model in enumerate(models):
            bar(done, len(models), model.name)
            plans.append(plan(model, dataset, device=device, seconds=seconds, max_memory=limit))
    if as_json:
        show_json(_as_json(plans, dataset, limit))
    else:
        _print(plans, dataset, limit)
    first = next((found for found in plans if found.fits), None)
    if first is None:
        say("no model fits; allow more memory or use smaller dimensions")
        return
    words = ["--model", import_path(type(first.model)), "--data", data or home.name]
    words += [word for setting in _settings_for(type(first.model), settings or []) for word in ("--set", setting)]
    words += ["--max-memory", max_memory] if max_memory else []
    words += ["--device", device] if device != DEVICE else []
    say_next(command("train", *words))


def _models(names: list[str], settings: list[str]) -> "list[Model]":
    """Make the models that are named, or all but blends, each with the settings that it has."""
    from recvae.errors import UsageError
    from recvae.models import MODELS, model_class
    from recvae.models.common.hyperparameters import build, hyperparameters_of, parse_settings

    chosen = [model_class(name) for name in dict.fromkeys(names)]
    chosen = chosen or [model for model in MODELS.values() if not model.roles]
    for setting in settings if len(chosen) > 1 else []:
        name = setting.split("=")[0].strip()
        if "=" in setting and not any(name in hyperparameters_of(model) for model in chosen):
            known = ", ".join(model.name for model in chosen)
            raise UsageError(f"got unknown hyperparameter '{name}'; none of {known} has it; see `recvae models`")
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

    n_users, n_items = dataset.train.shape
    size = f"{n_users:,} training users x {n_items:,} items, {dataset.train.nnz:,} interactions"
    allowed = f"{human_bytes(available_bytes())} of memory free" if limit is None else f"{human_bytes(limit)} allowed"
    show(f"{dataset.name}: {size}; {allowed}", _table(plans))
    show("memory excludes program and data; times are estimates under the current load")
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
