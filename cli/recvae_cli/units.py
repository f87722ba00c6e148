"""`recvae units`: what the units of a run's latent space stand for."""

from typing import TYPE_CHECKING, Annotated

import typer

from recvae_cli.console import (
    DATA_DIR,
    DEVICE,
    RUNS_DIR,
    DataDir,
    Device,
    ItsData,
    Json,
    MaxMemory,
    OneRun,
    OwnModels,
    RunsDir,
    command,
    model_words,
    say,
    say_next,
    show,
    show_json,
)
from recvae_cli.ids import name_of

if TYPE_CHECKING:
    from recvae.items import ItemIndex
    from recvae.latent.units import Unit

_SHOWN, _NAMED = 10, 3  # units in the table, and items of each side


def units(
    run: OneRun = None,
    unit: Annotated[
        int | None,
        typer.Option("--unit", help="Only this unit, numbered from 0.", show_default="the ten with the largest KL"),
    ] = None,
    k: Annotated[
        int, typer.Option("-k", "--k", help="Items to name on either side, with --unit or --json; else three.")
    ] = 10,
    sigmas: Annotated[
        float,
        typer.Option(
            "--sigmas", help="How far to move a unit, in standard deviations over users; below 0: the other way."
        ),
    ] = 2.0,
    data: ItsData = None,
    own: OwnModels = None,
    max_memory: MaxMemory = None,
    device: Device = DEVICE,
    data_dir: DataDir = DATA_DIR,
    runs_dir: RunsDir = RUNS_DIR,
    as_json: Json = False,
) -> None:
    """Move one unit of the mean code after the other, and print which items become more and less probable.

    Without --unit, the ten active units with the largest KL divergence (spread, where codes are points) are shown, each
    with three items on either side; --json has all active units, each with -k items on either side.

    \b
    Examples:
      recvae units ml-1m/multvae
      recvae units ml-1m/multvae --unit 17 -k 20
    """
    from recvae.display import plural
    from recvae.latent.units import latent_units
    from recvae_cli.opening import open_run

    opened = open_run(
        run, data=data, own=own, max_memory=max_memory, device=device, data_dir=data_dir, runs_dir=runs_dir
    )
    model, train, items = opened.bundle.model, opened.dataset.train, opened.dataset.items
    found = latent_units(model, train, k, unit=unit, sigmas=sigmas, max_memory=opened.max_memory)
    how_far = f"{sigmas:g} standard deviation{'' if abs(sigmas) == 1 else 's'}"
    say(f"units of {opened.folder}, moved by {how_far} over {plural(train.shape[0], 'training user')}")
    if as_json:
        show_json({"folder": str(opened.folder), "sigmas": sigmas, "units": [_for_json(one, items) for one in found]})
        return
    show(_all(found, items) if unit is None else _one(found[0], items))
    if unit is None:
        say(f"{plural(len(found), 'active unit')}; {min(_SHOWN, len(found))} shown")
    say_next(command("segments", opened.folder, *model_words(type(model))))


def _named(columns: list[int], changes: list[float], items: "ItemIndex", most: int) -> list[str]:
    pairs = list(zip(columns, changes, strict=True))[:most]
    return [f"{name_of(items, column)} ({change:+.1f})" for column, change in pairs]


def _all(found: "list[Unit]", items: "ItemIndex") -> object:
    from rich.table import Table

    table = Table("unit", "KL", "spread", "rises (nats)", "falls (nats)", show_lines=True)
    for one in found[:_SHOWN]:
        up = _named(one.rises.tolist(), one.rises_by.tolist(), items, _NAMED)
        down = _named(one.falls.tolist(), one.falls_by.tolist(), items, _NAMED)
        kl = "-" if one.kl is None else f"{one.kl:.2f}"
        table.add_row(str(one.unit), kl, f"{one.spread:.2f}", "\n".join(up), "\n".join(down))
    return table


def _one(one: "Unit", items: "ItemIndex") -> object:
    from itertools import zip_longest

    from rich.table import Table

    table = Table(f"unit {one.unit}: rises (nats)", "falls (nats)")
    up = _named(one.rises.tolist(), one.rises_by.tolist(), items, len(one.rises))
    down = _named(one.falls.tolist(), one.falls_by.tolist(), items, len(one.falls))
    for left, right in zip_longest(up, down, fillvalue=""):
        table.add_row(left, right)
    return table


def _for_json(one: "Unit", items: "ItemIndex") -> dict[str, object]:
    from recvae.items import json_id

    ids = items.ids.tolist()

    def side(columns: list[int], changes: list[float]) -> list[dict[str, object]]:
        return [
            {"id": json_id(ids[column]), "title": items.title_of(column), "change": change}
            for column, change in zip(columns, changes, strict=True)
        ]

    return {
        "unit": one.unit,
        "kl": one.kl,
        "spread": one.spread,
        "rises": side(one.rises.tolist(), one.rises_by.tolist()),
        "falls": side(one.falls.tolist(), one.falls_by.tolist()),
    }
