"""`recvae similar`: the items most similar to one."""

from typing import Annotated

import typer

from recvae_cli import completion
from recvae_cli.console import (
    DEVICE,
    RUNS_DIR,
    Device,
    Json,
    OwnModels,
    RunsDir,
    command,
    imported_models,
    model_words,
    say,
    say_next,
    show,
    show_json,
)
from recvae_cli.ids import typed_ids


def similar(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[RUN] ITEM",
            help="A run (folder, DATA/NAME or NAME; by default the newest), and the id of an item; put -- before an id "
            "that begins with a dash.",
            show_default=False,
            autocompletion=completion.runs,
        ),
    ],
    k: Annotated[int, typer.Option("-k", "--k", help="Number of items.")] = 10,
    own: OwnModels = None,
    device: Device = DEVICE,
    runs_dir: RunsDir = RUNS_DIR,
    as_json: Json = False,
) -> None:
    """List the items most similar to an item.

    \b
    Examples:
      recvae similar 318
      recvae similar ml-1m/multvae 318 -k 5
      recvae similar -k 5 -- -318
    """
    from rich.table import Table

    from recvae.errors import UsageError
    from recvae.items import json_id
    from recvae.recommenders.recommender import Recommender
    from recvae.runs.finding import find_run

    if len(words) > 2:
        raise UsageError(f"got {len(words)} arguments, expected ITEM, or RUN and ITEM; quote an id that has spaces")
    run, item = [None, *words][-2:]
    folder = find_run(runs_dir, run)
    recommender = Recommender.load(folder, device, models=imported_models(own))
    found = recommender.similar_items(str(item), k)
    rows = list(zip(found.ids, found.titles, found.scores, strict=True))
    if as_json:
        show_json([{"id": json_id(key), "title": title, "similarity": score} for key, title, score in rows])
        return
    column = recommender.items.column_of(item)
    title = None if column is None else recommender.items.title_of(column)
    say(f"similar to {title or item}, by {recommender.model.name} from {folder}")
    table = Table("", "id", "title", "similarity")
    for place, (key, name, score) in enumerate(rows, 1):
        table.add_row(str(place), str(key), name or "", f"{score:.3f}")
    show(table)
    more = model_words(type(recommender.model))
    say_next(command("recommend", folder, "--items", typed_ids([item]), "--explain", *more))
