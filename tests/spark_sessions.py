"""What the tests on Spark share: when they are skipped, what they do not mind, and a session on one core."""

import os
import shutil
from contextlib import AbstractContextManager
from typing import Any

import pytest

MARKS = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # sockets of pyspark
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def skip_without_spark() -> None:
    """Skip the file that calls it where pyspark or Java is missing."""
    pytest.importorskip("pyspark", reason="pyspark is not installed (extra spark)")
    if shutil.which("java") is None and not os.environ.get("JAVA_HOME"):
        pytest.skip("there is no Java", allow_module_level=True)


def on_one_core() -> AbstractContextManager[Any]:
    """Return a small session, which ends with the context."""
    from recvae.spark.session import spark_session

    java = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    return spark_session(
        {"spark.master": "local[1]", "spark.sql.shuffle.partitions": "2", "spark.driver.extraJavaOptions": java}
    )
