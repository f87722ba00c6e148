"""`recvae similar`: the items most like one."""

from typing import Annotated

import typer

from recvae_cli.console import RUNS_DIR, Json, RunsDir, say, say_next, show, show_json


def similar(
    run: Annotated[str, typer.Argument(help="Folder, DATA/NAME or NAME of a run.")],
    item: Annotated[str, typer.Argument(help="Id of an item.")],
    k: Annotated[int, typer.Option("-k", "--k", help="How many items.")] = 10,
    json_: Json = False,
    runs_dir: RunsDir = RUNS_DIR,
) -> None:
    """List the items most similar to one: by decoder weights, by B of EASE, by factors of ALS.

    \b
    Example:
      recvae similar ml-1m/multvae 318 -k 5
    """
    from rich.table import Table

    from recvae.recommenders.recommender import Recommender
    from recvae.runs.finding import find_run

    folder = find_run(runs_dir, run)
    recommender = Recommender.load(folder)
    found = recommender.similar_items(item, k)
    rows = list(zip(found.ids, found.titles, found.scores, strict=True))
    if json_:
        show_json([{"id": key, "title": title, "similarity": score} for key, title, score in rows])
        return
    column = recommender.items.column_of(item)
    say(f"like {(None if column is None else recommender.items.title_of(column)) or item}, by {recommender.model.name}")
    table = Table("", "id", "title", "similarity")
    for place, (key, title, score) in enumerate(rows, 1):
        table.add_row(str(place), str(key), title or "", f"{score:.3f}")
    show(table)
    say_next(f"recvae recommend {folder} --items {item} --explain")
