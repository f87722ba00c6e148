"""Data and scoring on Spark: the same data sets and the same recommendations, on a cluster that is there already.

    session       a session, what Spark needs, and its errors in one line
    frames        arrays of the driver as data frames, and back
    tables        tables and Parquet -> rows of user, item, rating and time
    patterns      which files Spark would find by a pattern, and in which order
    places        paths that can be looked at before Spark starts
    footers       what files say of a column that Spark does not
    kinds         columns in the types of a log
    keys          a column of ids -> codes, by the rules of files
    log           a log -> coded events, and a report of what was read
    draws         random numbers that depend on the place of an event, drawn by executors
    filters       the filters, step by step
    splits        the protocols: which events are trained on, which are targets
    writing       executors write the shards of a data set
    preparation   all steps, from a table to a data set on disk
    bundles       a bundle on every executor, once
    scoring       recommendations for all users of a data frame
    answer_files  recommendations for a table or files, written by executors

What executors run is imported there: every machine of the cluster needs recvae and its libraries. Importing this
package imports none of them.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recvae.spark.preparation import prepare as prepare
    from recvae.spark.scoring import recommend as recommend

__all__ = ["prepare", "recommend"]

_HOMES = {"prepare": "recvae.spark.preparation", "recommend": "recvae.spark.scoring"}


def __getattr__(name: str) -> Any:
    """Import a function when it is used: executors need only what they run."""
    if name not in _HOMES:
        raise AttributeError(f"module 'recvae.spark' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
