"""Files of histories: ids stay what they are, users are of one type, and what is wrong is named with its place."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recvae.datasets.dataset import Dataset
from recvae.errors import DataError, UsageError
from recvae.models import Model
from recvae.recommenders import answer_files
from recvae.recommenders.history_files import read_blocks
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


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_ids_of_texts_are_texts_with_their_zeros(ending: str, workplace: Path) -> None:
    separator = "\t" if ending == ".tsv" else ","
    rows = [("user", "date", "item"), ("007", "1", "0318"), ("7", "2", "NA"), ("7", "x", "1e3")]
    Path(f"a{ending}").write_text("".join(separator.join(row) + "\n" for row in rows))
    (block,) = read_blocks(Path(f"a{ending}"))
    assert cast(pa.Table, block).to_pydict() == {"user": ["007", "7", "7"], "item": ["0318", "NA", "1e3"]}


@given(users=st.lists(st.text("0127.eE+-_aN é", min_size=1), unique=True, max_size=5), size=st.integers(1, 3))
def test_whatever_users_are_called_they_come_back(
    users: list[str], size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    pd.DataFrame({"user": users, "item": 1}).to_csv(path, index=False, quoting=1)
    blocks = [cast(pa.Table, block)["user"] for block in read_blocks(path, size)]
    assert [user.as_py() for block in blocks for user in block] == users
    assert all(block.type == pa.string() for block in blocks)


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
    assert "1 users got the most popular items" in said.err
    assert "3 ids in the histories are unknown; the model's ids look like 1000" in said.err
    assert "1 users got nothing (an empty list): every item was already seen or excluded" in said.err


def test_who_may_be_recommended_nothing_has_no_row_in_a_table_and_the_command_says_so(
    bundle_folder: Callable[[str], Path], command: Command, workplace: Path
) -> None:
    Path("a.jsonl").write_text(f'{{"user": "all", "items": {IDS}}}\n{{"user": "one", "items": [1000]}}\n')
    said = command("recommend", bundle_folder("ease"), "--input", "a.jsonl", "--output", "recs.csv", "-k", 3)
    assert said.code == 0 and "1 users got nothing (no row)" in said.err
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
    "types": (
        "a.jsonl",
        '{"user":1,"items":[]}\n\n{"user":"a","items":[]}',
        "line 3: got user 'a', expected an int",
    ),
    "numbers": (
        "a.jsonl",
        '{"user":"a","items":[]}\n{"user":1,"items":[]}',
        "line 2: got user 1, expected a string",
    ),
    "huge": ("a.jsonl", f'{{"user":{2**70},"items":[]}}', f"line 1: got user {2**70}, expected a 64-bit integer"),
    "digits": ("a.jsonl", f'{{"user":{"9" * 5000},"items":[]}}', "line 1 cannot be read: Exceeds the limit"),
    "deep": ("a.jsonl", f'{{"user":1,"items":{"[" * 100_000}', "line 1 cannot be read: maximum recursion depth"),
    "half a character": ("a.jsonl", '{"user":"\\ud800","items":[]}', r"line 1: got user '\ud800', expected"),
    "half an item": (
        "a.jsonl",
        '{"user":1,"items":["\\ud800"]}',
        r"line 1: got item '\ud800', expected a 64-bit",
    ),
    "nobody": ("a.jsonl", '{"user":null,"items":[]}', "line 1: got user None, expected a 64-bit integer"),
    "yes": ("a.jsonl", '{"user":true,"items":[]}', "line 1: got user True, expected a 64-bit integer"),
    "no item": ("a.jsonl", '{"user":1,"items":[null]}', "line 1: got item None, expected a 64-bit number"),
    "lists": ("a.jsonl", '{"user":1,"items":[[1000]]}', "line 1: got item a list, expected a 64-bit number"),
    "not a number": ("a.jsonl", '{"user":1,"items":[NaN]}', "line 1: got item nan, expected a 64-bit number"),
    "weight": ("a.jsonl", '{"user":1,"items":{"x":-1}}', "line 1: got weight -1 for item 'x', expected a number from"),
    "great weight": ("a.jsonl", f'{{"user":1,"items":{{"x":1{"0" * 400}}}}}', "a.jsonl, line 1: "),
    "latin 1": ("a.jsonl", b'{"user":"\xff","items":[]}', "line 1 cannot be read: 'utf-8' codec can't decode"),
    "again": ("a.jsonl", '{"user":1,"items":[]}\n' * 2, "line 2: the rows of user 1 are not together"),
    "high": ("a.csv", "user,item,weight\n1,2,3\n1,1000,high\n", "row 2: got weight 'high', expected a number from"),
    "no header": ("a.csv", "1,318\n2,296\n", "got 1, 318 in the first line, expected a header"),
    "no weight": ("a.csv", "user,item,weight\n1,2,\n", "row 1: got weight None, expected a number from"),
    "less": ("a.tsv", "user\titem\tweight\n1\t2\t-1\n", "row 1: got weight '-1', expected a number from"),
    "two users": ("a.csv", "user,user\n1,2\n", "'user' and 'user' both look like the user id, expected one"),
    "one column": ("a.csv", "user\n1\n", "could not tell which column holds the item id; it has: user; rename"),
    "no items": ("a.csv", "user,weight\n1,1\n", "which column holds the item id; it has: user, weight; rename it"),
    "empty": ("a.csv", "", "a.csv cannot be read: Empty CSV file"),
    "empty cell": ("a.csv", "user,item\n1,2\n,3\n", "row 2: got an empty cell in user, expected a user and an item"),
    "no utf-8": ("a.csv", b"user,item\n\xff,3\n", "a.csv cannot be read: "),
    "wide": ("a.csv", "user,item\n1,2,3\n", "a.csv cannot be read: "),
    "halves": ("a.parquet", pa.table({"user": [7.5], "item": [1]}), "a.parquet cannot be read: Float value 7.5"),
    "too large": ("a.parquet", pa.table({"user": pa.array([2**63], pa.uint64()), "item": [1]}), "a.parquet cannot be"),
    "dates": ("a.parquet", pa.table({"user": [pd.Timestamp(0)], "item": [1]}), "got user of type timestamp"),
    "list of items": ("a.parquet", pa.table({"user": [1], "item": [[1]]}), "a.parquet, users 1 to 1: got list<"),
    "heavy": ("a.parquet", pa.table({"user": [1], "item": [1], "weight": ["x"]}), "row 1: got weight 'x', expected"),
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
        assert done.users == len(lines) == len(output.read_text().splitlines())


def test_a_type_that_changes_later_is_refused_at_its_line_not_after_all_is_done(
    ease: Recommender, workplace: Path
) -> None:
    Path("a.jsonl").write_text("".join(f'{{"user": {user}, "items": [1000]}}\n' for user in (1, 2, '"a"', 4)))
    asked: list[Any] = []
    with pytest.raises(DataError, match="line 3: got user 'a', expected an integer as before; use one type for all"):
        answer_files.recommend_file(
            Path("a.jsonl"),
            Path("b.csv"),
            lambda block: asked.append(block) or ease.recommend_batch(block),
            {},
            users=2,
        )
    assert len(asked) == 1 and [path.name for path in Path().iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize("damage", [b"{", b"\xff", b"[" * 100_000, b"[]"])
def test_what_is_left_of_a_job_is_not_believed_when_damaged(
    damage: bytes, ease: Recommender, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("a.csv").write_text("user,item\n1,1000\n2,990\n")
    asked: list[Any] = []

    def stop(parts: Any, output: Any) -> None:
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
    assert run() == answer_files.AnswerCounts(users=2) and len(asked) == 5


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


def test_unknown_ids_are_listed_once_for_the_whole_table(ease: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[int] = []

    class Counting(np.ndarray):
        def tolist(self) -> Any:
            listed.append(len(self))
            return super().tolist()

    factorize = pd.factorize

    def counting(values: Any) -> Any:
        codes, known = factorize(values)
        return codes, known.view(Counting)

    monkeypatch.setattr(pd, "factorize", counting)
    found = ease.recommend_batch(pd.DataFrame({"user": range(100), "item": range(-100, 0)}), 1)
    assert [one.unknown for one in found] == [[item] for item in range(-100, 0)]
    assert len(listed) == 2  # the users, and the items


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
