"""`--engine`: what is refused before Spark is started; `tests/test_spark.py` has what it does."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from recvae.errors import EngineError, UsageError
from recvae.spark import answer_files, preparation
from recvae.spark.places import check_paths

Command = Callable[..., Any]

SPARK = ("--engine", "spark")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("plays.parquet", "--engine", "sparc"), "got --engine sparc, expected local or spark; did you mean spark?"),
        (("plays.parquet", "--engine", "flink"), "got --engine flink, expected local or spark"),
        (("plays.parquet", "--spark-conf", "spark.a=b"), "got --spark-conf without --engine spark, where it has no"),
        (
            ("texts/plays.data", "--name", "x", *SPARK),
            "got texts/plays.data with Spark, which is no Parquet file; write",
        ),
        ((*SPARK,), "got no log, expected a table of Spark or PATH; e.g. recvae preprocess plays/ --engine spark"),
        (("a.parquet", "--sep", ";", *SPARK), "got --sep with --engine spark, where it has no effect; leave it out"),
        (("a.parquet", "--features", "f.csv", *SPARK), "got --features with --engine spark, where it has no effect"),
        (("--train", "a", "--test", "b", *SPARK), "got --test, --train with --engine spark, where it has no effect"),
        (("a.parquet", "--max-memory", "1GB", *SPARK), "got --max-memory with --engine spark, where it has no effect"),
        (("a.parquet", "--id-col", "x", *SPARK), "got --title-col or --id-col without --titles, where it has no"),
        (
            ("ml-20m", *SPARK),
            "got ml-20m, which is a known data set; it is prepared on one machine: leave out",
        ),
        (("ml-20m", "--name", "x", *SPARK), "got ml-20m, which is a known data set; it is prepared on one machine"),
        (("amazon-2023:Video_Games", "--name", "x", *SPARK), "got amazon-2023:Video_Games, which is a known data set"),
        (("a/", "ml-1m", "--name", "x", *SPARK), "name a table of Spark with its database, e.g. default.ml-1m"),
        (("none.parquet", "--name", "x", *SPARK), "no file at none.parquet; check the path"),
        (("none/*.parquet", "--name", "x", *SPARK), "no file at none/*.parquet; check the path"),
        (("there/", "none/", "--name", "x", *SPARK), "no file at none/; check the path"),
        (("there/**", "--name", "x", *SPARK), "got there/** with Spark, to which ** is the folders of one level alone"),
        (("texts/_*", "--name", "x", *SPARK), "with Spark, which leaves out texts/_old.parquet: its name begins with"),
        (("empty/", *SPARK), "no file at empty/; check the path"),
        (("texts/", *SPARK), "got texts/day=1/a.csv with Spark, which reads Parquet and tables here; write it as"),
        (
            ("shop.orders", "shop.more", "--name", "x", *SPARK),
            "got shop.orders, shop.more, expected one table, or",
        ),
        (("there/", "--min-user-items", "-1", *SPARK), "got min_user_items -1, expected 0 or more"),
        (("s3a://logs/*", *SPARK), "got s3a://logs/*, which gives the data set no name, expected --name NAME; add it"),
        (("a.parquet", "--spark-conf", "master=x", *SPARK), "got --spark-conf 'master=x', expected NAME=VALUE, e.g."),
        (("a.parquet", "--split", "weak", *SPARK), "got split 'weak', expected one of: strong, holdout, leave-last"),
    ],
)
def test_preprocess_refuses_what_spark_would_not_do(
    workplace: Path, command: Command, words: tuple[str, ...], message: str
) -> None:
    for folder in ("there", "empty/_temporary", "texts/day=1"):
        Path(folder).mkdir(parents=True)
    for file in ("there/part-0.parquet", "empty/_SUCCESS", "empty/_temporary/part-0.parquet", "texts/day=1/a.csv"):
        Path(file).touch()
    for file in ("plays.data", "_old.parquet"):
        Path("texts", file).write_text("1\t2\t3\n")
    said = command("preprocess", *words)
    assert said.code == 2 and "starting Spark" not in said.err
    assert message in " ".join(said.err.split())
    assert not list(workplace.rglob("manifest.json"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--items", "1", *SPARK), "got --engine spark for one history, expected --input and --output; leave out"),
        (("--input", "a.parquet", "--output", "b.parquet", "--engine", "x"), "got --engine x, expected local or spark"),
        (
            ("--input", "a.parquet", "--output", "b.parquet", "--explain", "--device", "cpu", "--sep", ",", *SPARK),
            "got --explain, --device, --sep with --engine spark, where it has no effect; leave it out",
        ),
        (("--input", "a.parquet", "--output", "b.csv", *SPARK), "got b.csv with Spark, expected a name ending in .par"),
        (("--input", "a.csv", "--output", "b.parquet", *SPARK), "got a.csv with Spark, which reads Parquet and tables"),
        (("--input", "a.parquet", "--output", "b.parquet", *SPARK), "no file at a.parquet; check the path"),
        (("--input", "shop.plays", "-k", "0", "--output", "b.parquet", *SPARK), "got k=0"),
    ],
)
def test_recommend_refuses_what_spark_would_not_do(
    toy: Path, command: Command, words: tuple[str, ...], message: str
) -> None:
    assert command("train", "--model", "popularity").code == 0
    said = command("recommend", *words)
    assert said.code == 2 and "starting Spark" not in said.err
    assert message in " ".join(said.err.split())
    assert not Path("b.parquet").exists()


@contextmanager
def no_spark(settings: Mapping[str, str] | None, starting: Callable[[], None]) -> Iterator[None]:
    """Stand for a session that cannot be made."""
    starting()
    raise EngineError(f"Spark could not be started: {settings}")
    yield


def test_the_start_of_spark_is_said_before_it_starts(
    toy: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (preparation, answer_files):
        monkeypatch.setattr(module, "spark_session", no_spark)
    monkeypatch.setattr(preparation, "check_spark", lambda: None)
    Path("a.parquet").touch()
    said = command("preprocess", "a.parquet", "--name", "x", *SPARK)
    assert said.err.splitlines() == ["starting Spark, to read a.parquet", "error: Spark could not be started: {}"]
    assert command("train", "--model", "popularity").code == 0
    said = command("recommend", "--input", "a.parquet", "--output", "b.parquet", *SPARK)
    assert said.err.splitlines() == ["starting Spark, to read a.parquet", "error: Spark could not be started: {}"]


def test_only_what_is_known_to_be_on_this_machine_is_looked_for_here(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HADOOP_CONF_DIR", "YARN_CONF_DIR", "HADOOP_HOME", "SPARK_CONF_DIR", "SPARK_HOME"):
        monkeypatch.delenv(name, raising=False)
    Path("b.parquet").touch()
    check_paths(
        ["b.parquet", "*.parquet", f"file://{workplace}/b.parquet", "s3a://none/", "{b,c}.parquet", "hdfs:///x"]
    )
    for one in ("none/", f"file://{workplace}/none", "n*"):
        with pytest.raises(UsageError, match=r"^no file at .*n.*; check the path$"):
            check_paths([one])
    check_paths(["none/"], {"spark.hadoop.fs.defaultFS": "hdfs://there"})
    monkeypatch.setenv("HADOOP_CONF_DIR", "/etc/hadoop")
    check_paths(["none/"])
    with pytest.raises(UsageError, match="no file at"):
        check_paths([f"file://{workplace}/none"])
