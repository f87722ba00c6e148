"""Arrays of the driver as data frames of Spark, and back."""

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_PREFIX = "recvae_view_"
_FEW = 1_000_000
"""Rows up to which a table is sent to every executor as a whole, so that a join moves nothing else."""


def frame_of(spark: "SparkSession", columns: dict[str, Any]) -> "DataFrame":
    """Return arrays of the driver as a data frame.

    Parameters
    ----------
    spark : SparkSession
        The session.
    columns : dict of str to array
        Of numpy or Arrow, of equal length.
    """
    from pyspark.sql import functions

    table = pa.table({name: pa.array(column) for name, column in columns.items()})
    frame = spark.createDataFrame(table)
    return functions.broadcast(frame) if table.num_rows <= _FEW else frame


def arrays_of(frame: "DataFrame") -> dict[str, np.ndarray]:
    """Return the columns of a small data frame, by name; they have no nulls."""
    table = frame.toArrow()
    return {name: table[name].to_numpy() for name in table.column_names}


def run(spark: "SparkSession", query: str, **frames: "DataFrame") -> "DataFrame":
    """Run SQL over data frames: `{events}` in the text stands for the data frame that is given as `events`.

    Unlike `spark.sql(query, **frames)` it leaves the names of views: to drop a view would forget what executors keep of
    it. `forget_views` drops them at the end.
    """
    names = {}
    for name, frame in frames.items():
        names[name] = f"{_PREFIX}{uuid4().hex}"
        frame.createTempView(names[name])
    return spark.sql(query.format(**names))


def forget_views(spark: "SparkSession") -> None:
    """Drop the views of `run`, and what executors keep of them."""
    for table in spark.catalog.listTables():
        if table.isTemporary and table.name.startswith(_PREFIX):
            spark.catalog.dropTempView(table.name)
