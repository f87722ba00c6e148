"""Files of histories: every form that a log may have, users in any order of rows, and what is wrong is named."""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recvae.datasets.dataset import Dataset
from recvae.datasets.reading.options import LogFormat
from recvae.errors import DataError, UsageError
from recvae.items import ItemIndex
from recvae.models import Model
from recvae.recommenders import answer_files
from recvae.recommenders.histories import HistoryBlock, histories_of
from recvae.recommenders.history_files import HistoryFile, options_like
from recvae.recommenders.recommender import Recommender

Command = Callable[..., Any]
IDS = [1000 - 10 * column for column in range(32)]  # those of the blocks


@pytest.fixture(scope="module")
def ease(fitted: Callable[[str], Model], blocks: Dataset) -> Recommender:
    return Recommender(fitted("ease"), blocks)


@pytest.fixture
def answer(
    bundle_folder: Callable[[str], Path], command: Command, workplace: Path
) -> Callable[..., tuple[Any, list[Any]]]:
    """Return a function that writes a file, has it answered as .jsonl, and returns what was said and the lines."""

    def run(name: str, content: str | bytes | pa.Table, *words: object) -> tuple[Any, list[Any]]:
        if isinstance(content, pa.Table):
            pq.write_table(content, name)
        else:
            Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
        output = Path("recs.jsonl")
        said = command("recommend", bundle_folder("ease"), "--input", name, "--output", output, "-k", 2, *words)
        lines = [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []
        return said, lines

    return run


def tables(path: Path, users: int = 10_000, options: LogFormat | None = None) -> list[dict[str, Any]]:
    """Return the blocks of a file, each as columns."""
    with HistoryFile(path, options) as file:
        return [block.table.to_pydict() for block in file.blocks(users)]


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_ids_of_texts_keep_their_zeros(ending: str, workplace: Path) -> None:
    separator = "\t" if ending == ".tsv" else ","
    rows = [("user", "date", "item"), ("007", "1", "0318"), ("7", "2", "NA"), ("7", "x", "1e3")]
    Path(f"a{ending}").write_text("".join(separator.join(row) + "\n" for row in rows))
    assert tables(Path(f"a{ending}")) == [{"user": ["007", "7", "7"], "item": ["0318", "NA", "1e3"]}]


@pytest.mark.slow
@given(
    users=st.lists(
        st.text('0127.eE+-_aN é,"', min_size=1).map("u".__add__), unique_by=str.strip, min_size=1, max_size=5
    ),
    size=st.integers(1, 3),
)
def test_whatever_users_are_called_they_come_back(
    users: list[str], size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    pd.DataFrame({"user": users, "item": 1}).to_csv(path, index=False, quoting=1)
    blocks = tables(path, size)
    assert [user for block in blocks for user in block["user"]] == [user.strip() for user in users]
    assert all(len(block["user"]) <= size for block in blocks)


@pytest.mark.slow
@given(data=st.data(), size=st.integers(1, 4))
def test_rows_in_any_order_give_whole_users_in_the_order_in_which_they_appear(
    data: st.DataObject, size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = data.draw(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 9)), min_size=1, max_size=30))
    path = tmp_path_factory.mktemp("rows") / "a.csv"
    path.write_text("user,item\n" + "".join(f"{user},{item}\n" for user, item in rows))
    expected: dict[int, list[str]] = {}
    for user, item in rows:
        expected.setdefault(user, []).append(str(item))
    blocks = tables(path, size)
    found: dict[int, list[str]] = {}
    for block in blocks:
        assert not found.keys() & set(block["user"]) and len(set(block["user"])) <= size
        for user, item in zip(block["user"], block["item"], strict=True):
            found.setdefault(user, []).append(item)
    assert list(found.items()) == list(expected.items())


def test_two_spellings_of_a_user_are_one_user(workplace: Path) -> None:
    Path("a.csv").write_text("user,item\n12,a\n7,b\n 12,c\n12.0,d\n")
    assert tables(Path("a.csv")) == [{"user": [12, 12, 12, 7], "item": ["a", "c", "d", "b"]}]


FORMS: dict[str, tuple[str, bytes]] = {
    "semicolons": ("a.csv", b"user;item\nu1;1000\nu2;990\n"),
    "gzip": ("a.csv.gz", gzip.compress(b"user,item\nu1,1000\nu2,990\n")),
    "another ending": ("a.CSV", b"user,item\nu1,1000\nu2,990\n"),
    "no ending": ("a", b"user\titem\nu1\t1000\nu2\t990\n"),
    "other columns": ("a.csv", b"timestamp,visitorid,event,itemid\n1,u1,view,1000\n2,u2,view,990\n"),
    "other keys": ("a.jsonl", b'{"user_id":"u1","items":[1000]}\n{"user_id":"u2","items":["990"]}\n'),
    "blanks": ("a.csv", b"user, item\nu1, 1000\nu2, 990\n"),
    "whole floats": ("a.csv", b"user,item\nu1,1000.0\nu2,990.0\n"),
    "UTF-16": ("a.csv", "user,item\nu1,1000\nu2,990\n".encode("utf-16")),
    "a lone quote": ("a.tsv", b'user\titem\tname\nu1\t1000\t"Weird\nu2\t990\tend"\n'),
    "JSON objects": ("a.json", b'[{"user": "u1", "item": 1000}, {"user": "u2", "item": 990}]'),
    "weights": ("a.jsonl", b'{"user":"u1","items":{"1000":2}}\n{"user":"u2","items":[990]}\n'),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_preprocess_reads_recommend_reads_too(form: str, ease: Recommender, workplace: Path) -> None:
    name, content = FORMS[form]
    Path(name).write_bytes(content)
    with HistoryFile(name) as file:
        found = [ease.recommend_batch(block, 3) for block in file.blocks()]
    expected = ease.recommend_batch({"u1": [1000], "u2": [990]}, 3)
    assert [found[0].users, found[0].columns.tolist()] == [["u1", "u2"], expected.columns.tolist()]
    assert len(found) == 1 and not found[0].fallback.any()


def test_columns_of_the_training_data_are_taken_where_the_file_has_them(answer: Callable[..., Any]) -> None:
    manifest = {"source": {"reading": {"columns": {"user": "who", "item": "what", "rating": None, "time": None}}}}
    Path("a.csv").write_text("user,who,what\n1,u1,1000\n")
    Path("b.csv").write_text("user,item\nu1,1000\n")
    for name in ("a.csv", "b.csv"):
        assert tables(Path(name), options=options_like(manifest)) == [{"user": ["u1"], "item": ["1000"]}]
    named = options_like(manifest, LogFormat(user="user"))
    assert tables(Path("a.csv"), options=named) == [{"user": [1], "item": ["1000"]}]
    assert options_like({}) == options_like({"source": {"reading": {"columns": None}}}) == LogFormat()
    said, lines = answer("c.csv", "me,you,thing\n5,6,1000\n", "--user-col", "you", "--item-col", "thing")
    assert said.code == 0 and lines[0]["user"] == 6 and "read user = you, item = thing" in said.err


def test_rows_that_say_nothing_are_counted(answer: Callable[..., Any]) -> None:
    said, lines = answer("a.csv", "user,item\n1,1000\n,990\nNULL,980\n2,\n\n")
    assert said.code == 0 and [line["user"] for line in lines] == [1, 2]
    for count in ("1 blank line\n", "2 rows without a user id", "1 row without an item"):
        assert f"left out: {count}" in said.err, said.err


@pytest.mark.parametrize("word", ["", "NULL", "nan", "None", "NA", "\\N", "item"])
def test_what_means_no_item_in_a_log_means_none_in_a_file_of_histories(word: str, workplace: Path) -> None:
    Path("a.csv").write_text(f"user,item\n1,1000\n1,{word}\n2,{word}\n3,990\n")
    with HistoryFile(Path("a.csv")) as file:
        blocks = [block.table.to_pydict() for block in file.blocks(10)]
        assert file.counts.left_out == {"rows without an item": 2}
    assert blocks == [{"user": [1, 1, 2, 3], "item": ["1000", None, None, "990"]}]


def test_what_the_user_says_means_no_item_too(workplace: Path) -> None:
    Path("a.csv").write_text("user,item\n1,1000\n1,-1\n")
    with HistoryFile(Path("a.csv"), LogFormat(null=("-1",))) as file:
        assert file.counts.left_out == {"rows without an item": 1}


def test_an_item_that_the_model_knows_is_one_whatever_it_is_called(workplace: Path) -> None:
    Path("a.csv").write_text("user,item\n1,null\n2,x\n")
    items = ItemIndex(ids=np.array(["null", "x"], dtype=object), titles=None, train_counts=np.ones(2, np.int64))
    with HistoryFile(Path("a.csv"), options_like({}, None, items)) as file:
        assert file.counts.left_out == {}
        assert [block.table["item"].to_pylist() for block in file.blocks(10)] == [["null", "x"]]


def test_a_file_of_which_no_item_is_known_is_an_error(answer: Callable[..., Any]) -> None:
    said, lines = answer("a.csv", "user,item\n1,x\n2,y\n")
    assert said.code == 1 and not lines
    assert re.search("error: .*a.csv: none of its items is in the model, all 2 users would get the most pop", said.err)


def test_a_line_of_words_is_not_taken_for_a_header(answer: Callable[..., Any]) -> None:
    said, lines = answer("a.csv", "u1,1000x\nu2,990x\n")
    assert said.code == 1 and not lines
    assert "cannot tell whether 'u1, 1000x' names the columns or is the first row; say so with --header" in said.err
    said, lines = answer("a.csv", "u1,1000\nu2,990\n", "--no-header")
    assert said.code == 0 and [line["user"] for line in lines] == ["u1", "u2"]


def test_the_command_says_who_was_not_answered_as_usual(answer: Callable[..., Any]) -> None:
    everything = ",".join(map(str, IDS))
    said, lines = answer(
        "a.jsonl",
        f'{{"user":1,"items":[1000,"x"]}}\n{{"user":2,"items":["y","z"]}}\n{{"user":3,"items":[{everything}]}}',
    )
    assert said.code == 0
    assert [(line["user"], len(line["items"]), line["fallback"], line["unknown"]) for line in lines] == [
        (1, 2, False, ["x"]),
        (2, 2, True, ["y", "z"]),
        (3, 0, False, []),
    ]
    assert "3 users" in said.err
    assert "1 user got the most popular items" in said.err
    assert "3 ids in the histories are unknown; the model's ids look like 1000" in said.err
    assert "1 user got nothing (an empty list): every item was already seen or excluded" in said.err


def test_who_may_be_recommended_nothing_has_no_row_in_a_table_and_the_command_says_so(
    bundle_folder: Callable[[str], Path], command: Command, workplace: Path
) -> None:
    Path("a.jsonl").write_text(f'{{"user": "all", "items": {IDS}}}\n{{"user": "one", "items": [1000]}}\n')
    said = command("recommend", bundle_folder("ease"), "--input", "a.jsonl", "--output", "recs.csv", "-k", 3)
    assert said.code == 0 and "1 user got nothing (no row)" in said.err
    assert pd.read_csv("recs.csv")["user"].tolist() == ["one"] * 3


@pytest.mark.parametrize("ending", answer_files.OUTPUTS)
def test_reasons_come_with_each_item_of_a_file(
    ending: str, ease: Recommender, bundle_folder: Callable[[str], Path], command: Command, workplace: Path
) -> None:
    histories = {7: {"1000": 1, "990": 3, "980": 1, "970": 2, "5": 1}, 8: {"6": 1}}
    Path("a.jsonl").write_text("".join(json.dumps({"user": u, "items": i}) + "\n" for u, i in histories.items()))
    output = f"recs{ending}"
    words = ("recommend", bundle_folder("ease"), "--input", "a.jsonl", "--output", output, "-k", 3)
    said = command(*words, "--explain")
    assert said.code == 0, said.err
    found = ease.recommend(histories[7], 3)
    expected = [
        [item for item, _, value in one.reasons[:3] if value > 0] for one in ease.explain(histories[7], found.ids)
    ]
    assert any(expected)
    expected += [[]] * 3  # nothing of the other's history is known
    if ending == ".jsonl":
        lines = [json.loads(line) for line in Path(output).read_text().splitlines()]
        assert [item["because"] for line in lines for item in line["items"]] == expected
    elif ending == ".parquet":
        assert pq.read_table(output)["because"].to_pylist() == expected
    else:
        texts = pd.read_csv(output, dtype=str, keep_default_na=False)["because"].tolist()
        assert texts == [";".join(map(str, ids)) for ids in expected]
    assert command(*words).code == 0  # another job: nothing of the one with reasons is taken for it
    assert "because" not in Path(output).read_bytes().decode(errors="replace")


def test_json_of_a_file_is_refused(answer: Callable[..., Any]) -> None:
    said, lines = answer("a.csv", "user,item\n1,1000\n", "--json")
    assert (said.code, lines) == (2, []) and "got --json with --input, expected one of the two" in said.err


BAD: dict[str, tuple[str, Any, str]] = {
    "no JSON": (
        "a.jsonl",
        '{"user":1,"items":[1000]}\nnot json\n',
        "line 2: got 'not json', which is not valid JSON; ",
    ),
    "no items": (
        "a.jsonl",
        '{"user":1}\n',
        "could not tell which column holds the item id; it has: user; name it with",
    ),
    "deep": ("a.jsonl", f'{{"user":1,"items":{"[" * 100_000}', "line 1: got '"),
    "nobody": (
        "a.jsonl",
        '{"user":null,"items":[1000]}',
        "no row has a user id; choose another column with --user-col",
    ),
    "weight": (
        "a.jsonl",
        '{"user":1,"items":{"x":-1}}',
        "line 1: a weight in 'items' is out of range or no number",
    ),
    "latin 1": ("a.jsonl", b'{"user":"\xff","items":[1000]}\n', "line 1: "),
    "high": (
        "a.csv",
        "user,item,weight\n1,2,3\n1,1000,high\n",
        "line 3: column 'weight' holds 'high', expected a number",
    ),
    "no weight": ("a.csv", "user,item,weight\n1,2,\n", "line 2: column 'weight' is empty, expected a number from"),
    "less": ("a.tsv", "user\titem\tweight\n1\t2\t-1\n", "line 2: column 'weight' holds '-1', expected a number from"),
    "two users": ("a.csv", "user,user,item\n1,2,3\n", "'user' and 'user' both look like the user id, expected one"),
    "one column": ("a.csv", "user\n1\n", "line 1: got one column: 'user'; expected at least a user and an item"),
    "no item": ("a.csv", "user,weight\n1,1\n", "which column holds the item id; it has: user, weight; name it with"),
    "empty": ("a.csv", "", "a.csv is empty; expected"),
    "wide": ("a.csv", "user,item\n1,2,3\n4,5\n", "line 2: got 3 columns, expected 2 as in the first line: '1,2,3'; "),
    "halves": ("a.parquet", pa.table({"user": [7.5], "item": [1]}), "holds the number 7.5, expected whole numbers or"),
    "dates": ("a.parquet", pa.table({"user": [pd.Timestamp(0)], "item": [1]}), "column 'user' holds TIMESTAMP"),
    "heavy": ("a.parquet", pa.table({"user": [1], "item": [1], "weight": ["x"]}), "row 1: column 'weight' holds 'x', "),
    "damaged": ("a.parquet", b"PAR1", "a.parquet is damaged or not a Parquet file"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_named_with_its_line_and_nothing_is_left(case: str, answer: Callable[..., Any]) -> None:
    name, content, expected = BAD[case]
    said, lines = answer(name, content)
    assert said.code in (1, 2) and not lines
    assert said.err.startswith(f"error: {name}") and expected in said.err and said.err.count("\n") == 1, said.err
    assert sorted(path.name for path in Path().iterdir()) == [name]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(lines=st.lists(st.fixed_dictionaries({"user": JSON, "items": JSON}) | JSON, max_size=3))
def test_a_file_of_strange_lines_is_answered_or_refused(
    lines: list[Any], ease: Recommender, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("strange")
    source, output = folder / "a.jsonl", folder / "recs.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    try:
        done = answer_files.recommend_file(source, output, lambda block: ease.recommend_batch(block, 2), {})
    except (DataError, UsageError) as error:
        assert str(error).startswith(str(source))
        assert list(folder.iterdir()) == [source]
    else:
        without = done.left_out.get("rows without a user id", 0)
        assert done.users == len(output.read_text().splitlines()) <= len(lines)
        assert done.users + without >= min(len(lines), 1)


@pytest.mark.parametrize("damage", [b"{", b"\xff", b"[" * 100_000, b"[]"])
def test_what_is_left_of_a_job_is_not_believed_when_damaged(
    damage: bytes, ease: Recommender, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("a.csv").write_text("user,item\n1,1000\n2,990\n")
    asked: list[Any] = []

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    def run() -> answer_files.AnswerCounts:
        return answer_files.recommend_file(
            Path("a.csv"), Path("b.csv"), lambda b: asked.append(b) or ease.recommend_batch(b), {}, users=1
        )

    with monkeypatch.context() as patch:
        patch.setattr(answer_files, "_join", stop)
        with pytest.raises(KeyboardInterrupt):
            run()
        Path(".b.csv.parts/000001.parquet").write_bytes(damage)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert len(asked) == 3  # the damaged one again
    Path(".b.csv.parts/job.json").write_bytes(damage)
    assert run() == answer_files.AnswerCounts(users=2, columns=("user = user", "item = item")) and len(asked) == 5


@pytest.mark.parametrize("begins", [0, 1, 2])
@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_two_jobs_with_one_output_at_a_time_never_mix(
    begins: int, ending: str, ease: Recommender, workplace: Path
) -> None:
    """The second begins while the first answers a block, which the first then writes, and the second after it."""
    Path("a.csv").write_text("user,item\n1,1000\n2,990\n3,980\n")
    output = Path("b").with_suffix(ending)
    asked: list[Any] = []

    def first(block: Any) -> Any:
        answers = ease.recommend_batch(block, 1)
        asked.append(block)
        if len(asked) == begins + 1:  # the second begins, and gets as far as its first block
            with pytest.raises(KeyboardInterrupt):
                answer_files.recommend_file(Path("a.csv"), output, stopped, {"k": 3}, users=1)
        return answers

    def stopped(block: Any) -> Any:
        raise KeyboardInterrupt

    def second(block: Any) -> Any:
        return ease.recommend_batch(block, 3)

    try:
        answer_files.recommend_file(Path("a.csv"), output, first, {"k": 1}, users=1)
    except UsageError as error:
        assert begins and "two processes have written to one output at the same time" in str(error)
        assert not output.exists()
    else:
        assert not begins
    done = answer_files.recommend_file(Path("a.csv"), output, second, {"k": 3}, users=1)
    assert (done.users, done.before) == (3, 0)
    answer_files.recommend_file(Path("a.csv"), alone := Path("c").with_suffix(ending), second, {"k": 3}, users=1)
    assert output.read_bytes() == alone.read_bytes()


def test_a_block_of_another_job_is_not_joined(
    ease: Recommender, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("a.csv").write_text("user,item\n1,1000\n2,990\n")
    real = answer_files._join

    def join(parts: list[Path], job: str, output: Path) -> None:
        other = "0" * len(job)  # the other job has just written its first block
        table = pq.read_table(parts[0])
        pq.write_table(table.replace_schema_metadata({"job": other, "counts": "{}"}), parts[0])
        real(parts, job, output)

    monkeypatch.setattr(answer_files, "_join", join)
    with pytest.raises(UsageError, match=r"000000.parquet is of another job: two processes .* nothing is written"):
        answer_files.recommend_file(Path("a.csv"), Path("b.csv"), lambda b: ease.recommend_batch(b), {}, users=1)
    assert not Path("b.csv").exists()


def test_a_part_that_is_damaged_in_the_middle_is_named(ease: Recommender, workplace: Path) -> None:
    Path("a.csv").write_text("user,item\n1,1000\n2,990\n")

    def answer(block: Any) -> Any:
        for part in Path(".b.csv.parts").glob("*.parquet"):
            content = part.read_bytes()
            part.write_bytes(content[:4] + b"\xff" * 300 + content[304:])
        return ease.recommend_batch(block)

    with pytest.raises(DataError, match=r"000000.parquet is damaged: .*; remove it and run the same command again"):
        answer_files.recommend_file(Path("a.csv"), Path("b.csv"), answer, {}, users=1)
    assert not Path("b.csv").exists()


def test_unknown_ids_of_a_table_are_listed_for_each_user(ease: Recommender) -> None:
    found = ease.recommend_batch(pd.DataFrame({"user": range(100), "item": range(-100, 0)}), 1)
    assert [one.unknown for one in found] == [[item] for item in range(-100, 0)]


def test_integers_beyond_what_a_float_holds_are_found_beside_a_missing_one() -> None:
    items = ItemIndex(ids=np.array([2**60, 2**60 + 1]), titles=None, train_counts=np.array([1, 1]))
    rows = pa.table({"user": [1, 1, 2], "item": [2**60 + 1, None, 2**60]})
    assert histories_of(HistoryBlock(rows), items).columns.tolist() == [1, 0]
    with pytest.raises(UsageError, match="got empty cells in user or item"):
        histories_of(rows, items)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (pd.DataFrame({"user": [1, "a"], "item": [1, 2]}), "got a table that Arrow cannot read: .*column user"),
        (pd.DataFrame([[1, 2]], columns=["user", "user"]), "got a table that Arrow cannot read: .*[Dd]uplicate"),
        (pa.table([[1], [2]], names=["user", "user"]), "the table: 'user' and 'user' both look like the user id"),
        (pd.DataFrame({"user": [1], "item": [[1]]}), "in item, expected one id per row"),
        (pd.DataFrame({"user": [1], "item": [1], "weight": ["high"]}), "invalid values in the column weight"),
        (pd.DataFrame({"user": [1], "weight": [1.0]}), "the table: could not tell which column holds the item id"),
    ],
)
def test_a_bad_table_is_refused_in_words(table: Any, said: str, ease: Recommender) -> None:
    with pytest.raises((UsageError, DataError), match=said):
        ease.recommend_batch(table)


@pytest.mark.parametrize("word", ["NA", "-", "unknown", "#tag"])
def test_items_of_the_model_that_are_doubtful_words_are_found_beside_integers(word: str, workplace: Path) -> None:
    Path("a.csv").write_text(f"user,item\n1,12\n1,{word}\n2,13\n2,14\n3,15\n")
    items = ItemIndex(
        ids=np.array(["12", "13", word, "abc"], dtype=object), titles=None, train_counts=np.ones(4, np.int64)
    )
    with HistoryFile(Path("a.csv"), options_like({}, None, items)) as file:
        assert file.counts.left_out == {} and file.has_item_of(items)


def test_who_gets_nothing_is_not_among_those_with_popular_items(ease: Recommender, workplace: Path) -> None:
    """The command says of each user one thing: a list, the most popular items, or nothing."""
    known, other = ease.item_ids[:2]
    Path("a.csv").write_text(f"user,item\n1,{known}\n2,unheard of\n3,{other}\n4,unheard of\n")

    def answered(**options: Any) -> tuple[int, int, int]:
        done = answer_files.recommend_file(
            Path("a.csv"), Path("b.csv"), lambda block: ease.recommend_batch(block, 2, **options), {}
        )
        return done.users, done.fallback, done.without

    assert answered() == (4, 2, 0)
    assert answered(exclude=ease.item_ids) == (4, 0, 4)
    assert answered(allow=[known]) == (4, 2, 1)


def test_users_without_any_item_are_no_error(answer: Callable[..., Any]) -> None:
    said, lines = answer("a.jsonl", '{"user":7,"items":[]}\n{"user":8,"items":[]}\n')
    assert said.code == 0 and len(lines) == 2
