"""`recvae models`: the models, their papers and hyperparameters."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from recvae_cli.console import Json, command, say_next, show, show_json

if TYPE_CHECKING:
    from recvae.models.common.hyperparameters import Range


def models(
    names: Annotated[list[str] | None, typer.Argument(metavar="MODEL", help="By default all.")] = None,
    as_json: Json = False,
) -> None:
    """List the models: paper, hyperparameters (--set NAME=VALUE), and what `recvae tune` searches.

    Example: recvae models recvae multvae
    """
    from rich.table import Table
    from rich.text import Text

    from recvae.models import MODELS, model_class
    from recvae.models.common.hyperparameters import hyperparameters_of

    chosen = {name: model_class(name) for name in names or MODELS}
    if as_json:
        show_json(
            {
                name: {
                    "paper": model.paper,
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
                for name, model in chosen.items()
            }
        )
        return
    for name, model in chosen.items():
        show(Text.assemble((name, "bold"), f"  {model.paper}"))
        known = hyperparameters_of(model)
        if not known:
            show("  no hyperparameters\n")
            continue
        table = Table(box=None, padding=(0, 2), show_header=True)
        for heading in ("hyperparameter", "default", "searched", "meaning", "expected"):
            table.add_column(heading)
        for parameter in known.values():
            default = (
                ",".join(map(str, parameter.default)) if isinstance(parameter.default, tuple) else parameter.default
            )
            searched = _searched(model.space.get(parameter.name))
            table.add_row(parameter.name, str(default) or "-", searched, parameter.meaning, parameter.expected)
        show(table, "")
    first = next(iter(names or ["multvae"]))
    roles = [word for role in model_class(first).roles for word in ("--set", f"{role}=RUN")]
    say_next(command("train", "--model", first, *roles))


def _searched(space: "Range | tuple[Any, ...] | None") -> str:
    """Describe the values that `recvae tune` searches."""
    from recvae.models.common.hyperparameters import Range

    if space is None:
        return ""
    if isinstance(space, Range):
        return f"{space.low:g} to {space.high:g}" + (" (log)" if space.log else "")
    return " ".join(",".join(map(str, value)) if isinstance(value, tuple) else f"{value}" for value in space)
