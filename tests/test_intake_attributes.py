"""Tables of users' attributes are read as tables of items' features are, and messages speak of users."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recvae.datasets.features import ItemFeatures, read_features
from recvae.datasets.reading.options import LogFormat
from recvae.errors import DataError, UsageError

IDS = np.array([9, 7, 8])


def _dense(features: ItemFeatures) -> np.ndarray:
    matrix = features.matrix
    return matrix if isinstance(matrix, np.ndarray) else matrix.toarray()


def table(**columns: list) -> pd.DataFrame:
    return pd.DataFrame(columns)


def test_the_files_of_movielens_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "users.dat").write_text("7::F::18::4::01234\n9::M::50::0::2\n8::F::45::4::N\n10::F::1::0::N\n")
    (tmp_path / "u.user").write_text("7|18|F|artist|01234\n9|50|M|doctor|2\n8|45|F|artist|N\n")
    for name, columns in (("users.dat", ("2", "3")), ("u.user", ("3", "2"))):
        found, remarks = read_features(tmp_path / name, IDS, columns=list(columns), row="user")
        gender, age = columns
        told = dict(zip(found.names, _dense(found).T.tolist(), strict=True))
        assert told == {f"{gender}=F": [0, 1, 1], f"{gender}=M": [1, 0, 0], age: [50, 18, 45]}
        assert len(remarks) == (name == "users.dat")
    assert "1 rows of" in (remark := read_features(tmp_path / "users.dat", IDS, row="user")[1][0])
    assert "belong to users that are not in training, e.g. 10" in remark


@pytest.mark.parametrize("name", ["user", "user_id", "userId", "id", "customer_id", "visitorid"])
def test_the_column_of_ids_is_found_by_its_usual_names(name: str) -> None:
    found, _ = read_features(table(**{"sex": ["f", "m", "f"], name: [7, 8, 9]}), IDS, row="user")
    assert found.names == ("sex=f", "sex=m")
    assert _dense(found).tolist() == [[1, 0], [1, 0], [0, 1]]
    assert found.source["columns"] == {"user": name}


def test_an_id_beside_the_users_own_is_a_number_of_the_row() -> None:
    found, _ = read_features(table(id=[1, 2, 3], user=[7, 8, 9], sex=["f", "m", "f"]), IDS, columns=["sex"], row="user")
    assert found.source["columns"] == {"user": "user"}
    with pytest.raises(DataError, match="'id' and 'customer' both look like the user id, expected one column"):
        read_features(table(id=[1, 2, 3], customer=[7, 8, 9], sex=["f", "m", "f"]), IDS, row="user")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (table(who=[7], sex=["f"]), "could not tell which column holds the user id; it has: who, sex"),
        (table(item=[7], sex=["f"]), "could not tell which column holds the user id; it has: item, sex"),
        (table(user=[1, 2], sex=["f", "m"]), "none of its 2 users is in the data set"),
        (table(user=[7, 8]), "has no column but the user ids, expected features; add columns"),
        (table(user=[7, 7], age=[3, 4]), "user 7 has 3 and 4 in several rows, expected one number; keep one row"),
        (table(user=[7, 8], age=[3.0, np.inf]), "user 8 has inf, expected finite numbers"),
    ],
)
def test_messages_speak_of_users(given: pd.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_features(given, IDS, row="user")


def test_remarks_speak_of_users() -> None:
    ids = np.arange(40)
    given = table(user=[*range(1, 40), 1, 99], town=[*["x"] * 39, "y", "x"], name=[f"n{n}" for n in range(41)])
    _, remarks = read_features(given, ids, row="user")
    assert [remark.partition(":")[0] if "column" in remark else remark for remark in remarks] == [
        "1 rows of the table belong to users that are not in training, e.g. 99",
        "1 of 40 users have no row in the table, e.g. 0",
        "1 users have several rows in the table, e.g. 1; their words are joined",
        "the table",
    ]
    assert "so nearly every user has its own, and is left out" in remarks[-1]


def test_files_without_a_table_of_users_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "users.npy", np.ones((3, 2)))
    with pytest.raises(UsageError, match=r"users.npy for users, expected a table with a column of user ids; write one"):
        read_features(tmp_path / "users.npy", IDS, row="user")
    (tmp_path / "words.csv").write_text("seven,f\neight,m\nnine,f\n")
    with pytest.raises(DataError, match=r"line 1: cannot tell whether .*; name the column of user ids with --id-col"):
        read_features(tmp_path / "words.csv", np.array(["nine"], object), row="user")
    (tmp_path / "one.csv").write_text("7\n8\n9\n")
    with pytest.raises(DataError, match="a column of user ids and another one"):
        read_features(tmp_path / "one.csv", IDS, row="user")
    (tmp_path / "people.csv").write_text("who,sex\n7,f\n8,m\n9,f\n")
    with pytest.raises(UsageError, match="did you mean --id-col who"):
        read_features(tmp_path / "people.csv", IDS, LogFormat(user="whom"), row="user")


@pytest.mark.parametrize("row", ["item", "user"])
@pytest.mark.parametrize("ids", [[{"a": 1}, {"a": 2}], [1.5, 2.5], [[1], [2]], [b"\x00", b"\x01"]])
def test_advice_on_a_column_that_holds_no_ids_is_an_option_that_there_is(row: str, ids: list, tmp_path: Path) -> None:
    table(id=ids, word=["a", "b"]).to_parquet(tmp_path / "table.parquet")
    with pytest.raises(DataError) as caught:
        read_features(tmp_path / "table.parquet", IDS, row=row)
    assert not re.search("--(user|item)-col", str(caught.value))


@pytest.mark.parametrize("row", ["item", "user"])
def test_advice_on_a_file_in_another_encoding_or_with_a_bad_line_is_advice_that_works(row: str, tmp_path: Path) -> None:
    """Options such as --encoding and --on-bad-row are those of the log."""
    path = tmp_path / "some table.csv"
    path.write_bytes("id,word\n7,é\n8,b\n9,c\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8 text") as caught:
        read_features(path, IDS, row=row)  # type: ignore[arg-type]
    assert "--encoding" not in str(caught.value) and "--on-bad-row" not in str(caught.value)
    advice = str(caught.value).partition("e.g. ")[2]
    assert subprocess.run(["bash", "-c", advice], cwd=tmp_path, check=False).returncode == 0
    found, _ = read_features(tmp_path / "utf8.txt", IDS, row=row)  # type: ignore[arg-type]
    assert found.names == ("word=b", "word=c", "word=é")
    path.write_text("id,word\n7,a,x\n8,b\n9,c\n")
    with pytest.raises(DataError, match=r"got 3 columns, expected 2 .*; repair the line$"):
        read_features(path, IDS, row=row)  # type: ignore[arg-type]


@pytest.mark.parametrize("row", ["item", "user"])
def test_the_index_that_pandas_writes_beside_the_columns_is_no_feature(row: str, tmp_path: Path) -> None:
    given = table(**{f"{row}_id": [7, 8, 9], "word": ["a", "b", "a"]})
    given.sample(frac=1, random_state=1).to_parquet(tmp_path / "table.parquet")
    found, _ = read_features(tmp_path / "table.parquet", IDS, row=row)  # type: ignore[arg-type]
    assert found.names == ("word=a", "word=b")
    of_words = found.of_columns(["word"])
    assert of_words.names == found.names
    with pytest.raises(UsageError, match="got no column 'index' of features, expected some of: word"):
        found.of_columns(["index"])
