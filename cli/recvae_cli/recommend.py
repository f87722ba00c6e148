"""`recvae recommend`: items for a history at hand, or for a file of histories."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recvae_cli.console import (
    DEVICE,
    RUNS_DIR,
    Device,
    Json,
    MaxMemory,
    RunsDir,
    memory_limit,
    say,
    say_next,
    show,
    show_json,
)

if TYPE_CHECKING:
    from recvae.recommenders.answers import Explanation, Recommendations
    from recvae.recommenders.recommender import Recommender


def recommend(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Folder, DATA/NAME or NAME of a run; by default the newest.")
    ] = None,
    items: Annotated[str | None, typer.Option(help="A history: ids separated by commas, as 318,296.")] = None,
    k: Annotated[int, typer.Option("-k", "--k", help="How many items.")] = 10,
    exclude: Annotated[str, typer.Option(help="Ids never to return, separated by commas.")] = "",
    allow: Annotated[str | None, typer.Option(help="The only ids that may be returned.", show_default="all")] = None,
    seen: Annotated[
        bool, typer.Option("--seen/--no-seen", help="Whether items of the history may come again.")
    ] = False,
    diversify: Annotated[float, typer.Option(help="Weight of being unlike the items above, from 0 to 1.")] = 0.0,
    explain: Annotated[bool, typer.Option("--explain", help="Say which items of the history speak for each.")] = False,
    source: Annotated[
        Path | None, typer.Option("--input", help="Histories of many users: .parquet, .csv, .tsv or .jsonl.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Where to write theirs: .parquet, .csv or .jsonl.")] = None,
    json_: Json = False,
    max_memory: MaxMemory = None,
    device: Device = DEVICE,
    runs_dir: RunsDir = RUNS_DIR,
) -> None:
    """Recommend items to users that were not in training.

    \b
    Examples:
      recvae recommend --items 318,296 -k 5 --explain
      recvae recommend ml-1m/recvae --items 318 --exclude 296 --diversify 0.3
      recvae recommend --input histories.parquet --output recs.parquet -k 100
      recvae recommend --input histories.csv --output recs.jsonl --explain
    """
    from recvae.errors import UsageError
    from recvae.recommenders.recommender import Recommender
    from recvae.runs.finding import find_run

    if (items is None) == (source is None) or (source is None) != (output is None):
        raise UsageError(
            "expected --items 318,296, or --input histories.parquet with --output recs.parquet; give one of the two"
        )
    if source is not None and json_:
        raise UsageError("got --json with --input, expected one of the two; for JSON name the output recs.jsonl")
    folder = find_run(runs_dir, run)
    recommender = Recommender.load(folder, device, memory_limit(max_memory))
    options: dict[str, Any] = {
        "k": k,
        "exclude": _ids(exclude),
        "allow": None if allow is None else _ids(allow),
        "filter_seen": not seen,
        "diversify": diversify,
    }
    if source is not None and output is not None:
        _recommend_file(recommender, folder, source, output, options, explain)
        return
    history = _ids(items or "")
    found = recommender.recommend(history, **options)
    reasons = recommender.explain(history, found.ids) if explain else None
    if json_:
        show_json(found.to_json(reasons))
        return
    say(f"{recommender.model.name} from {folder}")
    _print(recommender, history, found, reasons)
    if found.ids:
        say_next(f"recvae similar {folder} {found.ids[0]}", f"recvae serve {folder}", f"recvae inspect {folder}")


def _ids(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _recommend_file(
    recommender: "Recommender", folder: Path, source: Path, output: Path, options: dict[str, Any], explain: bool
) -> None:
    from recvae.bundles.card import CARD
    from recvae.recommenders.answer_files import recommend_file
    from recvae.storage.integrity import sha256_of
    from recvae.training.monitors import ProgressBar

    recommender.recommend_batch([], **options)  # wrong options are not the file's fault
    identity = {"run": sha256_of(folder / CARD), **options}
    try:
        with ProgressBar("recommending") as bar:
            done = recommend_file(
                source,
                output,
                lambda block: recommender.recommend_batch(block, **options),
                identity,
                lambda n: bar(n, None, f"{n:,} users"),
                explain=recommender.explain if explain else None,
            )
    except KeyboardInterrupt:
        say(f"stopped; finished blocks are kept beside {output}: type it again to go on")
        raise typer.Exit(130) from None
    again = f", {done.before:,} of them from the job that was interrupted" if done.before else ""
    say(f"{output}: {done.users:,} users{again}")
    if done.fallback:
        say(f"{done.fallback:,} users got the most popular items, since nothing of their histories is known")
    if done.unknown:
        say(f"{done.unknown:,} ids of histories are not known to the model, whose ids are as {recommender.item_ids[0]}")
    if done.without:
        where = "an empty list" if output.suffix == ".jsonl" else "no row"
        say(f"{done.without:,} users have {where}: every item is one of their own or excluded")


def _print(
    recommender: "Recommender", history: list[str], found: "Recommendations", reasons: "list[Explanation] | None"
) -> None:
    from rich.table import Table

    known = [column for column in map(recommender.items.column_of, history) if column is not None]
    titles = [recommender.items.title_of(column) or str(recommender.items.ids[column]) for column in known]
    if found.fallback:
        show("nothing of the history is known to the model: these are the most popular items")
    else:
        show("for " + "; ".join(titles))
    if found.unknown:
        show(f"not known to the model: {', '.join(map(str, found.unknown))}")
        if any(len(str(item).split()) > 1 for item in found.unknown):
            say("ids are separated by commas, as 318,296")
    table = Table()
    for name, side in (("", "right"), ("id", "right"), ("title", "left"), ("score", "right")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    if reasons is not None:
        table.add_column("because of")
    for place, (item, title, score) in enumerate(zip(found.ids, found.titles, found.scores, strict=True)):
        row = [str(place + 1), str(item), title or "", f"{score:.3f}"]
        if reasons is not None:
            row.append("; ".join(f"{name or key} {value:+.2f}" for key, name, value in reasons[place].reasons[:3]))
        table.add_row(*row)
    show(table)
