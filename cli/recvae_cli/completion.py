"""What a shell completes: names of models, runs, data sets and hyperparameters, without importing torch.

A completer never fails: where nothing can be found out, it offers nothing.
"""

import os
from pathlib import Path
from typing import Any

import typer


def models(incomplete: str) -> list[str]:
    """Offer the models of the package."""
    from recvae_cli.sources import hyperparameters

    return _beginning(incomplete, hyperparameters())


def model_lists(incomplete: str) -> list[str]:
    """Offer the models of the package for a list separated by commas, such as --baselines."""
    done, comma, last = incomplete.rpartition(",")
    return [f"{done}{comma}{name}" for name in models(last)]


def settings(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer NAME= for the hyperparameters of the model that was typed; after NAME=, nothing."""
    from recvae_cli.sources import hyperparameters, letters_of

    known, typed = hyperparameters(), [letters_of(name) for name in _typed_models(ctx)]
    takes_names = "names" in {param.name for param in ctx.command.params}  # by default all, elsewhere multvae
    chosen = [name for name in typed if name in known] or (list(known) if takes_names or typed else ["multvae"])
    return _beginning(incomplete, {f"{field}=": None for model in chosen for field in known.get(model, [])})


def runs(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer runs as DATA/NAME, and by their names alone where these are of one run."""
    found = _runs(ctx)
    names = [path.name for path in found]
    alone = [name for name in names if names.count(name) == 1]
    return _beginning(incomplete, [*(f"{path.parent.name}/{path.name}" for path in found), *alone])


def runs_and_models(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer runs, and models to fit."""
    return _beginning(incomplete, [*runs(ctx, incomplete), *models(incomplete)])


def datasets(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the data sets that are prepared."""
    return _beginning(incomplete, _prepared(ctx))


def datasets_of_runs(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the data sets that there are runs on."""
    return _beginning(incomplete, [path.parent.name for path in _runs(ctx)])


def logs(incomplete: str) -> list[str]:
    """Offer the data sets known by name, which `recvae preprocess` reads; files are offered by the shell."""
    from recvae.datasets.catalog.known import CATALOG

    parts = [f"{name}:{part}" for name, entry in CATALOG.items() for part in entry.parts]
    return _beginning(incomplete, [*CATALOG, *parts, "synthetic"])


def _runs(ctx: typer.Context) -> list[Path]:
    from recvae.runs.finding import list_runs

    try:
        return [run.path for run in list_runs(Path(ctx.params.get("runs_dir") or "runs")) if not run.is_hidden]
    except OSError:
        return []


def _prepared(ctx: typer.Context) -> list[str]:
    from recvae_cli.sources import MANIFEST

    try:
        manifests = list(Path(ctx.params.get("data_dir") or "data").glob(f"*/{MANIFEST}"))
    except OSError:
        return []
    return [path.parent.name for path in manifests if not path.parent.name.startswith(".")]


def _typed_models(ctx: typer.Context) -> list[str]:
    """Return the models that were typed, whatever the verb calls the parameter."""
    from recvae_cli.sources import hyperparameters

    given: list[Any] = [ctx.params.get(name) for name in ("model", "models")]
    words = [word for one in given for word in (one if isinstance(one, list | tuple) else [one])]
    if "names" in {param.name for param in ctx.command.params}:  # arguments, which are not read before an open option
        line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")
        words += [word for word in line.split()[1:] if word in hyperparameters()]
    return [word for word in words if isinstance(word, str)]


def _beginning(incomplete: str, names: Any) -> list[str]:
    return sorted(name for name in dict.fromkeys(names) if name.startswith(incomplete))
