"""`recvae segments`: groups of users in the latent space of a run, and what sets them apart."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recvae_cli.console import (
    DATA_DIR,
    DEVICE,
    RUNS_DIR,
    DataDir,
    Device,
    Heading,
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
    from recvae.latent.segments import Segments
    from recvae_cli.opening import Opened

_PAGES, _PICTURES = (".html", ".htm"), (".png", ".svg", ".pdf")  # a copy: --help imports no library


def segments(
    run: OneRun = None,
    n: Annotated[int, typer.Option("--groups", "-n", help="How many groups, 2 or more.")] = 8,
    named_by: Annotated[int, typer.Option("--named-by", help="Items that a group is named by.")] = 3,
    seeds: Annotated[int, typer.Option("--seeds", help="Other seeds of k-means, to see how stable groups are.")] = 5,
    seed: Annotated[int, typer.Option("--seed", help="Seed of k-means.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", help=f"The group of each user: .csv, .parquet; a page: .html; a map: {', '.join(_PICTURES)}."
        ),
    ] = None,
    how: Annotated[
        str | None,
        typer.Option("--map", metavar="WAY", help="How a page or map is drawn: pca or umap.", show_default="pca"),
    ] = None,
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
      recvae segments ml-1m/multvae --groups 5 --output groups.html
      recvae segments ml-1m/multvae --output groups.png --map umap
    """
    from recvae.display import plural
    from recvae.latent.segments import find_segments
    from recvae.models.common.densities import DensityModel
    from recvae.reports.segments import ON_PAGE
    from recvae.training.monitors import ProgressBar
    from recvae_cli.opening import open_run

    _check(output, overwrite, how)
    opened = open_run(
        run, data=data, own=own, max_memory=max_memory, device=device, data_dir=data_dir, runs_dir=runs_dir
    )
    train = opened.dataset.train
    users = plural(train.shape[0], "training user")
    with ProgressBar("grouping users") as bar:
        heading = Heading(f"grouping {users} of {opened.dataset.name}, by {opened.folder}", bar)
        found = find_segments(
            opened.bundle.model,
            train,
            n,
            named_by=max(named_by, ON_PAGE) if output is not None and named_by > 0 else named_by,
            seeds=seeds,
            seed=seed,
            max_memory=opened.max_memory,
            progress=heading,
        )
    if output is not None:
        typed = [
            "--groups",
            n,
            "--named-by",
            named_by,
            "--seeds",
            seeds,
            "--seed",
            seed,
            *(["--map", how] if how else []),
        ]
        _write(output, opened, found, _Asked(how or "pca", seed, seeds, named_by, typed))
    if as_json:
        show_json({"folder": str(opened.folder), **_for_json(found, opened.dataset.items, named_by)})
        return
    show(_table(found, opened.dataset.items, named_by))
    say(f"agreement with {plural(seeds, 'other seed')} of k-means: {found.stability:.2f} of at most 1")
    verb = "anomalies" if isinstance(opened.bundle.model, DensityModel) else "evaluate"  # als finds no odd users
    say_next(command(verb, opened.folder, *model_words(type(opened.bundle.model))))


@dataclass(frozen=True)
class _Asked:
    """What was typed: the way to draw maps, the seeds, items that name a group, and all of it again as words."""

    how: str
    seed: int
    seeds: int
    named_by: int
    words: list[object]


def _check(output: Path | None, overwrite: bool, how: str | None) -> None:
    """Refuse what cannot be written or drawn, before any work."""
    from recvae.errors import UsageError
    from recvae.latent.projections import check_projection
    from recvae_cli.tables_out import check_table

    ending = "" if output is None else output.suffix.lower()
    is_drawn = ending in (*_PAGES, *_PICTURES)
    if how is not None:
        check_projection(how)
        if not is_drawn:
            raise UsageError(f"got --map {how} without a page or a map; add --output groups.html, or groups.png")
    if output is None:
        return
    check_table(output, overwrite, also=(*_PAGES, *_PICTURES))
    if is_drawn:
        from recvae.reports.canvas import styled

        with styled():  # a missing matplotlib is said before users are grouped
            pass


def _write(output: Path, opened: "Opened", found: "Segments", asked: _Asked) -> None:
    """Write the group of each user, the page, or the map, whichever the name says."""
    from recvae.display import plural
    from recvae_cli.tables_out import write_table

    if output.suffix.lower() not in (*_PAGES, *_PICTURES):
        from recvae_cli.opening import train_users

        users = train_users(opened.dataset)
        write_table(output, {"user": users, "group": (found.labels + 1).tolist()})
        say(f"{output}: {plural(len(users), 'user')}")
        return
    from recvae.bundles.card import read_card
    from recvae.reports.canvas import save
    from recvae.reports.segments import SegmentsReport, segments_map, segments_page
    from recvae.storage.files import write_text

    picture = segments_map(found, opened.dataset.items, asked.how, seed=asked.seed)
    if found.item_vectors is None:
        say(f"no map of items: {opened.bundle.model.name} has no vectors of them")
    if output.suffix.lower() in _PICTURES:
        save(picture, output)
        say(f"map: {output}")
        return
    folder, own = opened.folder.resolve(), model_words(type(opened.bundle.model))
    run = f"{folder.parent.name}/{folder.name}"  # of the whole folder, which may be private, this much
    report = SegmentsReport(
        found=found,
        dataset=opened.dataset,
        run=run,
        bundle=opened.bundle,
        card=read_card(opened.folder),
        picture=picture,
        how=asked.how,
        seeds=asked.seeds,
        named_by=asked.named_by,
        command=shlex.join(["recvae", "segments", run, *own, *map(str, asked.words), "--output", output.name]),
    )
    write_text(output, segments_page(report))
    say(f"page: {output}")


def _table(found: "Segments", items: "ItemIndex", named_by: int) -> object:
    from rich.table import Table

    from recvae.latent.segments import LEAST_USERS

    table = Table("group", "users", "share", "items each", "has more of (lift)", show_lines=True)
    for number, one in enumerate(found.segments, 1):
        named = [
            f"{name_of(items, column)} ({lift:.1f})"
            for column, lift in zip(one.items[:named_by].tolist(), one.lifts[:named_by].tolist(), strict=True)
        ]
        too_few = f"not named: fewer than {LEAST_USERS} users" if one.is_small else ""
        names = "\n".join(named) or too_few or "no item that a tenth of them have is liked more than elsewhere"
        table.add_row(str(number), f"{one.n_users:,}", f"{one.share:.1%}", f"{one.mean_length:.0f}", names)
    return table


def _for_json(found: "Segments", items: "ItemIndex", named_by: int) -> dict[str, object]:
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
                for column, lift, share in zip(
                    *(part[:named_by].tolist() for part in (one.items, one.lifts, one.shares)), strict=True
                )
            ],
        }
        for number, one in enumerate(found.segments, 1)
    ]
    return {"agreement": found.stability, "groups": groups}
