"""`--engine spark`: the same commands on a cluster."""

import time
from functools import partial
from pathlib import Path
from typing import Any

from recvae_cli import histories
from recvae_cli.console import command, say, say_next

_LOCAL, _SPARK = "local", "spark"
_PREPARING = (
    *("user_col", "item_col", "rating_col", "time_col", "no_rating", "no_time", "null", "on_bad_row"),
    *("min_rating", "min_user_items", "min_item_users", "split", "heldout_users", "target_share"),
    *("titles", "title_col", "id_col"),
)


def is_spark(engine: str, settings: list[str] | None) -> bool:
    """Whether the engine is Spark; refuses others that do not exist, and settings without Spark."""
    from recvae.errors import UsageError, did_you_mean

    if engine not in (_LOCAL, _SPARK):
        raise UsageError(f"got --engine {engine}, expected local or spark{did_you_mean(engine, (_LOCAL, _SPARK))}")
    if engine == _LOCAL and settings:
        raise UsageError("got --spark-conf without --engine spark, where it has no effect; leave it out")
    return engine == _SPARK


def preprocess_with_spark(
    log: list[str],
    name: str | None,
    given: dict[str, Any],
    seed: int,
    data_dir: Path,
    overwrite: bool,
    settings: list[str],
    as_json: bool,
) -> None:
    """Let executors prepare a data set in DATA_DIR/NAME."""
    from recvae.datasets.home import check_new
    from recvae.datasets.protocol import Protocol
    from recvae.datasets.reading.options import LogFormat
    from recvae.datasets.titles import read_titles
    from recvae.errors import UsageError
    from recvae.spark.preparation import prepare
    from recvae.spark.session import settings_of
    from recvae_cli.preparation_report import report
    from recvae_cli.preparing import log_format, protocol_for

    started = time.perf_counter()
    misplaced = ["--" + key.replace("_", "-") for key in given if key not in _PREPARING]
    if misplaced:
        raise UsageError(f"got {', '.join(misplaced)} with --engine spark, where it has no effect; leave it out")
    if not log:
        raise UsageError("got no log, expected a table of Spark or PATH; e.g. recvae preprocess plays/ --engine spark")
    if {"title_col", "id_col"} & given.keys() and "titles" not in given:
        raise UsageError("got --title-col or --id-col without --titles, where it has no effect; add --titles FILE")
    protocol: Protocol = protocol_for(given, seed)
    settings_found = settings_of(settings)
    _refuse_known(log)
    usual = _usual_name(log[0]) if name is None else name
    name = check_new(data_dir, usual, overwrite)
    remarks: list[str] = []
    names = None
    if "titles" in given:
        form = LogFormat(item=given.get("id_col"), title=given.get("title_col"))
        names = read_titles([given["titles"]], form, remarks)
    folder = data_dir / name
    one: str | list[str] = log[0] if len(log) == 1 else log
    known = log_format(given)
    start = partial(say, f"starting Spark, to read {' '.join(log)}")
    written = prepare(
        one, folder, protocol=protocol, log_format=known, titles=names, settings=settings_found, starting=start
    )
    for remark in remarks:
        say(f"warning: {remark}")
    report(written, written.manifest, folder, time.perf_counter() - started, as_json)


def _refuse_known(logs: list[str]) -> None:
    """Refuse known data sets, whatever the new one shall be called."""
    from recvae.datasets.catalog.known import CATALOG
    from recvae.errors import UsageError
    from recvae.spark.tables import is_path

    for log in logs:
        if log.partition(":")[0] in (*CATALOG, "synthetic") and not is_path(log):
            raise UsageError(
                f"got {log}, which is a known data set; it is prepared on one machine: leave out --engine spark, or "
                f"name a table of Spark with its database, e.g. default.{log}"
            )


def _usual_name(log: str) -> str:
    """Return the name of a data set that was given none: that of the table, or of the folder or file."""
    from recvae.errors import UsageError
    from recvae.spark.tables import is_path

    found = log.rstrip("/").split("/")[-1].split(".")[0] if is_path(log) else log.split(".")[-1].strip("`")
    if not found or any(letter in found for letter in "*?[:="):
        raise UsageError(f"got {log}, which gives the data set no name, expected --name NAME; add it")
    return found


def recommend_with_spark(
    folder: Path,
    source: str,
    output: str,
    options: dict[str, Any],
    columns: dict[str, Any],
    settings: list[str],
) -> None:
    """Let executors answer all users of a table or of Parquet files, and write a folder of Parquet."""
    from recvae.bundles.bundle import ITEMS
    from recvae.items import ItemIndex
    from recvae.spark.answer_files import recommend_files
    from recvae.spark.session import settings_of

    start = partial(say, f"starting Spark, to read {source}")
    done = recommend_files(source, output, folder, settings_of(settings), options, start, **columns)
    example = ItemIndex.read(folder / ITEMS).ids[0] if done.unknown else None
    histories.say_answers(output, done, example)
    say_next(command("inspect", folder))
