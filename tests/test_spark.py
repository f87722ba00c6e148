"""Spark: the data sets and recommendations of the engine on one machine, event for event, by real processes.

One session serves all tests of this file. They are skipped where pyspark or Java is missing.
"""

import json
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spark_sessions import MARKS, skip_without_spark

from recvae import EASE, Dataset, Recommender
from recvae.datasets import shards
from recvae.datasets.preparation import prepare_log
from recvae.datasets.protocol import Protocol
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.splits.protocols import PROTOCOLS
from recvae.errors import DataError, EngineError, UsageError

skip_without_spark()

import pyspark  # noqa: E402

from recvae import spark as on_spark  # noqa: E402
from recvae.spark import draws, filters, tables, writing  # noqa: E402
from recvae.spark.answer_files import recommend_files  # noqa: E402
from recvae.spark.session import check_spark, settings_of, spark_errors, spark_session  # noqa: E402

pytestmark = MARKS
SETTINGS = {
    "spark.master": "local[2,4]",  # a task may fail three times
    "spark.driver.memory": "1g",
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.codegen.wholeStage": "false",  # small logs are done before a program is compiled
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
}


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with spark_session(SETTINGS) as spark:
            yield spark


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several shards, and several buckets of draws, for logs of a few hundred rows."""
    monkeypatch.setattr(shards, "EVENTS_PER_SHARD", 120)
    monkeypatch.setattr(draws, "_PER_BUCKET", 64)


def odd_log(seed: int = 0, n: int = 700) -> pd.DataFrame:
    """Return a log with duplicates, equal times, blanks, two cases, words for nothing and empty cells."""
    generator = np.random.default_rng(seed)
    users = [f"Ü{user}" if user % 2 else f" u{user}" if user % 3 else f"U{user}" for user in range(60)]
    users += ["u2", "user \U0001f600", "\uff5e", "Null", "", "007", "7", "7.0"]
    items = [f"film {item}" for item in range(25)] + [f"FILM {item}" for item in range(10)] + [None, "NaN", " x ", "x"]
    times = generator.integers(10**9, 10**9 + 200, n)
    chosen = generator.integers(0, len(users), n), generator.integers(0, len(items), n) ** 2 // len(items)
    return pd.DataFrame(
        {
            "customer_id": [users[user] for user in chosen[0]],
            "sku": [items[item] for item in chosen[1]],
            "stars": generator.integers(1, 11, n).astype(np.float32) / 2,
            "at": pd.to_datetime(times, unit="s", utc=True).astype("datetime64[us, UTC]"),
        }
    )


FORMAT = LogFormat(user="customer_id", item="sku", rating="stars", time="at")


def written(log: pd.DataFrame, folder: Path) -> Path:
    """Write a log as two files of several row groups; the names order them."""
    folder.mkdir(parents=True)
    log.iloc[: len(log) // 3].to_parquet(folder / "part b.parquet", row_group_size=50)
    log.iloc[len(log) // 3 :].to_parquet(folder / "part c.parquet", row_group_size=100)
    return folder


def same(made: Any, expected: Dataset) -> None:
    """Compare all that a data set says of itself, and then itself."""
    for fact in ("counts", "filters", "protocol", "dropped", "fingerprint"):
        assert made.manifest[fact] == expected.manifest[fact], fact
    read, other = made.manifest["source"].get("reading", {}), expected.manifest["source"].get("reading", {})
    for fact in ("rows", "events", "dropped", "missing", "doubtful", "times", "ratings"):
        assert read.get(fact) == other.get(fact), fact
    again = Dataset.load(made.folder)
    assert again.train_user_ids is not None and expected.train_user_ids is not None
    assert again.train_user_ids.tolist() == expected.train_user_ids.tolist()
    for part in ("validation", "test"):
        assert again.part(part).user_ids.tolist() == expected.part(part).user_ids.tolist()
    assert (again.titles is None) == (expected.titles is None)
    assert again.items.train_counts.tolist() == expected.items.train_counts.tolist()


LARGE = ("leave-last-out", "time")  # which other tests of this file and tests/test_relational.py have too


@pytest.mark.parametrize(
    "split", [pytest.param(one, marks=pytest.mark.large if one in LARGE else []) for one in PROTOCOLS]
)
def test_files_become_the_data_set_of_one_machine(session: Any, tmp_path: Path, split: str) -> None:
    log = written(odd_log(), tmp_path / "log")
    protocol = Protocol(split=split, min_rating=2.25, min_user_items=3, min_item_users=2, seed=3)
    made = on_spark.prepare(str(log), tmp_path / "spark", protocol=protocol, log_format=FORMAT, name="log")
    expected = prepare_log(log, protocol, name="log", log_format=FORMAT).dataset
    same(made, expected)
    assert len(made.manifest["shards"]["train"]) > 1
    found = sorted(path.name for path in (tmp_path / "spark").iterdir())
    assert found == ["items.parquet", "manifest.json", "test", "train", "train_users.parquet", "validation"]
    listed = {one["file"] for part in made.manifest["shards"].values() for one in part}
    assert listed == {path.relative_to(tmp_path / "spark").as_posix() for path in (tmp_path / "spark").rglob("*.safe*")}
    assert not [table for table in session.catalog.listTables() if table.name.startswith("recvae")]


def test_files_in_sub_folders_are_read_too(session: Any, tmp_path: Path) -> None:
    log = written(odd_log(), tmp_path / "log")
    (log / "more" / "2026").mkdir(parents=True)
    (log / "part c.parquet").rename(log / "more" / "2026" / "part c.parquet")
    (log / "_SUCCESS").touch()
    protocol = Protocol(split="strong", heldout_users=5, min_rating=2.25)
    made = on_spark.prepare(str(log), tmp_path / "spark", protocol=protocol, log_format=FORMAT, name="log")
    same(made, prepare_log(log, protocol, name="log", log_format=FORMAT).dataset)


def test_no_file_is_left_out_where_only_some_folders_name_a_column(
    session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = written(odd_log(), tmp_path / "log")
    for name, folder in (("part b.parquet", "day=1"), ("part c.parquet", "x")):
        (log / folder).mkdir()
        (log / name).rename(log / folder / name)
    with pytest.raises(EngineError, match="CONFLICTING_DIRECTORY_STRUCTURES"):
        on_spark.prepare(str(log), tmp_path / "spark", log_format=FORMAT, name="log")
    every = session.read.parquet(str(log / "day=1" / "part b.parquet"), str(log / "x" / "part c.parquet"))
    shutil.move(log / "x", tmp_path / "elsewhere")
    monkeypatch.setattr(tables, "_files_below", lambda *_: every)  # as if Spark did not see the second file
    with pytest.raises(
        DataError, match=r"Spark would leave out /.*part c\.parquet, expected all files in folders that"
    ):
        on_spark.prepare(str(log), tmp_path / "spark", log_format=FORMAT, name="log")
    assert not (tmp_path / "spark").exists()


def failing_once() -> Callable[[Any], Iterator[Any]]:
    """Return a function that passes rows on; every task fails the first time, after it has passed on some of them.

    It goes to the workers by value: they would import all of this file to find it.
    """

    def fail(batches: Any) -> Iterator[Any]:
        from pyspark import TaskContext

        context = TaskContext.get()
        for batch in batches:
            yield batch
            if context is not None and context.attemptNumber() == 0:
                raise RuntimeError("this machine is gone")

    return fail


def test_a_table_is_read_by_user_and_item_and_failed_tasks_double_nothing(session: Any, tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    log = pd.DataFrame({"user": generator.integers(0, 50, 600) - 9, "item": generator.integers(2**40, 2**40 + 40, 600)})
    frame = session.createDataFrame(pa.Table.from_pandas(log)).repartition(2)
    flaky = frame.mapInArrow(failing_once(), "user bigint, item bigint").persist()  # only the first reading fails
    made = on_spark.prepare(flaky, tmp_path / "spark", split="holdout", name="log")
    log.sort_values(["user", "item"]).to_parquet(tmp_path / "log.parquet")
    expected = prepare_log(tmp_path / "log.parquet", Protocol(split="holdout"), name="log").dataset
    same(made, expected)


def test_a_task_that_is_run_again_writes_the_same_files(tmp_path: Path) -> None:
    rows = {"number": [0, 0, 0, 1, 1, 2], "row": [0, 0, 1, 2, 3, 5], "item_column": [1, 4, 0, 2, 2, 3]}
    table = pa.table({name: pa.array(values, pa.int32()) for name, values in rows.items()})
    (tmp_path / "train").mkdir()

    def write() -> Iterator[pa.RecordBatch]:
        batches = iter(table.to_batches(max_chunksize=2))
        return writing._write(batches, folder=str(tmp_path), part="train", size=2, n_rows=6)

    first = next(write())  # killed after its first shard
    (tmp_path / "train" / ".part-00001.safetensors.1.tmp").write_bytes(b"half")
    again = list(write())
    assert again[0].to_pylist() == first.to_pylist()
    listed = [one for batch in again for one in batch.to_pylist()]
    assert [(one["number"], one["rows"], one["nnz"]) for one in listed] == [(0, 2, 3), (1, 2, 2), (2, 2, 1)]
    names = [shards.shard_name("train", one["number"]) for one in listed]
    found = [
        shards.Shard(file=name, **{key: one[key] for key in ("rows", "nnz", "bytes", "sha256")})
        for name, one in zip(names, listed, strict=True)
    ]
    writing._check(tmp_path, "train", found)
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == [Path(name).name for name in names]
    matrix = shards.ShardedMatrix(tmp_path, tuple(found), 5).matrix()
    assert [row.tolist() for row in np.split(matrix.indices, matrix.indptr[1:-1])] == [[1, 4], [0], [2], [2], [], [3]]
    (tmp_path / names[1]).unlink()
    with pytest.raises(EngineError, match=r"^an executor has written train/part-00001.safetensors, which is not in .*"):
        writing._check(tmp_path, "train", found)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, random_log: Callable[..., Any]) -> Path:
    folder = tmp_path_factory.mktemp("run") / "ease"
    dataset = Dataset.from_events(random_log(words=True), name="toy", heldout_users=6)
    Recommender(EASE(l2=5).fit(dataset)).save(folder)
    return folder


def histories(n: int = 3000) -> pd.DataFrame:
    generator = np.random.default_rng(2)
    items = [f"film {item}" for item in range(960, 1010)] + ["NULL"]
    users = [str(user) for user in range(300)] + ["12.0", " 13"]
    return pd.DataFrame(
        {
            "user": [users[user] for user in generator.integers(0, len(users), n)],
            "item": [items[item] for item in generator.integers(0, len(items), n)],
            "weight": generator.integers(1, 4, n).astype(np.float32),
        }
    )


def in_order(rows: pa.Table) -> list[dict[str, Any]]:
    return rows.sort_by([("user", "ascending"), ("rank", "ascending")]).to_pylist()


def test_recommendations_are_those_of_one_machine(
    session: Any, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.Table.from_pandas(histories(), preserve_index=False)
    known = Recommender.load(bundle)
    exclude = [known.item_ids[3]]
    frame = session.createDataFrame(table).mapInArrow(failing_once(), "user string, item string, weight float")
    found = on_spark.recommend(frame, bundle, 7, exclude=exclude)
    assert found.columns == ["user", "rank", "id", "title", "score", "fallback"]
    rows = found.toArrow()
    expected = known.recommend_batch(table, 7, exclude=exclude).to_arrow()
    assert in_order(rows) == in_order(expected)  # scores too, to the bit


def test_a_file_of_recommendations_has_the_rows_of_one_machine(session: Any, bundle: Path, tmp_path: Path) -> None:
    from recvae.recommenders.answer_files import recommend_file

    table = histories()
    table.loc[:20, "user"] = None
    table.loc[table.user == "77", "item"] = "unheard of"
    table.to_parquet(tmp_path / "in.parquet")
    done = recommend_files(str(tmp_path / "in.parquet"), str(tmp_path / "out.parquet"), bundle, options={"k": 5})
    known = Recommender.load(bundle)
    local = recommend_file(
        tmp_path / "in.parquet", tmp_path / "one.parquet", lambda block: known.recommend_batch(block, 5), {}
    )
    assert in_order(pq.read_table(tmp_path / "out.parquet")) == in_order(pq.read_table(tmp_path / "one.parquet"))
    for fact in ("users", "fallback", "without", "unknown", "left_out", "columns"):
        assert getattr(done, fact) == getattr(local, fact)
    assert done.fallback > 0 and done.unknown > 0 and done.left_out["rows without a user id"] == 21
    with pytest.raises(UsageError, match=r"out.parquet exists already; remove it, or choose another name$"):
        recommend_files(str(tmp_path / "in.parquet"), str(tmp_path / "out.parquet"), bundle)
    table[:0].to_parquet(tmp_path / "none.parquet")
    with pytest.raises(DataError, match=r"none.parquet has no rows; expected one row per event$"):
        recommend_files(str(tmp_path / "none.parquet"), str(tmp_path / "no.parquet"), bundle)
    table.assign(item="nobody's").to_parquet(tmp_path / "other.parquet")
    with pytest.raises(DataError, match=r"none of its items is in the model, all users would get the most popular"):
        recommend_files(str(tmp_path / "other.parquet"), str(tmp_path / "no.parquet"), bundle)
    assert not (tmp_path / "no.parquet").exists()


def test_a_row_without_a_user_stops_the_job_and_says_so(session: Any, bundle: Path) -> None:
    frame = session.createDataFrame([("a", "film 990"), (None, "film 991")], "user string, item string")
    with (
        pytest.raises(
            EngineError, match=r"^it: got an empty cell in the column of users, expected a user in every row"
        ),
        spark_errors("it"),
    ):
        on_spark.recommend(frame, bundle).collect()


def test_what_spark_would_read_in_another_way_is_refused(session: Any, tmp_path: Path) -> None:
    def prepared(schema: str, **options: Any) -> None:
        on_spark.prepare(session.createDataFrame([], schema), tmp_path / "no", **options)

    for schema, options, kind, message in (
        ("a int, b int", {}, DataError, r"the table: could not tell which column holds the user id; it has: a, b;"),
        ("user int, item int", {"user": "usr"}, UsageError, r"has no column 'usr'; it has: user, item; did you mean"),
        ("user int, item array<int>", {}, DataError, r"column 'item' holds lists, expected one id per row;"),
        (
            "user binary, item int",
            {},
            DataError,
            r"column 'user' holds binary, expected integers or texts for",
        ),
        ("user date, item int", {}, DataError, r"column 'user' holds date, expected integers or texts"),
        ("user decimal(9,2), item int", {}, DataError, r"column 'user' holds decimal\(9,2\), expected integers"),
        ("user int, item int, rating string", {}, DataError, r"'rating' holds string, expected numbers for the rating"),
        ("user int, item int, time string", {}, DataError, r"'time' holds string, expected times: .*--no-time$"),
        ("user int, item int, time float", {}, DataError, r"'time' holds 32-bit floats, which cannot tell seconds"),
        ("user int, item int", {"splitt": 1}, UsageError, r"^got splitt, expected fields of Protocol and LogFormat;"),
        ("user int, item int", {"separator": ","}, UsageError, r"^got separator with Spark, which reads Parquet and"),
        ("user int, item int", {"split": "weak"}, UsageError, r"^got split 'weak', expected one of: strong, holdout"),
        (
            "user int, item int",
            {"user": "user", "log_format": FORMAT},
            UsageError,
            r"^got log_format and user, exp",
        ),
    ):
        with pytest.raises(kind, match=message):
            prepared(schema, **options)
    with pytest.raises(UsageError, match=r"^got log.csv with Spark, which reads Parquet and tables here; write it as"):
        on_spark.prepare("log.csv", tmp_path / "no")
    with pytest.raises(EngineError, match=r"^no file and no table 'shop' could be read: .*TABLE_OR_VIEW_NOT_FOUND"):
        on_spark.prepare("shop", tmp_path / "no")
    with pytest.raises(UsageError, match=r"^no file at .*nowhere.parquet; check the path$"):
        on_spark.prepare(str(tmp_path / "nowhere.parquet"), tmp_path / "no")
    with pytest.raises(UsageError, match=r"^got a.b, c, expected one table, or paths of files; give one of them$"):
        on_spark.prepare(["a.b", "c"], tmp_path / "no")
    with pytest.raises(UsageError, match=r"^got no log, expected a table or at least one path$"):
        on_spark.prepare([], tmp_path / "no")
    assert not list(tmp_path.iterdir())


def test_rows_that_cannot_be_used_are_refused_or_counted_as_on_one_machine(session: Any, tmp_path: Path) -> None:
    log = odd_log(n=200)
    log.loc[[150, 170], "stars"] = np.nan
    written(log, tmp_path / "log")
    protocol = Protocol(split="leave-last-out", min_rating=0.5, min_user_items=0)
    message = r"part c.parquet row 85: column 'stars' .* expected a number; repair or remove the row, name another"
    for prepare in (
        lambda: on_spark.prepare(str(tmp_path / "log"), tmp_path / "no", protocol=protocol, log_format=FORMAT),
        lambda: prepare_log(tmp_path / "log", protocol, name="no", log_format=FORMAT),
    ):
        with pytest.raises(DataError, match=message):
            prepare()
    assert not (tmp_path / "no").exists()
    skipping = LogFormat(user="customer_id", item="sku", rating="stars", time="at", on_bad_row="skip", null=("u2",))
    made = on_spark.prepare(str(tmp_path / "log"), tmp_path / "yes", protocol=protocol, log_format=skipping, name="log")
    same(made, prepare_log(tmp_path / "log", protocol, name="log", log_format=skipping).dataset)
    assert made.manifest["source"]["reading"]["dropped"]["rows without a readable rating"] == 2


def test_the_command_says_what_it_says_without_spark(
    session: Any, workplace: Path, command: Callable[..., Any], bundle: Path
) -> None:
    written(odd_log(), workplace / "plays")
    Path("titles.csv").write_text("sku,title\nfilm 3,Up\nFILM 3,Down\n")
    words = ("plays", "--user-col", "customer_id", "--item-col", "sku", "--rating-col", "stars", "--time-col", "at")
    words = ("preprocess", *words, "--min-rating", 1, "--titles", "titles.csv", "--id-col", "sku")
    said = command(*words, "--engine", "spark", "--spark-conf", "spark.master=local[2]")
    assert said.code == 0, said.err
    alone = command(*words, "--name", "alone")
    shown = [line for line in said.out.splitlines() if not line.startswith(("written", "read:"))]
    alike = [line.replace("alone", "plays") for line in alone.out.splitlines()]
    assert shown == [line for line in alike if not line.startswith(("written", "read:"))]
    made, expected = Dataset.load("data/plays"), Dataset.load("data/alone")
    assert made.fingerprint == expected.fingerprint
    assert made.titles is not None and expected.titles is not None
    assert made.titles.tolist() == expected.titles.tolist() and "Up" in made.titles
    assert "is a data set already" in " ".join(command(*words, "--engine", "spark").err.split())
    histories().to_parquet("in.parquet")
    files = ("--input", "in.parquet", "--output", "out.parquet")
    said = command("recommend", bundle, "--engine", "spark", *files, "-k", 3)
    assert said.code == 0, said.err
    assert "out.parquet: 300 users; read user = user, item = item, weight = weight" in said.err
    assert pq.read_table("out.parquet")["rank"].to_numpy().max() == 3


@pytest.mark.parametrize("column", ["rating", "time"])
@pytest.mark.parametrize("on_bad_row", ["stop", "skip"])
def test_a_file_without_a_column_that_others_have_is_refused(
    session: Any, tmp_path: Path, column: str, on_bad_row: str
) -> None:
    """Spark would fill it with nothing, and each of its rows would be left out."""
    log = pd.DataFrame({"user": [1, 2], "item": [3, 4], "rating": [5.0, 4.0], "time": [10**9, 10**9 + 1]})
    (tmp_path / "log").mkdir()
    log.to_parquet(tmp_path / "log" / "a.parquet")
    log.drop(columns=column).to_parquet(tmp_path / "log" / "b.parquet")
    options = LogFormat(on_bad_row=on_bad_row)
    message = rf"b.parquet: column '{column}' has no value in 2 rows, .* leave it out with --no-{column}$"
    with pytest.raises(DataError, match=message):
        on_spark.prepare(str(tmp_path / "log"), tmp_path / "no", log_format=options)
    assert not (tmp_path / "no").exists()


def test_files_that_spark_cannot_read_together_are_refused_in_its_own_words(session: Any, tmp_path: Path) -> None:
    log = pd.DataFrame({"user": [1, 2], "item": [3, 4], "User": [5, 6]})
    log.to_parquet(tmp_path / "twins.parquet")
    with pytest.raises(DataError, match=r"twins.parquet: several columns are called 'user' but for case; rename one"):
        on_spark.prepare(str(tmp_path / "twins.parquet"), tmp_path / "no")
    (tmp_path / "log").mkdir()
    for name, zone in (("a", None), ("b", "UTC")):
        times = pd.to_datetime([10**9, 10**9 + 1], unit="s", utc=zone == "UTC").astype(
            "datetime64[us]" if zone is None else "datetime64[us, UTC]"
        )
        log[["user", "item"]].assign(time=times).to_parquet(tmp_path / "log" / f"{name}.parquet")
    with pytest.raises(EngineError, match=r"log could not be read: .*Failed to merge incompatible data types"):
        on_spark.prepare(str(tmp_path / "log"), tmp_path / "no")


LOGS = st.lists(
    st.tuples(
        st.sampled_from(["a", "A", "ä", "é", " a", "b", "c", "\U0001f600", "\uffee", "NULL", None, "10", "9"]),
        st.sampled_from([1, 2, 3, 5, 8, 13, -1]),
        st.sampled_from([1.0, 2.5, 4.0, 5.0]),
        st.integers(10**9, 10**9 + 4),
    ),
    min_size=25,
    max_size=80,
)


@pytest.mark.large
@pytest.mark.parametrize("split", PROTOCOLS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(rows=LOGS, seed=st.integers(0, 2**32 - 1), least=st.integers(0, 2))
def test_any_small_log(
    session: Any, tmp_path_factory: pytest.TempPathFactory, split: str, rows: list[Any], seed: int, least: int
) -> None:
    folder = tmp_path_factory.mktemp("any")
    log = pd.DataFrame(rows, columns=["user", "item", "rating", "time"])
    log.to_parquet(folder / "log.parquet", row_group_size=10)
    protocol = Protocol(split=split, min_rating=2.5, min_user_items=least, min_item_users=least, seed=seed)
    try:
        expected = prepare_log(folder / "log.parquet", protocol, name="log").dataset
    except (DataError, UsageError) as error:
        with pytest.raises(type(error)) as found:
            on_spark.prepare(str(folder / "log.parquet"), folder / "no", protocol=protocol, name="log")
        assert str(found.value) == str(error)
        return
    same(on_spark.prepare(str(folder / "log.parquet"), folder / "yes", protocol=protocol, name="log"), expected)


def test_a_lost_session_is_said_in_one_line_and_leaves_the_old_data_set(
    session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last test: the session is gone afterwards."""
    written(odd_log(n=100), tmp_path / "log")
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "manifest.json").write_text("{}")
    real = filters.check_filters

    def lost(*given: Any) -> None:
        session.stop()
        real(*given)

    monkeypatch.setattr("recvae.spark.filters.check_filters", lost)
    with pytest.raises(EngineError, match=r"^Spark could not prepare the data: the session of Spark was lost; .*again"):
        on_spark.prepare(str(tmp_path / "log"), tmp_path / "toy", log_format=FORMAT, min_rating=1.0)
    assert [path.name for path in (tmp_path / "toy").iterdir()] == ["manifest.json"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_without_java_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(UsageError, match=r"^got JAVA_HOME=.*, where there is no bin/java; set it to a Java 17"):
        check_spark()
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"^Spark needs Java 17 or later, and there is none; install it, e.g. apt "):
        check_spark()


def test_without_pyspark_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(UsageError, match=r"^Spark needs a library .*; install it with: pip install 'recvae\[spark\]'$"):
        check_spark()


def test_an_old_pyspark_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyspark, "__version__", "3.5.1")
    with pytest.raises(UsageError, match=r"^got pyspark 3.5.1, expected 4 or later; pip install -U 'pyspark>=4'$"):
        check_spark()


def test_settings_are_read_as_they_are_typed() -> None:
    assert settings_of(["spark.master=local[4]", "spark.x = a=b"]) == {"spark.master": "local[4]", "spark.x": "a=b"}
    for wrong in ("master=local", "spark.master"):
        with pytest.raises(UsageError, match=rf"^got --spark-conf '{wrong}', expected NAME=VALUE, e.g. spark.master="):
            settings_of([wrong])


def test_the_room_has_two_public_names() -> None:
    assert dir(on_spark) == ["prepare", "recommend"]
    with pytest.raises(AttributeError, match=r"^module 'recvae.spark' has no attribute 'prepair'$"):
        on_spark.prepair  # type: ignore[attr-defined]  # noqa: B018
    assert json.dumps(sorted(on_spark.__all__)) == '["prepare", "recommend"]'
