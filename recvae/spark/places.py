"""Paths that can be looked at without Spark: what is wrong is said before Java starts, which takes seconds."""

import glob
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from recvae.errors import UsageError
from recvae.spark.patterns import files_below, is_pattern, on_disk, refuse_other_files
from recvae.spark.tables import refuse_texts

# Where it may be said that Spark's own file system is another one.
_ENVIRONMENT = (
    "HADOOP_CONF_DIR",
    "YARN_CONF_DIR",
    "HADOOP_HOME",
    "SPARK_CONF_DIR",
    "SPARK_HOME",
    "PYSPARK_SUBMIT_ARGS",
)
_PARQUET = (b"PAR1", b"PARE")  # how files begin; the second with an encrypted footer
_SETTINGS = ("spark.hadoop.fs.defaultFS", "spark.hadoop.fs.default.name")


def check_paths(paths: Sequence[str], settings: Mapping[str, str] | None = None) -> None:
    """Refuse files of text, and paths of this machine where there is nothing that Spark would read.

    What a scheme such as s3a:// names is left to Spark. So is a path without one where Spark may be set to read from
    another file system, such as HDFS, or runs already.

    Parameters
    ----------
    paths : sequence of str
        As they were given.
    settings : mapping of str to str, optional
        Settings of Spark.

    Raises
    ------
    UsageError
        If so, or Spark would find other files by a pattern; messages are those of Spark's own reading.
    """
    refuse_texts(paths)
    for path in paths:
        refuse_other_files(path)
    is_told = any(os.environ.get(name) for name in _ENVIRONMENT) or any(name in _SETTINGS for name in settings or {})
    is_here = not is_told and not _is_running()
    for path in paths:
        local = on_disk(path)
        if "://" in local or local.startswith("file:") or (local == path and not is_here):
            continue
        found = glob.glob(local) if is_pattern(local) else [local] * Path(local).exists()  # noqa: PTH207
        if not found and any(mark in local for mark in "{\\"):
            continue  # patterns of Hadoop, which has more than those here
        files = [file for one in found for file in map(str, files_below(Path(one)))]
        if not files:
            raise UsageError(f"no file at {local}; check the path")
        refuse_texts(files)
        _refuse_other_kinds(files[0])


def _refuse_other_kinds(file: str) -> None:
    """Refuse a file that is no Parquet by its first bytes, whatever its name is; an empty one is left to Spark."""
    try:
        with Path(file).open("rb") as opened:
            begin = opened.read(len(_PARQUET[0]))
    except OSError:
        return  # Spark says why
    if begin and begin not in _PARQUET:
        raise UsageError(
            f"got {file} with Spark, which is no Parquet file; write it as Parquet, or leave out --engine spark"
        )


def _is_running() -> bool:
    """Whether there is a session that will be used; pyspark is not imported for it."""
    module = sys.modules.get("pyspark.sql")
    return module is not None and module.SparkSession.getActiveSession() is not None
