"""`recvae models`: the models, their papers and hyperparameters."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from recvae_cli import completion
from recvae_cli.console import Json, command, say_next, show, show_json

if TYPE_CHECKING:
    from recvae.models import Model
    from recvae.models.common.hyperparameters import Range


def models(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="Show all of these models; by default a line on each model.",
            autocompletion=completion.models,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the models; with names, their papers, hyperparameters (--set NAME=VALUE), and what `recvae tune` searches.

    \b
    Examples:
      recvae models
      recvae models recvae multvae
    """
    from recvae.models import MODELS, import_path, model_class

    classes = dict.fromkeys(model_class(name) for name in names or MODELS)
    chosen = {import_path(model): model for model in classes}
    if as_json:
        show_json({name: _as_json(model) for name, model in chosen.items()})
        return
    if not names:
        _show_all(chosen)
        say_next(command("models", "multvae"), command("train", "--model", "multvae"))
        return
    for name, model in chosen.items():
        _show(name, model)
    first, model = next(iter(chosen.items()))
    roles = [word for role in model.roles for word in ("--set", f"{role}=RUN")]
    say_next(command("train", "--model", first, *roles))


def _show_all(models: "dict[str, type[Model]]") -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("name", "kind", "what it is"):
        table.add_column(heading)
    for name, model in models.items():
        table.add_row(name, _kind(model), _summary(model))
    show(table)


def _show(name: str, model: "type[Model]") -> None:
    from rich.table import Table
    from rich.text import Text

    from recvae.models.common.hyperparameters import hyperparameters_of

    show(Text.assemble((name, "bold"), f"  {model.paper}"), _summary(model))
    known = hyperparameters_of(model)
    if not known:
        show("  no hyperparameters\n")
        return
    table = Table(box=None, padding=(0, 2), show_header=True)
    for heading in ("hyperparameter", "default", "searched", "meaning", "expected"):
        table.add_column(heading)
    for parameter in known.values():
        default = ",".join(map(str, parameter.default)) if isinstance(parameter.default, tuple) else parameter.default
        searched = _searched(model.space.get(parameter.name))
        table.add_row(parameter.name, str(default) or "-", searched, parameter.meaning, parameter.expected)
    show(table, "")


def _as_json(model: "type[Model]") -> dict[str, Any]:
    from recvae.models.common.hyperparameters import hyperparameters_of

    return {
        "paper": model.paper,
        "kind": _kind(model),
        "summary": _summary(model),
        "hyperparameters": {
            known.name: {
                "default": known.default,
                "expected": known.expected,
                "meaning": known.meaning,
                "searched": _searched(model.space.get(known.name)),
            }
            for known in hyperparameters_of(model).values()
        },
    }


def _kind(model: "type[Model]") -> str:
    """Say how a model learns."""
    from recvae.models import is_own
    from recvae.models.common.autoencoder import Autoencoder
    from recvae.models.common.factors import FactorModel
    from recvae.models.common.hyperparameters import hyperparameters_of

    if is_own(model):
        return "your own"
    if model.roles:
        return "blend"
    if issubclass(model, Autoencoder):
        return "network"
    if issubclass(model, FactorModel):
        return "factors"
    return "closed form" if hyperparameters_of(model) else "counts"


def _summary(model: "type[Model]") -> str:
    """Return the first line of a model's docstring."""
    return (model.__doc__ or model.paper).splitlines()[0].partition("; ")[0].rstrip(".")


def _searched(space: "Range | tuple[Any, ...] | None") -> str:
    """Describe the values that `recvae tune` searches."""
    from recvae.models.common.hyperparameters import Range

    if space is None:
        return ""
    if isinstance(space, Range):
        return f"{space.low:g} to {space.high:g}" + (" (log)" if space.log else "")
    return " ".join(",".join(map(str, value)) if isinstance(value, tuple) else f"{value}" for value in space)
