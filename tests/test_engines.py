"""`--engine`: what is refused before Spark is started; `tests/test_spark.py` has what it does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]

SPARK = ("--engine", "spark")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("plays.parquet", "--engine", "sparc"), "got --engine sparc, expected local or spark; did you mean spark?"),
        (("plays.parquet", "--engine", "flink"), "got --engine flink, expected local or spark"),
        (("plays.parquet", "--spark-conf", "spark.a=b"), "got --spark-conf without --engine spark, where it has no"),
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
        (("s3a://logs/*", *SPARK), "got s3a://logs/*, which gives the data set no name, expected --name NAME; add it"),
        (("a.parquet", "--spark-conf", "master=x", *SPARK), "got --spark-conf 'master=x', expected NAME=VALUE, e.g."),
        (("a.parquet", "--split", "weak", *SPARK), "got split 'weak', expected one of: strong, holdout, leave-last"),
    ],
)
def test_preprocess_refuses_what_spark_would_not_do(
    workplace: Path, command: Command, words: tuple[str, ...], message: str
) -> None:
    said = command("preprocess", *words)
    assert said.code == 2
    assert message in " ".join(said.err.split())
    assert not list(workplace.rglob("manifest.json"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--items", "1", *SPARK), "got --engine spark for one history, expected --input and --output; leave out"),
        (("--input", "a.parquet", "--output", "b.parquet", "--engine", "x"), "got --engine x, expected local or spark"),
        (
            ("--input", "a.parquet", "--output", "b.parquet", "--explain", "--sep", ",", *SPARK),
            "got --explain, --sep with --engine spark, where it has no effect; leave it out",
        ),
        (("--input", "a.parquet", "--output", "b.csv", *SPARK), "got b.csv with Spark, expected a name ending in .par"),
        (("--input", "a.csv", "--output", "b.parquet", *SPARK), "got a.csv with Spark, which reads Parquet and tables"),
    ],
)
def test_recommend_refuses_what_spark_would_not_do(
    toy: Path, command: Command, words: tuple[str, ...], message: str
) -> None:
    assert command("train", "--model", "popularity").code == 0
    said = command("recommend", *words)
    assert said.code == 2
    assert message in " ".join(said.err.split())
    assert not Path("b.parquet").exists()
