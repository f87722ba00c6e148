"""A bundle on every executor, once: Spark unpacks it there, and all processes of the machine map its file."""

import atexit
import shutil
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from recvae.bundles.card import CARD, read_card
from recvae.errors import UsageError
from recvae.storage.files import storage_errors
from recvae.storage.integrity import sha256_of
from recvae.storage.weight_files import names_of_weights

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from recvae.recommenders.recommender import Recommender

_WEIGHTS = "weights.safetensors"


def send_bundle(spark: "SparkSession", folder: Path) -> str:
    """Send a bundle to the executors, also to those that come later; a second call for the same bundle sends nothing.

    Parameters
    ----------
    spark : SparkSession
        The session; it lasts as long as the bundle is needed.
    folder : Path
        The bundle.

    Returns
    -------
    str
        What `bundle_here` finds it by on an executor.

    Raises
    ------
    UsageError
        If the session is of Spark Connect, which cannot send it.
    """
    try:
        context = spark.sparkContext
    except Exception as error:
        raise UsageError("got a session of Spark Connect, expected one of spark-submit or pyspark") from error
    name = f"recvae-{sha256_of(folder / CARD)[:16]}"  # the card has the checksums of the other files
    return _sent(str(context.applicationId), name, folder, spark)


@cache
def _scratch() -> Path:
    """Return a folder that lasts as long as this process, since executors may start at any time."""
    folder = Path(tempfile.mkdtemp(prefix="recvae-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


_SENT: set[tuple[str, str]] = set()


def _sent(application: str, name: str, folder: Path, spark: "SparkSession") -> str:
    if (application, name) not in _SENT:
        path = _scratch() / f"{name}.zip"
        with storage_errors(path), zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
            for one in (CARD, "items.parquet", *names_of_weights(_WEIGHTS, read_card(folder)["files"])):
                file.write(folder / one, one)
        spark.sparkContext.addArchive(f"{path}#{name}")
        _SENT.add((application, name))
    return name


@cache
def recommender_here(name: str) -> "Recommender":
    """Return the recommender of a bundle that was sent; runs on an executor, once in each of its processes."""
    from pyspark import SparkFiles

    from recvae.recommenders.recommender import Recommender

    return Recommender.load(SparkFiles.get(name))
