"""`recvae segments`: groups of users in the latent space of a run, and what sets them apart."""

from pathlib import Path
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

if TYPE_CHECKING:
    from recvae.items import ItemIndex
    from recvae.latent.segments import Segments


def segments(
    run: OneRun = None,
    n: Annotated[int, typer.Option("--groups", "-n", help="How many groups, 2 or more.")] = 8,
    named_by: Annotated[int, typer.Option("--named-by", help="Items that a group is named by.")] = 3,
    seeds: Annotated[int, typer.Option("--seeds", help="Other seeds of k-means, to see how stable groups are.")] = 5,
    seed: Annotated[int, typer.Option("--seed", help="Seed of k-means.")] = 0,
    output: Annotated[Path | None, typer.Option("--output", help="The group of each user: .csv or .parquet.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    data: ItsData = None,
    own: OwnModels = None,
    max_memory: MaxMemory = None,
    device: Device = DEVICE,
    data_dir: DataDir = DATA_DIR,
    runs_dir: RunsDir = RUNS_DIR,
    as_json: Json = False,
) -> None:
    """Group training users by what the model makes of them, and name each group by what it likes more than others.

    An item's lift is how many times as many users of the group have it as of all users. Groups that k-means with
    another seed does not find again are not in the data: agreement says how far it does, at most 1.

    \b
    Examples:
      recvae segments ml-1m/multvae
      recvae segments ml-1m/multvae --groups 5 --output groups.csv
    """
    import numpy as np

    from recvae.latent.segments import find_segments
    from recvae.training.monitors import ProgressBar
    from recvae_cli.opening import open_run
    from recvae_cli.tables_out import check_table, write_table

    if output is not None:
        check_table(output, overwrite)
    opened = open_run(
        run, data=data, own=own, max_memory=max_memory, device=device, data_dir=data_dir, runs_dir=runs_dir
    )
    train = opened.dataset.train
    say(f"grouping {train.shape[0]:,} training users of {opened.dataset.name}, by {opened.folder}")
    with ProgressBar("grouping users") as bar:
        found = find_segments(
            opened.bundle.model,
            train,
            n,
            named_by=named_by,
            seeds=seeds,
            seed=seed,
            max_memory=opened.max_memory,
            progress=bar,
        )
    if output is not None:
        ids = opened.dataset.train_user_ids
        users = np.arange(train.shape[0]) if ids is None else ids
        write_table(output, {"user": users.tolist(), "group": (found.labels + 1).tolist()})
        say(f"{output}: {len(users):,} users")
    if as_json:
        show_json({"folder": str(opened.folder), **_for_json(found, opened.dataset.items)})
        return
    show(_table(found, opened.dataset.items))
    say(f"agreement with {seeds} other seeds of k-means: {found.stability:.2f} of at most 1")
    say_next(command("anomalies", opened.folder, *model_words(type(opened.bundle.model))))


def _table(found: "Segments", items: "ItemIndex") -> object:
    from rich.table import Table

    table = Table("group", "users", "share", "items each", "has more of (lift)", show_lines=True)
    for number, one in enumerate(found.segments, 1):
        named = [
            f"{items.title_of(column) or items.ids[column]} ({lift:.1f})"
            for column, lift in zip(one.items.tolist(), one.lifts.tolist(), strict=True)
        ]
        names = "\n".join(named) or "no item that a tenth of them have is liked more than elsewhere"
        table.add_row(str(number), f"{one.n_users:,}", f"{one.share:.1%}", f"{one.mean_length:.0f}", names)
    return table


def _for_json(found: "Segments", items: "ItemIndex") -> dict[str, object]:
    from recvae.items import json_id

    ids = items.ids.tolist()
    groups = [
        {
            "group": number,
            "users": one.n_users,
            "share": one.share,
            "mean_length": one.mean_length,
            "items": [
                {"id": json_id(ids[column]), "title": items.title_of(column), "lift": lift, "share": share}
                for column, lift, share in zip(one.items.tolist(), one.lifts.tolist(), one.shares.tolist(), strict=True)
            ],
        }
        for number, one in enumerate(found.segments, 1)
    ]
    return {"agreement": found.stability, "groups": groups}
