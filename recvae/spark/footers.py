"""What the footers of Parquet files say that Spark does not: whether a column of numbers is one of times.

Spark has no type for times in nanoseconds, which pandas writes, and reads them as numbers. Their unit would then have
to be guessed, and those of early 1970 would be taken for microseconds.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

from recvae.errors import DataError
from recvae.spark.session import spark_errors

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

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
    spark = frame.sparkSession
    try:
        jvm: Any = spark._jvm  # type: ignore[attr-defined]
    except Exception:
        return False  # a session of Spark Connect cannot look into files

    with spark_errors(f"{where} could not be read"):
        settings = spark._jsparkSession.sessionState().newHadoopConf()  # type: ignore[attr-defined]

        def found(file: str) -> bool | None:
            """Return None of a file without the column."""
            place = jvm.org.apache.hadoop.fs.Path(jvm.java.net.URI(file))
            source = jvm.org.apache.parquet.hadoop.util.HadoopInputFile.fromPath(place, settings)
            with closing(jvm.org.apache.parquet.hadoop.ParquetFileReader.open(source)) as opened:
                schema = opened.getFileMetaData().getSchema()
                if not schema.containsField(column):
                    return None
                kind = schema.getType(schema.getFieldIndex(column)).getLogicalTypeAnnotation()
            return str(kind).startswith("TIMESTAMP(NANOS")

        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            kinds = {kind for kind in pool.map(found, frame.inputFiles()) if kind is not None}
    if len(kinds) > 1:
        raise DataError(
            f"{where}: column '{column}' holds times in some files and numbers in others, expected one type; convert "
            "some of the files"
        )
    return True in kinds
