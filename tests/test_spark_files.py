"""Which files Spark reads, in which order, and what it says of them: as on one machine, whatever they are called."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from spark_sessions import MARKS, on_one_core, skip_without_spark

from recvae import EASE, Dataset, Recommender
from recvae.datasets.preparation import prepare_log
from recvae.datasets.protocol import Protocol
from recvae.datasets.reading.options import LogFormat
from recvae.errors import DataError, EngineError, UsageError

skip_without_spark()

from recvae import spark as on_spark  # noqa: E402
from recvae.spark.answer_files import recommend_files  # noqa: E402

pytestmark = MARKS
PROTOCOL = Protocol(split="holdout", min_user_items=0, min_rating=0)


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    with on_one_core() as spark:
        yield spark


def log(seed: int, n: int = 40) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    columns = {"user": draw.integers(0, 8, n), "item": draw.integers(0, 12, n), "rating": draw.integers(1, 6, n)}
    return pd.DataFrame({**columns, "time": 10**9 + draw.integers(0, 9, n)}).astype({"rating": "float32"})


def write(folder: Path, *names: str) -> Path:
    """Write a log of its own under each name."""
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        log(seed).to_parquet(folder / name)
    return folder


def same(paths: Any, folder: Path, **options: Any) -> dict[str, Any]:
    """Prepare a log on both engines, compare all that they say of it, and return what was read."""
    known = LogFormat(**options)
    made = on_spark.prepare(paths, folder / "made", name="log", protocol=PROTOCOL, log_format=known)
    expected = prepare_log(paths, PROTOCOL, name="log", log_format=known)
    assert made.fingerprint == expected.dataset.manifest["fingerprint"]
    assert expected.reading is not None and made.reading.lines()[1:] == expected.reading.lines()[1:]
    assert made.warnings == expected.warnings
    return made.manifest["source"]["reading"]


def test_what_a_pattern_finds_is_read_in_the_order_of_one_machine(session: Any, tmp_path: Path) -> None:
    names = (
        "day/p.parquet",
        "day-2/p.parquet",
        "day b/p.parquet",
        "day.parquet/x/p.parquet",
        "day.parquet/x-1.parquet",
    )
    write(tmp_path / "log", *names)
    assert session and same(f"{tmp_path}/log/*/p.parquet", tmp_path)["rows"] == 3 * 40
    for pattern in ("*", "*/"):
        assert same(f"{tmp_path}/log/{pattern}", tmp_path)["rows"] == 5 * 40


@pytest.mark.parametrize("name", ["log[1].parquet", "log{1,2}.parquet", "log?.parquet", "log*.parquet"])
def test_a_file_is_read_by_its_very_name(session: Any, tmp_path: Path, name: str) -> None:
    """Marks of patterns in its name are letters: another file would be read without a word."""
    write(tmp_path / "log [1]", name, "log1.parquet")
    assert session and same(str(tmp_path / "log [1]" / name), tmp_path)["rows"] == 40
    assert same(str(tmp_path / "log [1]"), tmp_path)["rows"] == 80


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("**/*.parquet", r"got .*/\*\*/\*.parquet with Spark, to which \*\* is the folders of one level alone; give"),
        ("*", r"got .*/\* with Spark, which leaves out .*/_old.parquet: its name begins with _; rename it, give"),
        ("[^b]*", r"got .*/\[\^b\]\* with Spark, to which \[\^ is the begin of signs that are left out; write \[! for"),
        ("[.a]*", r"got .* with Spark, which reads .*/.hidden too, although a name in it begins with a dot; give"),
        ("[!_ab]*/h.parquet", r"got .*, which reads .*/.hidden/h.parquet too, although a name in it begins with a dot"),
        ("x", r"got .*/x with Spark, which reads .*/x/_a=1.parquet, although its name begins with _; rename it, or"),
        ("_old.parquet", r"got .*/_old.parquet with Spark, which leaves out .*/_old.parquet: its name begins with _"),
    ],
)
def test_a_pattern_by_which_spark_finds_other_files_is_refused(
    session: Any, tmp_path: Path, pattern: str, message: str
) -> None:
    names = ("a.parquet", "x/b.parquet", "x/y/c.parquet", "_old.parquet", ".hidden/h.parquet", "x/_a=1.parquet")
    write(tmp_path / "log", *names)
    with pytest.raises(UsageError, match=message):
        on_spark.prepare(f"{tmp_path}/log/{pattern}", tmp_path / "no", protocol=PROTOCOL)
    assert session and not (tmp_path / "no").exists()


def test_links_are_followed_once_and_refused_where_they_lead_nowhere(session: Any, tmp_path: Path) -> None:
    """Spark would read each row twice, and pass over what is gone."""
    write(tmp_path / "log", "a.parquet", "x/b.parquet")
    (tmp_path / "log" / "y").symlink_to("x")
    message = r"got .*/y/b.parquet twice \(also as .*/x/b.parquet\); give each file once"
    with pytest.raises(UsageError, match=message):
        on_spark.prepare(str(tmp_path / "log"), tmp_path / "no", protocol=PROTOCOL)
    with pytest.raises(UsageError, match=message):
        prepare_log(tmp_path / "log", PROTOCOL, name="no")
    (tmp_path / "log" / "y").unlink()
    (tmp_path / "log" / "y.parquet").symlink_to("gone.parquet")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "z").symlink_to("../log")
    (tmp_path / "linked" / "above").symlink_to("../linked")
    message = r"y.parquet is a link to nothing; bring back what it leads to, or remove the"
    for given in ("log", "log/*", "log/y*", "linked", "link*"):
        with pytest.raises(DataError, match=message):
            on_spark.prepare(str(tmp_path / given), tmp_path / "no", protocol=PROTOCOL)
    assert session


@pytest.mark.parametrize(("column", "on_bad_row"), [("user", "stop"), ("item", "stop"), ("time", "skip")])
def test_a_file_with_nothing_in_a_column_has_rows_without_it(
    session: Any, tmp_path: Path, column: str, on_bad_row: str
) -> None:
    """Unlike one that lacks the column, which is no file of this log."""
    write(tmp_path / "log", "a.parquet")
    log(1).assign(**{column: pd.array([None] * 40, dtype="Int64")}).to_parquet(tmp_path / "log" / "b.parquet")
    assert session and same(str(tmp_path / "log"), tmp_path, on_bad_row=on_bad_row)["events"] == 40


def test_a_folder_of_rows_without_a_user_is_counted(session: Any, tmp_path: Path) -> None:
    for seed, name in enumerate(("7", "007", "__HIVE_DEFAULT_PARTITION__")):
        (tmp_path / "log" / f"user={name}").mkdir(parents=True)
        log(seed).drop(columns="user").to_parquet(tmp_path / "log" / f"user={name}" / "part.parquet")
    assert session and same(str(tmp_path / "log"), tmp_path)["missing"] == {"user": {"empty": 40}}


def test_files_without_a_row_are_named(session: Any, tmp_path: Path) -> None:
    write(tmp_path / "log", "a b.parquet", "c.parquet")
    for name in ("more.parquet", "again #1.parquet"):
        log(0)[:0].to_parquet(tmp_path / "log" / name)
    found = same(str(tmp_path / "log"), tmp_path)
    assert session and found["empty_files"] == 2 and found["rows"] == 80


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("time", (-5, -7), "a.parquet row 4: column 'time' holds -5, expected a time since 1970"),
        ("rating", (np.inf, None), "a.parquet row 4: column 'rating' holds inf, expected a number"),
        ("rating", (None, np.inf), "a.parquet row 4: column 'rating' is empty or no such value, expected a number"),
    ],
)
def test_the_value_that_is_shown_stands_in_the_row_that_is_named(
    session: Any, tmp_path: Path, column: str, values: tuple[Any, Any], message: str
) -> None:
    """Spark reads the largest file first, and other orders of names than those of folders and files."""
    for name, n, value in (("a/a.parquet", 20, values[0]), ("a b/b.parquet", 4000, values[1])):
        events = log(0, n)
        events.loc[3, column] = value
        (tmp_path / "log" / name).parent.mkdir(parents=True)
        events.to_parquet(tmp_path / "log" / name)
    with pytest.raises(DataError, match=message):
        on_spark.prepare(str(tmp_path / "log"), tmp_path / "no", protocol=PROTOCOL)
    with pytest.raises(DataError, match=r"a\.parquet row 4"):
        prepare_log(tmp_path / "log", PROTOCOL, name="no")
    assert session


def test_a_mark_for_no_id_is_shown_as_on_one_machine(session: Any, tmp_path: Path) -> None:
    events = log(0).astype({"user": "float64"})
    events.loc[:4, "user"] = -1.0
    events.to_parquet(tmp_path / "log.parquet")
    found = same(str(tmp_path / "log.parquet"), tmp_path, null=("-1",))
    assert session and found["missing"] == {"user": {"-1": 5}}


def unsigned(seconds: np.ndarray) -> pa.Array:
    return pa.array(seconds.astype("uint64") * 10**9 + 999_999_999)


def with_fraction(seconds: np.ndarray) -> pa.Array:
    return pa.array([Decimal(int(one)) + Decimal("0.999999999") for one in seconds], pa.decimal128(20, 9))


@pytest.mark.parametrize("times", [unsigned, with_fraction])
def test_times_are_cut_to_seconds_without_being_rounded(
    session: Any, tmp_path: Path, times: Callable[[np.ndarray], pa.Array]
) -> None:
    """A float has no room for their last digits, and would make the next second of them."""
    events = log(0)
    table = pa.Table.from_pandas(events).set_column(3, "time", times(events["time"].to_numpy()))
    pq.write_table(table, tmp_path / "log.parquet")
    found = same(str(tmp_path / "log.parquet"), tmp_path)["times"]
    assert session and (found["first"], found["last"]) == (events["time"].min(), events["time"].max())


def test_paths_whose_columns_have_other_names_are_no_log(session: Any, tmp_path: Path) -> None:
    log(0).to_parquet(tmp_path / "a.parquet")
    log(1).rename(columns={"user": "customer_id"}).to_parquet(tmp_path / "b.parquet")
    paths = [str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")]
    message = r"a.parquet has the columns user, item, rating, time, but .*b.parquet has customer_id, item, rat"
    with pytest.raises(DataError, match=message):
        on_spark.prepare(paths, tmp_path / "no", protocol=PROTOCOL)
    with pytest.raises(DataError, match=message):
        prepare_log(paths, PROTOCOL, name="no")
    assert session


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, random_log: Callable[..., Any]) -> Path:
    folder = tmp_path_factory.mktemp("run") / "ease"
    Recommender(EASE(l2=5).fit(Dataset.from_events(random_log(), name="toy", heldout_users=6))).save(folder)
    return folder


@pytest.mark.parametrize("column", ["user", "item", "weight"])
def test_files_of_histories_of_which_one_lacks_a_column_are_refused(
    session: Any, bundle: Path, tmp_path: Path, column: str
) -> None:
    """Its users would get the most popular items, or nothing."""
    item = Recommender.load(bundle).item_ids[0]
    rows = pd.DataFrame({"user": [1, 2], "item": item, "weight": 2.0})
    (tmp_path / "in").mkdir()
    rows.to_parquet(tmp_path / "in" / "a.parquet")
    rows.rename(columns={column: "other"}).to_parquet(tmp_path / "in" / "b.parquet")
    with pytest.raises(DataError, match=rf"b.parquet has no column '{column}', which other files have; expected the"):
        recommend_files(str(tmp_path / "in"), str(tmp_path / "out.parquet"), bundle)
    assert session and not (tmp_path / "out.parquet").exists()


def test_answers_are_written_and_read_by_their_very_name(session: Any, bundle: Path, tmp_path: Path) -> None:
    """A failed job leaves nothing that stands in the way of the next one."""
    known = Recommender.load(bundle)
    rows = pd.DataFrame({"user": [1, 2, 3], "item": [known.item_ids[0], known.item_ids[1], "unheard of"]}).astype(str)
    rows.assign(weight=[1.0, -1.0, 1.0]).to_parquet(tmp_path / "in [1].parquet")
    source, output = str(tmp_path / "in [1].parquet"), str(tmp_path / "top[1].parquet")
    (tmp_path / "top1.parquet").mkdir()
    with pytest.raises(EngineError, match=r"got invalid values in the column weight, .*; nothing is written$"):
        recommend_files(source, output, bundle)
    assert session and not Path(output).exists()
    rows.to_parquet(tmp_path / "in [1].parquet")
    done = recommend_files(source, output, bundle, options={"k": 2})
    assert (done.users, done.fallback, done.without, done.unknown) == (3, 1, 0, 1)
    done = recommend_files(source, str(tmp_path / "no.parquet"), bundle, options={"k": 2, "exclude": known.item_ids})
    assert (done.users, done.fallback, done.without, done.unknown) == (3, 0, 3, 1)


def test_ids_that_look_alike_are_named_by_both_engines(session: Any, tmp_path: Path) -> None:
    table = log(0)
    table["item"] = [("Bj\u00f6rk", "Bjo\u0308rk", "a  b", "a b", "c")[n % 5] for n in range(len(table))]
    table.to_parquet(tmp_path / "log.parquet")
    reading = same([tmp_path / "log.parquet"], tmp_path)
    assert reading["alike"] == {"item": {"n_ids": 2, "first": "Bjo\u0308rk", "second": "Bj\u00f6rk"}}
