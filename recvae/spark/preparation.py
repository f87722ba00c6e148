"""All steps on Spark, from a table to a data set on disk: that of the engine on one machine, event for event."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recvae.datasets.columns import LOG
from recvae.datasets.dataset import Dataset
from recvae.datasets.events import Filters, check_filters, usual_min_rating_of
from recvae.datasets.folder import (
    MANIFEST,
    MATRICES,
    SHARDED_VERSION,
    TRAIN_USERS,
    counts_of_matrices,
    fingerprint_of_matrices,
    manifest_of,
    write_users,
)
from recvae.datasets.protocol import Protocol
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.report import Reading
from recvae.datasets.titles import titles_of
from recvae.errors import UsageError
from recvae.interactions import counts_of
from recvae.items import ItemIndex
from recvae.spark.filters import filtered
from recvae.spark.frames import forget_views
from recvae.spark.log import CodedLog, read_log
from recvae.spark.places import check_paths
from recvae.spark.session import check_spark, reading_settings, spark_errors, spark_session
from recvae.spark.splits import WrittenSplit, write_split
from recvae.spark.tables import Rows, is_path, rows_of_frame, rows_of_paths
from recvae.storage.files import check_name, write_folder, write_json

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


@dataclass(frozen=True, kw_only=True)
class WrittenDataset:
    """A data set that executors have written; its interactions are on disk only.

    Parameters
    ----------
    folder : Path
        Where it is.
    manifest : dict
        Its manifest.
    reading : Reading
        What was read, and how.
    warnings : list of str
        Remarks for the user.
    """

    folder: Path
    manifest: dict[str, Any] = field(repr=False)
    reading: Reading = field(repr=False)
    warnings: list[str] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        """A hash of all matrices and item ids, the same as that of the engine on one machine."""
        return str(self.manifest["fingerprint"])

    def load(self) -> Dataset:
        """Read it into memory."""
        return Dataset.load(self.folder)


def prepare(
    log: "DataFrame | str | Sequence[str]",
    folder: Path | str,
    *,
    name: str | None = None,
    protocol: Protocol | None = None,
    log_format: LogFormat | None = None,
    titles: Mapping[Any, str] | None = None,
    settings: Mapping[str, str] | None = None,
    source: dict[str, Any] | None = None,
    starting: Callable[[], None] | None = None,
    **chosen: Any,
) -> WrittenDataset:
    """Read, filter and split a log on Spark, and write a data set.

    Parameters
    ----------
    log : DataFrame, str or sequence of str
        A data frame of Spark, the name of a table, or paths of Parquet files on any storage that Spark reads. The
        events of files are in the order of their rows; those of a table are in the order of their users and items.
    folder : Path or str
        The folder of the data set, which this machine and all executors share; an existing data set is replaced.
    name : str, optional
        Name of the data set; by default that of the folder.
    protocol : Protocol, optional
        How to filter and split.
    log_format : LogFormat, optional
        What is known about the log: columns, `without`, `null`, `kept`, `on_bad_row`.
    titles : mapping, optional
        Titles by item id.
    settings : mapping of str to str, optional
        Settings of a new session; there is none if one is active.
    source : dict, optional
        Origin of the log, for the manifest.
    starting : callable, optional
        Called before a new session is made: all that can be refused without Spark was refused by then.
    **chosen
        Fields of `Protocol` and `LogFormat` instead of one, e.g. split="time", user="listener".

    Returns
    -------
    WrittenDataset
        `Dataset.load` reads it.

    Raises
    ------
    UsageError, DataError
        If the log, the filters or the protocol cannot be used; messages are those of the engine on one machine.
    EngineError
        If Spark cannot do its part, or executors write elsewhere.

    Examples
    --------
    >>> from recvae.spark import prepare
    >>> prepare(spark.table("shop.orders"), "/shared/data/orders", user="customer", item="sku")  # doctest: +SKIP
    """
    protocol, log_format = _told(protocol, log_format, chosen)
    folder = Path(folder)
    name = check_name(name or folder.absolute().name)
    _check_given(log, protocol, settings)
    check_spark()
    spark = getattr(log, "sparkSession", None)
    if spark is not None:
        return _prepared(spark, log, folder, name, protocol, log_format, titles, source)
    with spark_session(settings, starting) as session:
        return _prepared(session, log, folder, name, protocol, log_format, titles, source)


def _check_given(log: Any, protocol: Protocol, settings: Mapping[str, str] | None) -> None:
    """Refuse what is wrong whatever Spark would find."""
    check_filters(Filters(min_user_items=protocol.min_user_items, min_item_users=protocol.min_item_users), True)
    if isinstance(log, str | Path | Sequence):
        paths = _paths(log)
        if paths is not None:
            check_paths(paths, settings)


def _paths(log: str | Path | Sequence[Any]) -> list[str] | None:
    """Return the paths of a log, None where it is the name of a table."""
    given = [str(log)] if isinstance(log, str | Path) else [str(one) for one in log]
    if not given:
        raise UsageError("got no log, expected a table or at least one path")
    if all(map(is_path, given)):
        return given
    if len(given) > 1:
        raise UsageError(f"got {', '.join(given)}, expected one table, or paths of files; give one of them")
    return None


def _told(
    protocol: Protocol | None, log_format: LogFormat | None, chosen: Mapping[str, Any]
) -> tuple[Protocol, LogFormat]:
    """Return the protocol and the format, each as given or made of single fields."""
    of_format = {key: value for key, value in chosen.items() if key in LogFormat.__dataclass_fields__}
    of_protocol = {key: value for key, value in chosen.items() if key in Protocol.__dataclass_fields__}
    unknown = chosen.keys() - of_format.keys() - of_protocol.keys()
    if unknown:
        raise UsageError(
            f"got {', '.join(sorted(unknown))}, expected fields of Protocol and LogFormat; check the names"
        )
    for fields, whole, kind in ((of_format, log_format, "log_format"), (of_protocol, protocol, "protocol")):
        if fields and whole is not None:
            raise UsageError(f"got {kind} and {', '.join(fields)}, expected one of the two; leave one out")
    made = log_format or LogFormat(**of_format)
    for asked in ("separator", "header", "quote", "escape", "encoding", "time_format", "only"):
        if getattr(made, asked):
            raise UsageError(f"got {asked} with Spark, which reads Parquet and tables here; leave it out")
    return protocol or Protocol(**of_protocol), made


def _prepared(
    spark: "SparkSession",
    log: Any,
    folder: Path,
    name: str,
    protocol: Protocol,
    log_format: LogFormat,
    titles: Mapping[Any, str] | None,
    source: dict[str, Any] | None,
) -> WrittenDataset:
    with spark_errors("Spark could not prepare the data"), reading_settings(spark):
        rows = _opened(spark, log, log_format)
        coded = read_log(rows, log_format)
        try:
            return _written(coded, folder, name, protocol, titles, source)
        finally:
            with suppress(Exception):  # where the session is lost, the first error is the one to see
                coded.events.unpersist()
                forget_views(spark)


def _opened(spark: "SparkSession", log: Any, options: LogFormat) -> Rows:
    """Open a data frame, a table or files."""
    if not isinstance(log, str | Path | Sequence):
        return rows_of_frame(log, options, "the table")
    paths = _paths(log)
    if paths is not None:
        return rows_of_paths(spark, paths, options)
    table = str(log) if isinstance(log, str | Path) else str(log[0])
    with spark_errors(f"no file and no table '{table}' could be read"):
        return rows_of_frame(spark.table(table), options, f"the table {table}")


def _written(
    log: CodedLog,
    folder: Path,
    name: str,
    protocol: Protocol,
    titles: Mapping[Any, str] | None,
    source: dict[str, Any] | None,
) -> WrittenDataset:
    """Filter and split a log, and write the data set completely or not at all."""
    min_rating = protocol.min_rating
    if min_rating is None and log.scale is not None:
        min_rating = usual_min_rating_of(log.scale)
    filters = Filters(
        min_rating=min_rating, min_user_items=protocol.min_user_items, min_item_users=protocol.min_item_users
    )
    check_filters(filters, log.scale is not None)
    left, steps = filtered(log, filters)
    origin = {"engine": "spark", **(source or {"name": name}), "reading": log.reading.to_json()}
    origin["columns"] = {role: getattr(log.reading.columns, role) for role in LOG}
    with write_folder(folder, MANIFEST) as aside:
        split = write_split(log, left, protocol, aside)
        item_ids = log.item_ids[split.items]
        known = None if titles is None else titles_of(item_ids.tolist(), titles)
        ItemIndex(ids=item_ids, titles=known, train_counts=_popularity(split)).write(aside / "items.parquet")
        for part, path in (("train", TRAIN_USERS), *((one, f"{one}/users.parquet") for one in ("validation", "test"))):
            write_users(log.user_ids[split.users[part]], aside / path)
        manifest = _manifest(
            name, origin, {**asdict(filters), "steps": [asdict(step) for step in steps]}, split, item_ids
        )
        write_json(aside / MANIFEST, manifest)
    left.unpersist()
    warnings = [*log.reading.warnings()]
    if known is not None:
        missing = sum(title is None for title in known)
        warnings += [f"{missing:,} of {len(known):,} items have no title"] if missing else []
    return WrittenDataset(folder=folder, manifest=manifest, reading=log.reading, warnings=warnings)


def _popularity(split: WrittenSplit) -> np.ndarray:
    """Return the number of training users of each item, shard by shard."""
    counts = np.zeros(len(split.items), dtype=np.int64)
    for arrays in split.matrices["train"].arrays():
        counts += counts_of(arrays["indices"], len(counts))
    return counts


def _manifest(
    name: str, origin: dict[str, Any], filters: dict[str, Any], split: WrittenSplit, item_ids: np.ndarray
) -> dict[str, Any]:
    """Return the manifest of a data set in shards."""
    without = {part: split.matrices[f"{part}/targets"].n_empty_rows for part in ("validation", "test")}
    manifest = manifest_of(
        name,
        source=origin,
        filters=filters,
        protocol=split.protocol,
        counts=counts_of_matrices(split.matrices, without),
        dropped=split.dropped,
        fingerprint=fingerprint_of_matrices((split.matrices[part] for part in MATRICES), item_ids),
    )
    return {
        **manifest,
        "format": SHARDED_VERSION,
        "shards": {part: split.matrices[part].to_json() for part in MATRICES},
    }
