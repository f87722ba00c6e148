"""Data sets by name: an invented file in exactly the form of each becomes exactly these events."""

import gzip
import html
import io
import tarfile
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recvae.datasets.catalog.known import CATALOG, known_dataset, locate
from recvae.datasets.events import Events
from recvae.datasets.logs import read_events
from recvae.datasets.titles import read_titles

Row = tuple[Any, Any, float | None, int | None]
"""User, item, rating, time."""

# Every id, title and rating below is made up.
ANN, BOB = "0a" * 20, "1b" * 20


def parquet(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def pack(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar(members: dict[str, bytes], mode: Any = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@dataclass(frozen=True)
class Case:
    """Files in the form of a data set, and what is in them."""

    name: str
    files: dict[str, bytes]
    rows: list[Row]
    titles: dict[str, str] = field(default_factory=dict)
    test: list[Row] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.name} {next(iter(self.files))}"


NETFLIX_ROWS: list[Row] = [(6, 1, 3, 1125964800), (7, 1, 5, 1104537600), (6, 8, 1, 1104624000)]
NETFLIX_TITLES = b"1,2003,Night, Rain, and Trains\n8,NULL,Caf\xe9 Road\n"
NETFLIX_NAMES = {"1": "Night, Rain, and Trains", "8": "Café Road"}
FILM_1 = b"1:\n6,3,2005-09-06\n7,5,2005-01-01\n"
FILM_8 = b"8:\n6,1,2005-01-02\n"
FILMS = {"training_set/mv_0000001.txt": FILM_1, "training_set/mv_0000008.txt": FILM_8}

MIND_TRAIN = (
    b"1\tU13740\t11/11/2019 9:05:58 AM\tN55189 N42782\tN55689-1 N35729-0\n"
    b"2\tU9\t11/12/2019 10:01:00 PM\t\tN7-0 N8-1 N9-1\n"
)
MIND_DEV = b"1\tU9\t11/15/2019 12:00:01 AM\tN8\tN35729-1\n2\tU10\t11/15/2019 1:00:00 AM\tN8\tN35729-0\n"
MIND_NEWS = (
    b'N55689\tsports\tgolf\tA "quiet" day\tText.\thttps://example.org/1\t[]\t[]\nN8\tnews\tcity\tNull\t\t-\t[]\t[]\n'
)
MIND_MORE = b"N8\tnews\tcity\tNull again\t\t-\t[]\t[]\nN35729\tnews\tcity\tLate\t\t-\t[]\t[]\n"
MIND_ROWS: list[Row] = [
    ("U9", "N35729", None, 1573776001),
    ("U13740", "N55689", None, 1573463158),
    ("U9", "N8", None, 1573596060),
    ("U9", "N9", None, 1573596060),
]
MIND_NAMES = {"N55689": 'A "quiet" day', "N8": "Null again", "N35729": "Late"}

MSD = f"{ANN}\tSOAAAAA12AB0180000\t3\n{BOB}\tSOAAAAA12AB0180000\t1\n{BOB}\tSOBBBBB12AB0180000\t12\n".encode()
MSD_ROWS: list[Row] = [
    (ANN, "SOAAAAA12AB0180000", 3, None),
    (BOB, "SOAAAAA12AB0180000", 1, None),
    (BOB, "SOBBBBB12AB0180000", 12, None),
]
MSD_TRACKS = (
    "TRAAAAA128F4200001<SEP>SOAAAAA12AB0180000<SEP>Some Band<SEP>Some Sông\n"
    "TRAAAAA128F4200002<SEP>SOAAAAA12AB0180000<SEP>Other Band<SEP>Cover\n"
    'TRAAAAA128F4200003<SEP>SOBBBBB12AB0180000<SEP>A, "B"<SEP>\n'
).encode()
MSD_NAMES = {"SOAAAAA12AB0180000": "Some Band - Some Sông", "SOBBBBB12AB0180000": 'A, "B"'}

LASTFM = (
    f"{ANN}\t3bd73256-3905-4f3a-97e2-8b341527f805\tsome band\t2137\n"
    f'{ANN}\t\tthe "quoted" trio\t12\n{BOB}\t\tnull\t7\n{BOB}\t\tNA\t0\n'
).encode()
LASTFM_ROWS: list[Row] = [
    (ANN, "some band", 2137, None),
    (ANN, 'the "quoted" trio', 12, None),
    (BOB, "null", 7, None),
    (BOB, "NA", 0, None),
]

BX = b'"User-ID";"ISBN";"Book-Rating"\r\n"276725";"034545104X";"0"\r\n"7";"0123456789";"5"\r\n"7";"NA";"10"\r\n'
BX_ROWS: list[Row] = [(276725, "034545104X", 0, None), (7, "0123456789", 5, None), (7, "NA", 10, None)]
BX_BOOKS = (
    b'"ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher";"Image-URL-S";"Image-URL-M";"Image-URL-L"\r\n'
    b'"0123456789";"A \\"Great\\" Day; Part 1";"A. Author";"2001";"Pub &amp; Co";"http://a";"http://b";"http://c"\r\n'
    b'"034545104X";"Caf\xe9 &amp; Rain";"B. Author";"2002";"Pub";"http://a";"http://b";"http://c"\r\n'
)
BX_NAMES = {"0123456789": 'A "Great" Day; Part 1', "034545104X": "Café & Rain"}

BOOKS_HEADER = (
    "book_id,goodreads_book_id,best_book_id,work_id,books_count,isbn,isbn13,authors,original_publication_year,"
    "original_title,title,language_code,average_rating,ratings_count,work_ratings_count,work_text_reviews_count,"
    "ratings_1,ratings_2,ratings_3,ratings_4,ratings_5,image_url,small_image_url\n"
)
BOOKS = (
    BOOKS_HEADER
    + '258,1,1,9,2,439023483,9.78043902348e+12,"A. One, B. Two",2008.0,"Rain, The","Rain, The (Sea, #1)",eng,4.3,9,9,9,'
    "1,1,1,1,1,http://a,http://b\n"
    + '7,258,1,9,2,,9.78043902348e+12,Ça,2008.0,,"A ""Great"" Day",,4.3,9,9,9,1,1,1,1,1,http://a,http://b\n'
).encode()

ARTICLES = (
    b'"doc.id","title","citeulike.id","raw.title","raw.abstract"\n'
    b'"1","some clean title","42","Some Raw Title","Text, with ""quotes"".\nand a second line"\n'
    b'"3","third","43","Th\xeerd, of ""all""","More."\n'
)

AMAZON = (
    b"user_id,parent_asin,rating,timestamp\n"
    b"AGKASBHYZPGTEPO6,B006GBITXC,3.0,1452647382000\nAE2,0005019281,5.0,1519317108692\n"
)
AMAZON_ROWS: list[Row] = [("AGKASBHYZPGTEPO6", "B006GBITXC", 3, 1452647382), ("AE2", "0005019281", 5, 1519317108)]
AMAZON_META = (
    b'{"main_category": "Games", "title": "A \\"Great\\" Game", "average_rating": 4.5, "features": [], "price": null, '
    b'"details": {"title": "x"}, "parent_asin": "B006GBITXC", "bought_together": null}\n'
    b'{"main_category": null, "title": "", "price": "12.99", "parent_asin": "0005019281"}\n'
    b'{"main_category": null, "title": "\\u00c9t\\u00e9", "price": 3, "parent_asin": "X1"}\n'
)
AMAZON_RAW = (
    b'{"rating": 3.0, "title": "Good", "text": "I, like it", "images": [], "asin": "B0", "parent_asin": "B006GBITXC", '
    b'"user_id": "AE2", "timestamp": 1452647382000, "helpful_vote": 0, "verified_purchase": true}\n'
)

LIKES = parquet(
    uid=pa.array([100, 100, 300], pa.uint32()),
    item_id=pa.array([9, 4, 9], pa.uint32()),
    timestamp=pa.array([0, 5, 26_000_000], pa.uint32()),
    is_organic=pa.array([1, 0, 1], pa.uint8()),
)
LISTENS = parquet(
    uid=pa.array([100, 300], pa.uint32()),
    item_id=pa.array([9, 9], pa.uint32()),
    timestamp=pa.array([15, 20], pa.uint32()),
    is_organic=pa.array([1, 0], pa.uint8()),
    played_ratio_pct=pa.array([49, 104], pa.uint16()),
    track_length_seconds=pa.array([180, 200], pa.uint32()),
)

PAIR = {"train.txt": b"0 7580 37 912\n1 15 40980\n2 37 15\n", "test.txt": b"0 15\n1 \n2 912 7580\n"}
PAIR_ROWS: list[Row] = [
    (user, item, None, None) for user, item in ((0, 7580), (0, 37), (0, 912), (1, 15), (1, 40980), (2, 37), (2, 15))
]
PAIR_TEST: list[Row] = [(0, 15, None, None), (2, 912, None, None), (2, 7580, None, None)]

CASES = [
    Case(
        "ml-100k",
        {"ml-100k/u.data": b"1\t30\t5\t1000\n2\t7\t3\t1001\n", "ml-100k/u.item": b"30|Caf\xe9 (1995)|x||\n"},
        [(1, 30, 5, 1000), (2, 7, 3, 1001)],
        {"30": "Café (1995)"},
    ),
    Case(
        "netflix",
        {"combined_data_1.txt": FILM_1, "combined_data_2.txt": FILM_8, "movie_titles.csv": NETFLIX_TITLES},
        NETFLIX_ROWS,
        NETFLIX_NAMES,
    ),
    Case(
        "netflix",
        {
            "archive/combined_data_1.txt": FILM_1 + FILM_8.replace(b"\n", b"\r\n"),
            "archive/movie_titles.csv": NETFLIX_TITLES,
            "archive/probe.txt": b"1:\n6\n",
        },
        NETFLIX_ROWS,
        NETFLIX_NAMES,
    ),
    Case("netflix", {**FILMS, "movie_titles.txt": NETFLIX_TITLES}, NETFLIX_ROWS, NETFLIX_NAMES),
    Case(
        "netflix",
        {"download/training_set.tar": tar(FILMS), "download/movie_titles.txt": NETFLIX_TITLES},
        NETFLIX_ROWS,
        NETFLIX_NAMES,
    ),
    Case(
        "anime",
        {
            "rating.csv": b"user_id,anime_id,rating\n1,20,-1\n1,24,8\n3,20,10\n",
            "anime.csv": b"anime_id,name,genre,type,episodes,rating,members\n"
            b'20,Some&#039; Show\xc2\xb0,"Action, Comedy",TV,Unknown,9.16,151266\n'
            b'24,"A, B",,,1,,3\n',
        },
        [(1, 20, -1, None), (1, 24, 8, None), (3, 20, 10, None)],
        {"20": "Some' Show°", "24": "A, B"},
    ),
    Case("msd", {"train_triplets.txt": MSD, "unique_tracks.txt": MSD_TRACKS}, MSD_ROWS, MSD_NAMES),
    Case(
        "msd",
        {"train_triplets.txt.zip": pack(**{"train_triplets.txt": MSD}), "unique_tracks.txt": MSD_TRACKS},
        MSD_ROWS,
        MSD_NAMES,
    ),
    Case(
        "lastfm-360k",
        {
            "lastfm-dataset-360K/usersha1-artmbid-artname-plays.tsv": LASTFM,
            "lastfm-dataset-360K/usersha1-profile.tsv": b"x\ty\n",
        },
        LASTFM_ROWS,
    ),
    Case(
        "lastfm-2k",
        {
            "user_artists.dat": b"userID\tartistID\tweight\r\n2\t51\t13883\r\n2\t52\t1\r\n",
            "artists.dat": b'id\tname\turl\tpictureURL\n51\tSome "Band"\thttp://a\thttp://b\n52\t\xc3\x89t\xc3\xa9\thttp://a\t\n',
        },
        [(2, 51, 13883, None), (2, 52, 1, None)],
        {"51": 'Some "Band"', "52": "Été"},
    ),
    Case(
        "yambda:50m-likes",
        {"flat/50m/likes.parquet": LIKES, "flat/500m/likes.parquet": parquet(uid=[1], item_id=[1], timestamp=[1])},
        [(100, 9, None, 0), (100, 4, None, 5), (300, 9, None, 26_000_000)],
    ),
    Case("yambda:50m-listens", {"listens.parquet": LISTENS}, [(100, 9, 49, 15), (300, 9, 104, 20)]),
    Case(
        "goodbooks-10k",
        {
            "ratings.csv": b"user_id,book_id,rating\n1,258,5\n2,7,1\n",
            "books.csv": BOOKS,
            "to_read.csv": b"user_id,book_id\n1,7\n",
        },
        [(1, 258, 5, None), (2, 7, 1, None)],
        {"258": "Rain, The (Sea, #1)", "7": 'A "Great" Day'},
    ),
    Case(
        "book-crossing",
        {
            "BX-Book-Ratings.csv": BX,
            "BX-Books.csv": BX_BOOKS,
            "BX-Users.csv": b'"User-ID";"Location";"Age"\r\n"1";"a";NULL\r\n',
        },
        BX_ROWS,
        BX_NAMES,
    ),
    Case(
        "book-crossing",
        {
            "Ratings.csv": b"User-ID,ISBN,Book-Rating\n276725,034545104X,0\n7,0123456789,5\n7,NA,10\n",
            "Books.csv": 'ISBN,Book-Title,Book-Author\n0123456789,"A ""Great"" Day; Part 1",A\n'
            "034545104X,Café &amp; Rain,B\n".encode(),
        },
        BX_ROWS,
        BX_NAMES,
    ),
    Case(
        "amazon-2023:Video_Games",
        {"Video_Games.csv.gz": gzip.compress(AMAZON), "meta_Video_Games.jsonl.gz": gzip.compress(AMAZON_META)},
        AMAZON_ROWS,
        {"B006GBITXC": 'A "Great" Game', "X1": "Été"},
    ),
    Case(
        "amazon-2023:Books",
        {"Books.csv": AMAZON, "Video_Games.csv": b"user_id,parent_asin,rating,timestamp\n"},
        AMAZON_ROWS,
    ),
    Case(
        "amazon-2023:Software", {"Software.jsonl.gz": gzip.compress(AMAZON_RAW)}, [("AE2", "B006GBITXC", 3, 1452647382)]
    ),
    Case(
        "retailrocket",
        {
            "events.csv": b"timestamp,visitorid,event,itemid,transactionid\n"
            b"1433221332117,257597,view,355908,\n"
            b"1433222276276,599528,transaction,356475,4000\n"
            b"1433222276277,599528,view,356475,\n",
            "category_tree.csv": b"categoryid,parentid\n1,2\n",
        },
        [(257597, 355908, None, 1433221332), (599528, 356475, None, 1433222276)],
    ),
    Case(
        "steam-200k",
        {
            "steam-200k.csv": b"151603712,Some Game,purchase,1.0,0\n151603712,Some Game,play,14.9,0\n"
            b'7,"One, Two, Three",purchase,1.0,0\n7,null,purchase,1.0,0\n'
        },
        [(151603712, "Some Game", None, None), (7, "One, Two, Three", None, None), (7, "null", None, None)],
    ),
    Case("gowalla", PAIR, PAIR_ROWS, test=PAIR_TEST),
    Case(
        "yelp2018",
        {f"LightGCN-PyTorch-master/data/yelp2018/{name}": content for name, content in PAIR.items()},
        PAIR_ROWS,
        test=PAIR_TEST,
    ),
    Case("amazon-book", {f"amazon-book/{name}": content for name, content in PAIR.items()}, PAIR_ROWS, test=PAIR_TEST),
    Case(
        "mind:small",
        {
            "MINDsmall_train/behaviors.tsv": MIND_TRAIN,
            "MINDsmall_train/news.tsv": MIND_MORE + MIND_NEWS,
            "MINDsmall_dev/behaviors.tsv": MIND_DEV,
            "MINDsmall_dev/news.tsv": MIND_MORE,
            "MINDlarge_train/behaviors.tsv": b"broken\n",
        },
        MIND_ROWS,
        MIND_NAMES,
    ),
    Case(
        "mind:large",
        {
            "MINDlarge_train.zip": pack(**{"behaviors.tsv": MIND_TRAIN, "news.tsv": MIND_MORE + MIND_NEWS}),
            "MINDlarge_dev.zip": pack(**{"MINDlarge_dev/behaviors.tsv": MIND_DEV}),
        },
        MIND_ROWS,
        MIND_NAMES,
    ),
    Case("mind:small", {"behaviors.tsv": MIND_TRAIN + b"3\tU8\t11/12/2019 1:00:00 PM\tN8\tN7 N8\n"}, MIND_ROWS[1:]),
    Case(
        "citeulike-a",
        {"users.dat": b"3 495 1631 2\n0\n1 2\n", "raw-data.csv": ARTICLES},
        [(0, 495, None, None), (0, 1631, None, None), (0, 2, None, None), (2, 2, None, None)],
        {"0": "Some Raw Title", "2": 'Thîrd, of "all"'},
    ),
]


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def rows_of(events: Events) -> list[Row]:
    ratings = [None] * len(events) if events.ratings is None else events.ratings.tolist()
    times = [None] * len(events) if events.timestamps is None else events.timestamps.tolist()
    users, items = events.user_ids[events.users].tolist(), events.item_ids[events.items].tolist()
    return list(zip(users, items, ratings, times, strict=True))


@pytest.fixture
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


def check(case: Case, source: Path, scratch: Path) -> None:
    known = known_dataset(case.name)
    log, log_format, titles = locate(known, source, scratch)
    assert rows_of(read_events(log, log_format)) == case.rows
    found = {} if titles is None else read_titles([titles[0]], titles[1])
    assert {item: html.unescape(title) if known.has_entities else title for item, title in found.items()} == case.titles
    if case.test:
        test, _, _ = locate(replace(known, ratings=known.test), source, scratch)
        assert rows_of(read_events(test, log_format)) == case.test


@pytest.mark.parametrize("case", CASES, ids=str)
def test_folder(case: Case, tmp_path: Path, scratch: Path) -> None:
    check(case, fill(tmp_path, case.files), scratch)


@pytest.mark.parametrize("prefix", ["", "inside/"])
@pytest.mark.parametrize("case", [case for case in CASES if not any(".zip" in name for name in case.files)], ids=str)
def test_zip(case: Case, prefix: str, tmp_path: Path, scratch: Path) -> None:
    (tmp_path / "a.zip").write_bytes(pack(**{prefix + name: content for name, content in case.files.items()}))
    check(case, tmp_path / "a.zip", scratch)


@pytest.mark.parametrize("case", [case for case in CASES if not any(".zip" in name for name in case.files)], ids=str)
def test_tar(case: Case, tmp_path: Path, scratch: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(
        tar({f"inside/{name}": content for name, content in case.files.items()}, "w:gz")
    )
    check(case, tmp_path / "a.tar.gz", scratch)


@pytest.mark.parametrize(
    "case", [case for case in CASES if known_dataset(case.name).is_file and len(case.files) < 3], ids=str
)
def test_file_alone_and_titles_next_to_it(case: Case, tmp_path: Path, scratch: Path) -> None:
    fill(tmp_path, case.files)
    source = tmp_path / next(iter(case.files))
    if source.suffix != ".zip":
        check(case, source, scratch)


def test_every_data_set_has_a_case() -> None:
    assert {case.name.partition(":")[0] for case in CASES} >= {name for name in CATALOG if not name.startswith("ml-")}


def test_a_row_with_a_stray_quote_is_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "BX-Book-Ratings.csv").write_bytes(BX + b'"8";"a"b";"3"\r\n"9";"\\"c\\"";"4"\r\n')
    log, log_format, _ = locate(CATALOG["book-crossing"], tmp_path)
    events = read_events(log, log_format)
    assert rows_of(events) == [*BX_ROWS, (9, '"c"', 4, None)]
    assert events.reading is not None and events.reading.skipped == {"malformed rows": 1}


def test_a_book_with_a_column_too_few_has_no_title(tmp_path: Path) -> None:
    merged = b'"078946697X";"Sea (Level 4)\\";An Author";"2000";"Pub";"http://a";"http://b";"http://c"\r\n'
    files = {"BX-Book-Ratings.csv": BX, "BX-Books.csv": BX_BOOKS + merged}
    _, _, titles = locate(CATALOG["book-crossing"], fill(tmp_path, files))
    assert titles is not None and set(read_titles([titles[0]], titles[1])) == set(BX_NAMES)
