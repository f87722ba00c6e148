import gzip
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from recvae.datasets.catalog.entry import KnownDataset
from recvae.datasets.catalog.known import check_counts, known_dataset, locate
from recvae.datasets.catalog.movielens import MOVIELENS as CATALOG
from recvae.datasets.events import Events
from recvae.datasets.logs import read_events
from recvae.datasets.reading.sources import Source
from recvae.datasets.titles import read_titles
from recvae.errors import DataError, UsageError

# Every name, id and rating below is made up.
CSV_RATINGS = b"userId,movieId,rating,timestamp\n1,30,4.5,1000\n2,7,3.0,1001\n2,30,0.5,1002\n"
CSV_TITLES = 'movieId,title,genres\r\n7,"Sea, The (2001)",Drama\r\n30,"A ""Quiet"" Été",Comedy\r\n'.encode()
DAT_RATINGS = b"1::30::5::1000\n2::7::3::1001\n2::30::1::1002\n"
DAT_TITLES = "7::Sea: The Film (2001)::Drama\n30::A Quiet Été::Comedy\n"
TAB_RATINGS = b"1\t30\t5\t1000\n2\t7\t3\t1001\n2\t30\t1\t1002\n"
TAB_TITLES = "7|Sea, The (2001)|01-Jan-2001||http://example.org/|0|1\n30|A Quiet Été|||http://example.org/|1|0\n"

FILES = {
    "ml-100k": {"u.data": TAB_RATINGS, "u.item": TAB_TITLES.encode("latin-1"), "u.genre": b"Drama|0\n"},
    "ml-1m": {"ratings.dat": DAT_RATINGS, "movies.dat": DAT_TITLES.encode("latin-1"), "README": b"made up\n"},
    "ml-10m": {"ratings.dat": DAT_RATINGS, "movies.dat": DAT_TITLES.encode("utf-8")},
    "ml-latest-small": {"ratings.csv": CSV_RATINGS, "movies.csv": CSV_TITLES},
}


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def located(known: KnownDataset, source: Path) -> tuple[Events, dict[str, str]]:
    ratings, log_format, titles = locate(known, source)
    assert titles is not None
    return read_events(ratings, log_format), read_titles([titles[0]], titles[1])


def check_made_up(events: Events, titles: dict[str, str]) -> None:
    assert events.users.tolist() == [0, 1, 1]
    assert events.item_ids.tolist() == [7, 30]
    assert events.items.tolist() == [1, 0, 1]
    assert events.ratings is not None and events.ratings[1] == 3.0
    assert events.timestamps is not None and events.timestamps.tolist() == [1000, 1001, 1002]
    assert set(titles) == {"7", "30"}
    assert titles["7"].startswith("Sea") and titles["7"].endswith("(2001)")
    assert titles["30"].endswith("Été")


# The catalogue


def test_catalogue_holds_the_movielens_sets() -> None:
    assert list(CATALOG) == ["ml-100k", "ml-1m", "ml-10m", "ml-20m", "ml-25m", "ml-32m", "ml-latest-small"]


@pytest.mark.parametrize("name", CATALOG)
def test_entry_is_complete(name: str) -> None:
    known = CATALOG[name]
    assert known.name == name
    assert known.description and "\n" not in known.description
    assert known.url == f"https://files.grouplens.org/datasets/movielens/{name}.zip"
    assert known.md5 is None or re.fullmatch("[0-9a-f]{32}", known.md5)
    assert 500_000 < known.archive_bytes < 300_000_000
    assert "research" in known.licence and "Harper" in known.licence
    assert list(known.ratings)[-1] == "ratings.csv"  # the official file first, the CSV spelling last
    assert list(known.titles)[-1] == "movies.csv"
    assert known.n_events and known.n_users and known.n_items
    assert known.n_events > known.n_users and known.n_events > known.n_items
    assert known.min_rating == 4.0


def test_only_the_set_that_changes_has_no_hash() -> None:
    assert [name for name, known in CATALOG.items() if known.md5 is None] == ["ml-latest-small"]
    hashes = [known.md5 for known in CATALOG.values()]
    assert len(set(hashes)) == len(hashes)


def test_ml_20m_carries_the_protocol_of_liang_et_al() -> None:
    known = known_dataset("ml-20m")
    assert known.heldout_users == 10_000
    assert known.expected == {"events": 9_990_682, "users": 136_677, "items": 20_720, "train_items": 20_108}
    assert all(other.heldout_users is None for name, other in CATALOG.items() if name != "ml-20m")


@pytest.mark.parametrize(("wrong", "meant"), [("ml-1M", "ml-1m"), ("ml1m", "ml-1m"), ("ml-lastest-small", "ml-latest")])
def test_unknown_name_gets_a_suggestion(wrong: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"'{wrong}', expected one of ml-100k, .*; did you mean '{meant}"):
        known_dataset(wrong)


def test_unknown_name_far_from_all_gets_the_list() -> None:
    with pytest.raises(UsageError, match=r"one of ml-100k, .*, ml-latest-small, .*, synthetic, or the path of a log$"):
        known_dataset("epinions")


def test_check_counts() -> None:
    events = Events.from_columns([1, 1, 2], [5, 6, 5])
    known = replace(known_dataset("ml-1m"), n_events=3, n_users=2, n_items=2)
    assert check_counts(known, events) == []


def test_counts_that_are_a_little_off_are_warnings() -> None:
    events = Events.from_columns(range(100), [5] * 100)
    known = replace(known_dataset("ml-1m"), n_events=105, n_users=99, n_items=1)
    assert check_counts(known, events) == [
        "ml-1m: got 100 events, expected 105; the file is incomplete or another version",
        "ml-1m: got 100 users, expected 99; the file is incomplete or another version",
    ]


def test_counts_that_are_far_off_are_of_another_data_set() -> None:
    events = Events.from_columns([1, 1, 2], [5, 6, 5])
    known = replace(known_dataset("ml-1m"), n_events=4_000, n_users=2, n_items=2)
    message = (
        "this is not ml-1m: got 3 events, 2 users, 2 items, expected 4,000 events, 2 users, 2 items; check --source, "
        "or prepare it under a name of its own with --force --name NAME"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        check_counts(known, events)
    [warning] = check_counts(known, events, force=True)
    assert warning == "ml-1m: got 3 events, expected 4,000; the file is incomplete or another version"


# Finding and reading the files


@pytest.mark.parametrize("name", FILES)
def test_folder(name: str, tmp_path: Path) -> None:
    check_made_up(*located(CATALOG[name], fill(tmp_path, FILES[name])))


@pytest.mark.parametrize("name", FILES)
def test_sub_folder(name: str, tmp_path: Path) -> None:
    fill(tmp_path / "unpacked", FILES[name])
    check_made_up(*located(CATALOG[name], tmp_path))


@pytest.mark.parametrize("prefix", ["", "ml/", "some/where/deep/"])
@pytest.mark.parametrize("name", FILES)
def test_zip(name: str, prefix: str, tmp_path: Path) -> None:
    files = {prefix + member: content for member, content in FILES[name].items()}
    check_made_up(*located(CATALOG[name], pack(tmp_path / "a.zip", files)))


def test_zip_under_another_name(tmp_path: Path) -> None:
    check_made_up(*located(CATALOG["ml-1m"], pack(tmp_path / "download", FILES["ml-1m"])))


@pytest.mark.parametrize("name", ["ml-100k", "ml-1m", "ml-10m"])
def test_csv_spelling_without_timestamps(name: str, tmp_path: Path) -> None:
    fill(tmp_path, {"ratings.csv": b"userId,movieId,rating\n9,3,5\n2,3,4\n9,1,1\n", "movies.csv": CSV_TITLES})
    ratings, log_format, titles = locate(CATALOG[name], tmp_path)
    events = read_events(ratings, log_format)
    assert events.timestamps is None
    assert events.user_ids[events.users].tolist() == [9, 2, 9]  # file order
    assert titles is not None and read_titles([titles[0]], titles[1])["7"] == "Sea, The (2001)"


def test_official_file_comes_first(tmp_path: Path) -> None:
    fill(tmp_path, FILES["ml-1m"] | FILES["ml-latest-small"])
    ratings, log_format, titles = locate(CATALOG["ml-1m"], tmp_path)
    assert ratings.path.name == "ratings.dat" and log_format.separator == "::"
    assert titles is not None and titles[0].path.name == "movies.dat"


def test_folder_of_the_right_name_comes_first(tmp_path: Path) -> None:
    for folder, name in (("a", "ml-1m"), ("ml-10M100K", "ml-10m"), ("ml-1m", "ml-latest-small")):
        fill(tmp_path / folder, FILES[name])
    assert locate(CATALOG["ml-1m"], tmp_path)[0].path == tmp_path / "ml-1m" / "ratings.csv"
    assert locate(CATALOG["ml-10m"], tmp_path)[0].path == tmp_path / "ml-10M100K" / "ratings.dat"


def test_missing_titles_are_none(tmp_path: Path) -> None:
    fill(tmp_path, {"ratings.dat": DAT_RATINGS, "elsewhere/movies.dat": DAT_TITLES.encode("latin-1")})
    assert locate(CATALOG["ml-1m"], tmp_path)[2] is None


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no file or folder .*absent, expected a folder or zip of ml-1m"):
        locate(CATALOG["ml-1m"], tmp_path / "absent")


def test_neither_folder_nor_zip(tmp_path: Path) -> None:
    fill(tmp_path, FILES["ml-1m"])
    with pytest.raises(UsageError, match=r"ratings\.dat is neither a folder nor a zip; give the folder of ml-1m"):
        locate(CATALOG["ml-1m"], tmp_path / "ratings.dat")


def test_wrong_folder_says_what_it_holds(tmp_path: Path) -> None:
    fill(tmp_path, {"ratings.dat": DAT_RATINGS, "Ratings.CSV": CSV_RATINGS})
    with pytest.raises(DataError, match=r"holds no u\.data or ratings\.csv of ml-100k; it holds: Ratings\.CSV, rat"):
        locate(CATALOG["ml-100k"], tmp_path)


def test_empty_folder_and_crowded_zip(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no ratings\.csv of ml-20m; it holds: nothing; give"):
        locate(CATALOG["ml-20m"], tmp_path)
    crowded = pack(tmp_path / "a.zip", {f"{number}.txt": b"" for number in range(9)})
    with pytest.raises(DataError, match=r"it holds: 0\.txt, .*, 7\.txt, \.\.\.; give"):
        locate(CATALOG["ml-20m"], crowded)


def test_two_folders_alike(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        fill(tmp_path / folder, FILES["ml-1m"])
    with pytest.raises(
        DataError, match=r"both one/ratings\.dat and two/ratings\.dat, expected one .*; give one folder"
    ):
        locate(CATALOG["ml-1m"], tmp_path)


@pytest.mark.parametrize("content", [b"", b"<html>no such page</html>"])
def test_damaged_zip(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "ml-1m.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"ml-1m\.zip is truncated or damaged .*; download or compress it again"):
        locate(CATALOG["ml-1m"], tmp_path / "ml-1m.zip")


def test_truncated_zip(tmp_path: Path) -> None:
    path = pack(tmp_path / "ml-1m.zip", FILES["ml-1m"])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"ml-1m\.zip is truncated or damaged"):
        locate(CATALOG["ml-1m"], path)


def test_zip_with_a_damaged_titles_file(tmp_path: Path) -> None:
    path = tmp_path / "ml-1m.zip"
    with zipfile.ZipFile(path, "w") as archive:  # stored as it is, so that its bytes can be found and changed
        archive.writestr("ratings.dat", DAT_RATINGS)
        archive.writestr("movies.dat", DAT_TITLES.encode("latin-1"))
    path.write_bytes(path.read_bytes().replace(b"Sea: The", b"Sea: tHE"))
    titles = locate(CATALOG["ml-1m"], path)[2]
    assert titles is not None
    with pytest.raises(DataError, match=r"ml-1m\.zip:movies\.dat is truncated or damaged .*CRC"):
        read_titles([titles[0]], titles[1])


# Titles


def titles_of(name: str, file: str, content: bytes, folder: Path) -> dict[str, str]:
    (folder / file).write_bytes(content)
    return read_titles([Source(folder / file)], CATALOG[name].titles[file])


def test_titles_with_quotes_commas_and_accents(tmp_path: Path) -> None:
    titles = titles_of("ml-32m", "movies.csv", CSV_TITLES, tmp_path)
    assert titles == {"7": "Sea, The (2001)", "30": 'A "Quiet" Été'}


def test_titles_with_the_mark_and_blank_lines_of_a_spreadsheet(tmp_path: Path) -> None:
    titles = titles_of("ml-20m", "movies.csv", b"\xef\xbb\xbf" + CSV_TITLES + b"\r\n\r\n", tmp_path)
    assert set(titles) == {"7", "30"}


def test_latin_1_titles(tmp_path: Path) -> None:
    titles = titles_of("ml-100k", "u.item", TAB_TITLES.encode("latin-1"), tmp_path)
    assert titles == {"7": "Sea, The (2001)", "30": "A Quiet Été"}


def test_latin_1_control_letters_end_no_line(tmp_path: Path) -> None:
    assert titles_of("ml-1m", "movies.dat", b"7::Sea\x85 The::Drama\n", tmp_path) == {"7": "Sea\x85 The"}


def test_gzip_titles_under_their_own_name(tmp_path: Path) -> None:
    assert "7" in titles_of("ml-1m", "movies.dat", gzip.compress(DAT_TITLES.encode("latin-1")), tmp_path)


def test_titles_line_without_a_title(tmp_path: Path) -> None:
    message = r"movies\.dat line 3: got 1 column, expected 3 as in the first line: '30 A Quiet Film'; repair the line; "
    with pytest.raises(DataError, match=message):
        titles_of("ml-1m", "movies.dat", b"7::Sea::Drama\n\n30 A Quiet Film\n", tmp_path)


def test_titles_line_without_an_id_is_left_out(tmp_path: Path) -> None:
    content = b"7::Sea::Drama\n\n ::A Quiet Film::Drama\n"
    assert titles_of("ml-1m", "movies.dat", content, tmp_path) == {"7": "Sea"}


def test_titles_with_an_open_quote_lose_no_line(tmp_path: Path) -> None:
    content = b'movieId,title,genres\n7,"Sea,Drama\n30,Lake,Drama\n'
    assert titles_of("ml-20m", "movies.csv", content, tmp_path) == {"7": '"Sea', "30": "Lake"}


def test_titles_with_a_comma_outside_quotes(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"movies\.csv line 2: got 4 columns, expected 3 .*; put a title that holds the separator in q"
    ):
        titles_of("ml-20m", "movies.csv", b"movieId,title,genres\n7,Sea, The,Drama\n", tmp_path)


def test_titles_file_of_a_single_column(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"movies\.dat line 1: got one column with separator '::': '7 Sea'; expected at least a column of",
    ):
        titles_of("ml-1m", "movies.dat", b"7 Sea\n", tmp_path)


def test_titles_not_in_utf_8(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"movies\.csv line 2: not UTF-8 text: b'7,.xe9t.xe9,Drama'; convert the file"):
        titles_of("ml-20m", "movies.csv", b"movieId,title,genres\n7,\xe9t\xe9,Drama\n", tmp_path)


def test_titles_file_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"movies\.dat"):
        read_titles([tmp_path / "movies.dat"], CATALOG["ml-1m"].titles["movies.dat"])


# Real data


@pytest.mark.parametrize("name", ["ml-100k", "ml-1m", "ml-latest-small"])
def test_real_data_has_the_published_counts_and_titles(name: str, real_data: Path) -> None:
    if not (real_data / name).is_dir():
        pytest.skip(f"no {name} in {real_data}")
    known = CATALOG[name]
    for source in (real_data / name, real_data):  # the data set itself, and a folder of several
        ratings, log_format, titles = locate(known, source)
        assert ratings.path.parent == real_data / name
        assert titles is not None
    events = read_events(ratings, log_format)
    assert check_counts(known, events) == []
    assert set(map(str, events.item_ids.tolist())) <= set(read_titles([titles[0]], titles[1]))
