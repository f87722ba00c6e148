"""Times in nanoseconds, which Spark reads as numbers: seconds since 1970 as on one machine, whenever they are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from spark_sessions import MARKS, on_one_core, skip_without_spark

from recvae.datasets.preparation import prepare_log
from recvae.datasets.protocol import Protocol
from recvae.errors import DataError, EngineError

skip_without_spark()

from recvae import spark as on_spark  # noqa: E402
from recvae.spark.footers import holds_nanoseconds  # noqa: E402

pytestmark = MARKS
SECOND = 10**9
PROTOCOL = Protocol(split="leave-last-out", min_user_items=0)


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    with on_one_core() as spark:
        yield spark


def log(first: int, seconds: int = 30) -> pd.DataFrame:
    """Return a log whose times begin at a second and have nanoseconds, so that many are equal as seconds alone."""
    draw = np.random.default_rng(0)
    times = first * SECOND + draw.integers(0, seconds * SECOND, 300)
    users, items = draw.integers(0, 20, 300), draw.integers(0, 15, 300)
    return pd.DataFrame({"user": users, "item": items, "time": times})


@pytest.mark.parametrize("first", [0, 1_000_000, 50_000_000, 1_500_000_000])
def test_times_in_nanoseconds_are_those_of_one_machine(session: Any, tmp_path: Path, first: int) -> None:
    """As microseconds, those of January 1970 would be of 2001, without a word, and other events the last ones."""
    events = log(first)
    events["time"] = events["time"].astype("datetime64[ns, UTC]")
    events.to_parquet(tmp_path / "log with blanks.parquet")
    made = on_spark.prepare(str(tmp_path / "log with blanks.parquet"), tmp_path / "out", protocol=PROTOCOL, name="log")
    expected = prepare_log(tmp_path / "log with blanks.parquet", PROTOCOL, name="log").dataset
    assert made.fingerprint == expected.fingerprint and session
    for fact in ("protocol", "counts", "dropped"):
        assert made.manifest[fact] == expected.manifest[fact]
    assert made.manifest["source"]["reading"]["times"] == expected.manifest["source"]["reading"]["times"]


def test_a_time_before_1970_is_rounded_down_and_refused_as_on_one_machine(session: Any, tmp_path: Path) -> None:
    events = log(0)
    events.loc[7, "time"] = -1
    events["time"] = events["time"].astype("datetime64[ns]")
    events.to_parquet(tmp_path / "log.parquet")
    with pytest.raises(DataError, match="expected a time since 1970"):
        on_spark.prepare(str(tmp_path / "log.parquet"), tmp_path / "out", protocol=PROTOCOL, name="log")
    assert session


def test_numbers_stay_numbers_and_files_of_both_kinds_are_refused(session: Any, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    log(1_500_000_000).to_parquet(tmp_path / "logs" / "a.parquet")
    frame = session.read.parquet(str(tmp_path / "logs"))
    assert not holds_nanoseconds(frame, "time", "logs") and not holds_nanoseconds(frame, "elsewhere", "logs")
    events = log(1_500_000_000)
    events["time"] = events["time"].astype("datetime64[ns]")
    events.to_parquet(tmp_path / "logs" / "b.parquet")
    with pytest.raises(DataError, match="column 'time' holds times in some files and numbers in others, expected one"):
        on_spark.prepare(str(tmp_path / "logs"), tmp_path / "out", protocol=PROTOCOL, name="log")
    (tmp_path / "logs" / "a.parquet").unlink()
    with pytest.raises(EngineError, match=r"logs could not be read: .*a.parquet"):
        holds_nanoseconds(frame, "time", "logs")
