"""A Spark session, what it needs, and its errors in one line."""

import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from recvae.errors import EngineError, RecvaeError, UsageError, requires_extra

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_LOCAL_PARTITIONS = 8  # of a shuffle on one machine; 200, the default, are as many tasks for any small log
_SHOWN = 300  # letters of Spark's own message
_MOST_CAUSES = 20  # of an error of Java: it may be its own cause


def check_spark() -> None:
    """Refuse to go on without pyspark or without Java.

    Raises
    ------
    UsageError
        If one of them is missing, with what to do.
    """
    with requires_extra("spark", "Spark"):
        import pyspark
    if int(pyspark.__version__.split(".")[0]) < 4:
        raise UsageError(f"got pyspark {pyspark.__version__}, expected 4 or later; pip install -U 'pyspark>=4'")
    home = os.environ.get("JAVA_HOME")
    if home and not (Path(home) / "bin" / "java").exists():
        raise UsageError(f"got JAVA_HOME={home}, where there is no bin/java; set it to a Java 17 or later, or unset it")
    if not home and shutil.which("java") is None:
        raise UsageError(
            "Spark needs Java 17 or later, and there is none; install it, e.g. apt install openjdk-17-jre-headless, "
            "or set JAVA_HOME"
        )


def settings_of(given: Sequence[str]) -> dict[str, str]:
    """Read settings of Spark as they are typed.

    Parameters
    ----------
    given : sequence of str
        Such as "spark.master=local[4]".

    Raises
    ------
    UsageError
        If one is no setting of Spark.
    """
    found = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name.strip().startswith("spark."):
            raise UsageError(f"got --spark-conf {one!r}, expected NAME=VALUE, e.g. spark.master=local[4]; mend it")
        found[name.strip()] = value.strip()
    return found


@contextmanager
def spark_session(
    settings: Mapping[str, str] | None = None, starting: Callable[[], None] | None = None
) -> Iterator["SparkSession"]:
    """Yield the session that is there already, else a new one that is stopped afterwards.

    Parameters
    ----------
    settings : mapping of str to str, optional
        Settings of a new session, e.g. "spark.master"; by default those of `spark-submit` and of the installation, and
        all cores of this machine.
    starting : callable, optional
        Called before a new session is made, which takes seconds.

    Raises
    ------
    UsageError
        If pyspark or Java is missing.
    EngineError
        If no session can be made.
    """
    check_spark()
    from pyspark.sql import SparkSession

    active = SparkSession.getActiveSession()
    if active is not None:
        yield active
        return
    settings = dict(settings or {})
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # Spark would take the python3 of the system
    builder = SparkSession.builder.appName("recvae")  # type: ignore[attr-defined]
    master = settings.get("spark.master", "") or _master()
    usual = {"spark.ui.showConsoleProgress": "false", "spark.log.level": "ERROR"}
    if master.startswith("local"):
        usual |= {"spark.sql.shuffle.partitions": str(_LOCAL_PARTITIONS), "spark.ui.enabled": "false"}
    for name, value in (usual | settings).items():
        builder = builder.config(name, value)
    if starting is not None:
        starting()
    with spark_errors("Spark could not be started"):
        session = builder.getOrCreate()
    try:
        yield session
    finally:
        with suppress(Exception):  # it may be lost already
            session.stop()


def _master() -> str:
    """Return where a new session would run, as far as this process is told."""
    return os.environ.get("MASTER", "") if "PYSPARK_SUBMIT_ARGS" not in os.environ else "cluster"


@contextmanager
def reading_settings(spark: "SparkSession") -> Iterator[None]:
    """Let Spark read as the local engine does, and put its settings back afterwards.

    Values in the names of folders stay texts ("007" is no 7), and times in nanoseconds are read as numbers.
    """
    wanted = {
        "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
        "spark.sql.legacy.parquet.nanosAsLong": "true",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.files.ignoreMissingFiles": "false",
        "spark.sql.files.ignoreCorruptFiles": "false",
        "spark.sql.parquet.mergeSchema": "true",
    }
    before = {name: spark.conf.get(name, None) for name in wanted}
    for name, value in wanted.items():
        spark.conf.set(name, value)
    try:
        yield
    finally:
        with suppress(Exception):  # the session may be lost: the error that it was lost with must be seen
            for name, value in before.items():
                spark.conf.unset(name) if value is None else spark.conf.set(name, value)


def located(spark: "SparkSession", path: str) -> str:
    """Return a path as Spark finds it: on the disks of this machine, it is relative to this process and not to Java's.

    Where Spark's own file system is another one, such as HDFS, a path without a scheme is a path there.
    """
    if "://" in path or path.startswith(("/", "file:")):
        return path
    with suppress(Exception):  # Spark Connect has no Java of its own
        usual = spark.sparkContext._jsc.hadoopConfiguration().get("fs.defaultFS") or "file:///"  # type: ignore[union-attr]
        if not usual.startswith("file:"):
            return path
    return str(Path(path).absolute()) + "/" * path.endswith("/")  # which decides about the order of a pattern


@contextmanager
def spark_errors(what: str) -> Iterator[None]:
    """Turn errors of Spark into one line.

    Parameters
    ----------
    what : str
        What could not be done, as the message begins.

    Raises
    ------
    EngineError
        If Spark raised anything, or its session is lost.
    """
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        with warnings.catch_warnings():  # of pandas, of which nothing here goes through Spark
            warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
            yield
    except RecvaeError:
        raise
    except (PySparkException, Py4JError, ConnectionError, EOFError) as error:
        raise EngineError(f"{what}: {_reason(error)}; nothing is written") from error
    except (AttributeError, AssertionError, TypeError) as error:
        if _is_lost():
            raise EngineError(f"{what}: the session of Spark was lost; nothing is written; start it again") from error
        raise


def _is_lost() -> bool:
    """Whether there is no running session: what is asked of one then fails in the strangest ways."""
    from pyspark import SparkContext

    context = SparkContext._active_spark_context
    return context is None or context._jsc is None  # type: ignore[attr-defined]


def _reason(error: BaseException) -> str:
    """Return what an error says, in one line; the last line of what a worker printed is what went wrong there."""
    if _is_lost() or isinstance(error, ConnectionError | EOFError) or "stopped SparkContext" in str(error):
        return "the session of Spark was lost; start it again, with more memory if it was killed"
    text = _java_reason(error) or str(error).split("JVM stacktrace")[0].strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith("recvae.errors.")]
    if ours:
        return ours[-1].partition(": ")[2].rstrip(".")
    found = next((line for line in lines if not line.startswith(("Traceback", 'File "', "at "))), type(error).__name__)
    return found[:_SHOWN].rstrip(".")


def _java_reason(error: BaseException) -> str:
    """Return what the innermost error of Java says; empty where it says nothing, or the error is not Java's."""
    cause, said = getattr(error, "java_exception", None), ""
    with suppress(Exception):  # the session may be lost
        for _ in range(_MOST_CAUSES):
            if cause is None:
                break
            said = str(cause.getMessage() or "") or said
            cause = cause.getCause()
    return said
