"""`recvae preprocess`: from a log, or a known data set, to a data set that models train on."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recvae_cli import completion
from recvae_cli.console import DATA_DIR, DataDir, Json, say
from recvae_cli.engines import is_spark, preprocess_with_spark
from recvae_cli.item_features import add_features, check_features
from recvae_cli.preparation_report import report
from recvae_cli.preparing import BELONGS_TO, kind_of, not_left_out, prepared_by, refuse_misplaced

if TYPE_CHECKING:
    pass

_READING, _FILES, _SPLIT = "How the log is read", "Splits made elsewhere", "Filters and split"


def preprocess(
    log: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME|PATH...",
            help="A known data set (see `recvae datasets`); or files, folders, 'globs', or - for a pipe.",
            autocompletion=completion.logs,
        ),
    ] = None,
    source: Annotated[
        Path | None, typer.Option(help="For a known data set: its folder, zip, tar or file, instead of a download.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the result; by default the name of the log.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a data set of that name.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="For a known data set: also with counts far from the published ones.")
    ] = False,
    titles: Annotated[Path | None, typer.Option(help="A file with item ids and titles, for your own log.")] = None,
    title_col: Annotated[str | None, typer.Option(help="Column of titles in --titles.")] = None,
    features: Annotated[
        Path | None, typer.Option(help="A file with item ids and features; or embeddings, .npy or safetensors.")
    ] = None,
    feature_col: Annotated[
        list[str] | None, typer.Option(help="A column of --features (repeatable).", show_default="all that can be used")
    ] = None,
    id_col: Annotated[
        str | None, typer.Option(help="Column of item ids in --features and --titles; by default found by name.")
    ] = None,
    user_col: Annotated[
        str | None, typer.Option(help="Column of user ids; by default found by name.", rich_help_panel=_READING)
    ] = None,
    item_col: Annotated[
        str | None, typer.Option(help="Column of item ids; by default found by name.", rich_help_panel=_READING)
    ] = None,
    rating_col: Annotated[
        str | None, typer.Option(help="Column of ratings, if any; by default found by name.", rich_help_panel=_READING)
    ] = None,
    time_col: Annotated[
        str | None, typer.Option(help="Column of times, if any; by default found by name.", rich_help_panel=_READING)
    ] = None,
    no_rating: Annotated[
        bool, typer.Option("--no-rating", help="Read no ratings: every row counts.", rich_help_panel=_READING)
    ] = False,
    no_time: Annotated[bool, typer.Option("--no-time", help="Read no times.", rich_help_panel=_READING)] = False,
    sep: Annotated[
        str | None,
        typer.Option(help="Separator: any character, :: tab or space; by default guessed.", rich_help_panel=_READING),
    ] = None,
    header: Annotated[
        bool | None,
        typer.Option("--header/--no-header", help="Whether the first line names columns.", rich_help_panel=_READING),
    ] = None,
    quote: Annotated[
        str | None,
        typer.Option(help="Character around values, or none; by default guessed.", rich_help_panel=_READING),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(help="Encoding of the text, e.g. latin-1.", show_default="utf-8", rich_help_panel=_READING),
    ] = None,
    null: Annotated[
        list[str] | None,
        typer.Option(
            help="A word that means a missing id, besides NULL, NaN, ... (repeatable).", rich_help_panel=_READING
        ),
    ] = None,
    time_format: Annotated[
        str | None,
        typer.Option(
            help="How times are written, e.g. '%d/%m/%Y %H:%M'; by default guessed.", rich_help_panel=_READING
        ),
    ] = None,
    on_bad_row: Annotated[
        str | None,
        typer.Option(
            help="A malformed row, or a rating or time that cannot be read: stop or skip.",
            show_default="stop",
            rich_help_panel=_READING,
        ),
    ] = None,
    min_rating: Annotated[
        float | None,
        typer.Option(
            help="Lowest rating that counts; 0 keeps all.",
            show_default="4 for stars from 1 to 5",
            rich_help_panel=_SPLIT,
        ),
    ] = None,
    min_user_items: Annotated[
        int | None, typer.Option(help="Drop users with fewer items.", show_default="5", rich_help_panel=_SPLIT)
    ] = None,
    min_item_users: Annotated[
        int | None, typer.Option(help="Drop items with fewer users.", show_default="0", rich_help_panel=_SPLIT)
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="strong, holdout, leave-last-out or time.", show_default="strong", rich_help_panel=_SPLIT),
    ] = None,
    heldout_users: Annotated[
        int | None,
        typer.Option(
            help="Users in each of validation and test (strong).",
            show_default="10 %, at most 10,000",
            rich_help_panel=_SPLIT,
        ),
    ] = None,
    target_share: Annotated[
        float | None,
        typer.Option(
            help="Share of a user's items that are targets (strong, holdout).",
            show_default="0.2",
            rich_help_panel=_SPLIT,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split; 98765 is the paper's.", rich_help_panel=_SPLIT)] = 98765,
    train: Annotated[
        Path | None, typer.Option(help="The training part of a split made elsewhere.", rich_help_panel=_FILES)
    ] = None,
    valid: Annotated[
        Path | None, typer.Option(help="The validation part, if there is one.", rich_help_panel=_FILES)
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="The test part of a split made elsewhere.", rich_help_panel=_FILES)
    ] = None,
    valid_fold_in: Annotated[
        Path | None,
        typer.Option(help="Known items of validation users who are not in --train.", rich_help_panel=_FILES),
    ] = None,
    valid_targets: Annotated[
        Path | None, typer.Option(help="Hidden items of these users.", rich_help_panel=_FILES)
    ] = None,
    test_fold_in: Annotated[
        Path | None, typer.Option(help="Known items of test users who are not in --train.", rich_help_panel=_FILES)
    ] = None,
    test_targets: Annotated[
        Path | None, typer.Option(help="Hidden items of these users.", rich_help_panel=_FILES)
    ] = None,
    users: Annotated[int | None, typer.Option(help="Users of the synthetic log.", show_default="3000")] = None,
    items: Annotated[int | None, typer.Option(help="Items of the synthetic log.", show_default="1200")] = None,
    events: Annotated[int | None, typer.Option(help="Events of the synthetic log.", show_default="150000")] = None,
    engine: Annotated[
        str, typer.Option(help="local, or spark: executors read tables or Parquet, and write.")
    ] = "local",
    spark_conf: Annotated[
        list[str] | None, typer.Option(help="A setting of --engine spark, e.g. spark.master=local[4] (repeatable).")
    ] = None,
    max_memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Memory that the command may take, e.g. 1GB.", show_default="no limit"),
    ] = None,
    shards: Annotated[
        bool, typer.Option("--shards", help="Write the matrices in several files, for `recvae train --stream`.")
    ] = False,
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Read a log, filter and split it, and write a data set to DATA_DIR/NAME.

    \b
    Examples:
      recvae preprocess ml-20m
      recvae preprocess ml-1m --source ~/downloads/ml-1m.zip --heldout-users 500
      recvae preprocess amazon-2023:Video_Games
      recvae preprocess plays.parquet --user-col listener --item-col track
      recvae preprocess logs/2026-*.csv.gz --name plays --no-rating
      recvae preprocess --train train.txt --test test.txt --name gowalla
      recvae preprocess plays.parquet --shards
      recvae preprocess s3a://logs/plays/ --engine spark --name plays
    """
    started = time.perf_counter()
    options = dict(locals())
    given = {key: options[key] for key in BELONGS_TO if not_left_out(key, options[key])}
    if is_spark(engine, spark_conf):
        preprocess_with_spark(log or [], name, given, seed, data_dir, overwrite, spark_conf or [], as_json)
        return
    kind = kind_of(log or [], given)
    refuse_misplaced(kind, given)
    check_features(given)
    prepared = add_features(prepared_by(kind, log or [], name, given, seed, data_dir, overwrite), given)
    folder = data_dir / prepared.dataset.name
    say(f"{'replacing' if folder.exists() else 'writing'} {folder}")
    prepared.dataset.save(folder, shards=shards)
    report(prepared, prepared.dataset.manifest, folder, time.perf_counter() - started, as_json)
