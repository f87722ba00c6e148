"""`recvae recommend`: items for one history, or for a file of histories."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recvae_cli import histories
from recvae_cli.console import (
    DEVICE,
    RUNS_DIR,
    Device,
    Json,
    MaxMemory,
    OneRun,
    OwnModels,
    RunsDir,
    command,
    imported_models,
    memory_limit,
    model_words,
    say,
    say_next,
    show,
    show_json,
)
from recvae_cli.engines import is_spark, recommend_with_spark
from recvae_cli.ids import QUOTING, ids_of, named, typed_id

if TYPE_CHECKING:
    from recvae.items import ItemIndex
    from recvae.recommenders.answers import Explanation, Recommendations
    from recvae.recommenders.recommender import Recommender


def recommend(
    run: OneRun = None,
    items: Annotated[
        str | None,
        typer.Option(help="A history: ids separated by commas, e.g. 318,296; an id with a comma in double quotes."),
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", help="Number of items.")] = 10,
    exclude: Annotated[str, typer.Option(help="Ids never to recommend, written as in --items.")] = "",
    allow: Annotated[
        str | None, typer.Option(help="Recommend only these ids, written as in --items.", show_default="all")
    ] = None,
    seen: Annotated[bool, typer.Option("--seen/--no-seen", help="Also recommend items already seen.")] = False,
    diversify: Annotated[float, typer.Option(help="Variety, from 0 (off) to 1 (maximum).")] = 0.0,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show which history items led to each recommendation.")
    ] = False,
    source: histories.Source = None,
    user_col: histories.UserCol = None,
    item_col: histories.ItemCol = None,
    header: histories.Header = None,
    sep: histories.Sep = None,
    quote: histories.Quote = None,
    encoding: histories.Encoding = None,
    null: histories.Null = None,
    on_bad_row: histories.OnBadRow = None,
    output: Annotated[
        str | None, typer.Option(metavar="PATH", help="Output file for the recommendations: .parquet, .csv or .jsonl.")
    ] = None,
    engine: Annotated[str, typer.Option(help="local, or spark: executors read --input and write --output.")] = "local",
    spark_conf: Annotated[
        list[str] | None, typer.Option(help="A setting of --engine spark, e.g. spark.master=local[4] (repeatable).")
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", help="torch, or index: search the index of `recvae export --format index`.")
    ] = "torch",
    as_json: Json = False,
    own: OwnModels = None,
    max_memory: MaxMemory = None,
    device: Device = DEVICE,
    runs_dir: RunsDir = RUNS_DIR,
) -> None:
    """Recommend items to users, also to users who were not in training.

    \b
    Examples:
      recvae recommend --items 318,296 -k 5 --explain
      recvae recommend ml-1m/recvae --items 318 --exclude 296 --diversify 0.3
      recvae recommend --items '"Toy Story, The",Heat'
      recvae recommend --input histories.parquet --output recs.parquet -k 100
      recvae recommend --input histories.csv --output recs.jsonl --explain
      recvae recommend --format index --items 318,296
      recvae recommend --engine spark --input s3a://logs/ --output s3a://top/
    """
    from recvae.errors import UsageError
    from recvae.recommenders.recommender import Recommender
    from recvae.runs.finding import find_run

    _check_files(items, source, output)
    known = histories.known_options(source, user_col, item_col, sep, header, quote, encoding, null, on_bad_row)
    if source is not None and as_json:
        raise UsageError("got --json with --input, expected one of the two; for JSON use --output recs.jsonl")
    by_index = _is_index(format_)
    folder = find_run(runs_dir, run)
    options: dict[str, Any] = {
        "k": k,
        "exclude": ids_of(exclude, "--exclude"),
        "allow": None if allow is None else ids_of(allow, "--allow"),
        "filter_seen": not seen,
        "diversify": diversify,
    }
    if is_spark(engine, spark_conf):
        others = {"--explain": explain, "--model": own, "--max-memory": max_memory, "--format": by_index}
        others |= {"--device": device != DEVICE}
        _recommend_with_spark(folder, source, output, options, known, spark_conf or [], others)
        return
    models, limit = imported_models(own), memory_limit(max_memory)
    recommender = Recommender.load(folder, device, limit, models=models, retrieval=by_index)
    _say_unknown(recommender.items, options)
    if source is not None and output is not None:
        _recommend_file(recommender, folder, Path(source), Path(output), options, explain, known, by_index)
        return
    history = ids_of(items or "", "--items")
    found = recommender.recommend(history, **options)
    reasons = recommender.explain(history, found.ids) if explain else None
    if as_json:
        show_json(found.to_json(reasons))
        return
    say(f"{recommender.model.name} from {folder}{', by its index' if by_index else ''}")
    _print(recommender, history, found, reasons)
    _say_next(recommender, folder, found, by_index)


def _check_files(items: str | None, source: str | None, output: str | None) -> None:
    """Refuse an output without an input, and anything but one history or a file of histories."""
    from recvae.errors import UsageError

    if output is not None and source is None:
        raise UsageError(
            f"got --output {output} without --input; for one history, use --json > {Path(output).stem}.json"
        )
    if (items is None) == (source is None) or (source is None) != (output is None):
        raise UsageError(
            "expected --items 318,296, or --input histories.parquet with --output recs.parquet; give one of the two"
        )


def _say_next(recommender: "Recommender", folder: Path, found: "Recommendations", by_index: bool) -> None:
    if not found.ids:
        say("nothing to recommend: every item was already seen, excluded, or is not among the items of --allow")
        return
    more = model_words(type(recommender.model))
    similar = [command("similar", *more, folder, *typed_id(found.ids[0]))]
    served = command("serve", folder, *(["--format", "index"] if by_index else []), *more)
    say_next(*(similar if recommender.model.has_similarities else []), served, command("inspect", folder))


def _say_unknown(items: "ItemIndex", options: dict[str, Any]) -> None:
    """Say which ids of --exclude and --allow are not in the model: these change nothing, and may be mistyped."""
    from recvae.display import plural, shown_id

    for name in ("exclude", "allow"):
        unknown = [item for item in options[name] or () if items.column_of(item) is None]
        if unknown:
            count = plural(len(unknown), "id is", "ids are")
            example = shown_id(items.id_of(0))
            say(f"--{name}: {count} not in the model and without effect: {named(unknown)}; its ids look like {example}")


def _is_index(format_: str) -> bool:
    """Whether items are found by an index; refuses the other formats, which are served, or loaded in Python."""
    from recvae.bundles.exported import INDEX
    from recvae.errors import UsageError

    if format_ in ("onnx", "onnx-int8"):
        raise UsageError(
            f"got --format {format_}, expected torch or index; an ONNX export is for services without torch: use "
            f"`recvae serve --format {format_}`, or recvae.serving.onnx.OnnxRecommender"
        )
    if format_ not in ("torch", INDEX):
        raise UsageError(f"got --format {format_}, expected torch or index")
    return format_ == INDEX


def _recommend_with_spark(
    folder: Path,
    source: str | None,
    output: str | None,
    options: dict[str, Any],
    known: dict[str, Any],
    settings: list[str],
    others: dict[str, Any],
) -> None:
    from recvae.bundles.bundle import ITEMS
    from recvae.errors import UsageError
    from recvae.items import ItemIndex

    if source is None or output is None:
        raise UsageError("got --engine spark for one history, expected --input and --output; leave out --engine")
    columns = {"user_col": "user", "item_col": "item", "null": "null"}
    misplaced = [name for name, value in others.items() if value]
    misplaced += ["--" + key.replace("_", "-") for key in known if key not in columns]
    if misplaced:
        raise UsageError(f"got {', '.join(misplaced)} with --engine spark, where it has no effect; leave it out")
    if options["exclude"] or options["allow"]:
        _say_unknown(ItemIndex.read(folder / ITEMS), options)
    found = {columns[key]: tuple(value) if key == "null" else value for key, value in known.items()}
    recommend_with_spark(folder, source, output, options, found, settings)


def _recommend_file(
    recommender: "Recommender",
    folder: Path,
    source: Path,
    output: Path,
    options: dict[str, Any],
    explain: bool,
    known: dict[str, Any],
    by_index: bool,
) -> None:
    from recvae.bundles.card import CARD
    from recvae.bundles.exported import EXPORT_CARD, INDEX
    from recvae.recommenders.answer_files import recommend_file
    from recvae.recommenders.history_files import options_like
    from recvae.storage.integrity import sha256_of
    from recvae.training.monitors import ProgressBar
    from recvae_cli.preparing import log_format

    recommender.recommend_batch([], **options)  # refuse wrong options before the file is read
    identity = {"run": sha256_of(folder / CARD), **options}
    identity |= {"index": sha256_of(folder / INDEX / EXPORT_CARD)} if by_index else {}  # another may find other items
    try:
        with ProgressBar("recommending") as bar:
            done = recommend_file(
                source,
                output,
                lambda block: recommender.recommend_batch(block, **options),
                identity,
                bar,
                explain=recommender.explain if explain else None,
                options=options_like(recommender.manifest, log_format(known), recommender.items),
                items=recommender.items,
            )
    except KeyboardInterrupt:
        say(f"interrupted; run the same command again to continue (finished users are kept next to {output})")
        raise typer.Exit(130) from None
    histories.say_answers(str(output), done, recommender.item_ids[0])


def _print(
    recommender: "Recommender", history: list[str], found: "Recommendations", reasons: "list[Explanation] | None"
) -> None:
    from rich.table import Table

    known = [column for column in map(recommender.items.column_of, history) if column is not None]
    titles = [recommender.items.title_of(column) or str(recommender.items.ids[column]) for column in known]
    if found.fallback:
        show("none of these items is in the model; showing the most popular instead")
    else:
        show("for " + "; ".join(titles))
    if found.unknown:
        show(f"unknown items: {', '.join(map(str, found.unknown))}")
        if any(len(str(item).split()) > 1 for item in found.unknown):
            say(f"separate ids by commas, e.g. 318,296, and {QUOTING}")
    table = Table()
    score_name = "training users" if found.fallback else "score"
    for name, side in (("", "right"), ("id", "right"), ("title", "left"), (score_name, "right")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    if reasons is not None:
        table.add_column("because of")
    for place, (item, title, score) in enumerate(zip(found.ids, found.titles, found.scores, strict=True)):
        row = [str(place + 1), str(item), title or "", f"{score:,.0f}" if found.fallback else f"{score:.3f}"]
        if reasons is not None:
            row.append("; ".join(f"{name or key} {value:+.2f}" for key, name, value in reasons[place].reasons[:3]))
        table.add_row(*row)
    show(table)
