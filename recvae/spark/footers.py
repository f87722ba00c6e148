"""What the footers of Parquet files say that Spark does not: the columns of a file, and whether numbers are times.

Spark has no type for times in nanoseconds, which pandas writes, and reads them as numbers. Their unit would then have
to be guessed, and those of early 1970 would be taken for microseconds. A column that some files lack is filled with
nothing, as if each of their rows had an empty cell.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

from recvae.errors import DataError
from recvae.spark.patterns import shown_file
from recvae.spark.session import spark_errors

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_AT_A_TIME = 16  # footers: on a remote storage, each is waited for


def holds_nanoseconds(frame: "DataFrame", column: str, where: str) -> bool:
    """Whether a column that Spark reads from files as numbers holds times in nanoseconds there.

    Parameters
    ----------
    frame : DataFrame
        What Spark reads from the files.
    column : str
        One of its columns.
    where : str
        What messages call the files.

    Raises
    ------
    DataError
        If it does in some of the files alone.
    EngineError
        If a file cannot be read.
    """
    with spark_errors(f"{where} could not be read"):
        found = _kinds(frame.sparkSession, frame.inputFiles(), column)
    kinds = {kind.startswith("TIMESTAMP(NANOS") for kind in found or () if kind is not None}
    if len(kinds) > 1:
        raise DataError(
            f"{where}: column '{column}' holds times in some files and numbers in others, expected one type; convert "
            "some of the files"
        )
    return True in kinds


def lacks(spark: "SparkSession", file: str, column: str) -> bool:
    """Whether a file, as Spark calls it, has no such column; also where that cannot be seen."""
    found = _kinds(spark, [file], column)
    return found is None or found[0] is None


def refuse_lacking(frame: "DataFrame", columns: Sequence[str]) -> None:
    """Refuse files of which some lack a column that others have.

    Parameters
    ----------
    frame : DataFrame
        What Spark reads from the files.
    columns : sequence of str
        Some of its columns, which no folder names.

    Raises
    ------
    DataError
        If so, with the first such file.
    """
    from pyspark.sql import functions

    counts = [functions.count(frame[f"`{name.replace('`', '``')}`"]).alias(f"n_{i}") for i, name in enumerate(columns)]
    by_file = frame.groupBy(functions.col("_metadata.file_path").alias("file")).agg(*counts).orderBy("file")
    for one in by_file.toArrow().to_pylist():
        for place, name in enumerate(columns):
            if not one[f"n_{place}"] and lacks(frame.sparkSession, one["file"], name):
                raise DataError(
                    f"{shown_file(one['file'])} has no column '{name}', which other files have; expected the files of "
                    "one log; give only those"
                )


def _kinds(spark: "SparkSession", files: Sequence[str], column: str) -> list[str | None] | None:
    """Return what a column is called to be in each of the files, None in one without it; None if that is not seen."""
    try:
        jvm: Any = spark._jvm  # type: ignore[attr-defined]
    except Exception:
        return None  # a session of Spark Connect cannot look into files
    settings = spark._jsparkSession.sessionState().newHadoopConf()  # type: ignore[attr-defined]

    def found(file: str) -> str | None:
        place = jvm.org.apache.hadoop.fs.Path(jvm.java.net.URI(file))
        source = jvm.org.apache.parquet.hadoop.util.HadoopInputFile.fromPath(place, settings)
        with closing(jvm.org.apache.parquet.hadoop.ParquetFileReader.open(source)) as opened:
            schema = opened.getFileMetaData().getSchema()
            if not schema.containsField(column):
                return None
            return str(schema.getType(schema.getFieldIndex(column)).getLogicalTypeAnnotation())

    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        return list(pool.map(found, files))
