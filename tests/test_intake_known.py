"""From the name of a data set and a download to a data set: the command, filters, counts, messages, addresses."""

import http.server
import io
import json
import re
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recvae.datasets.catalog.entry import BY_HAND, FILES, SUBJECTS, TAR, ZIP, KnownDataset, RemoteFile
from recvae.datasets.catalog.known import CATALOG, both, check_counts, known_dataset, locate
from recvae.datasets.dataset import Dataset
from recvae.datasets.downloads import download
from recvae.datasets.events import Events
from recvae.datasets.preparation import prepare_known
from recvae.datasets.protocol import Protocol, usual_protocol
from recvae.errors import DataError, DownloadError, UsageError

Command = Callable[..., Any]

ALL = [*CATALOG.values(), *(part for known in CATALOG.values() for part in known.parts.values())]

# Every log below is made up: 40 users, each with 6 of 12 items, and a time that goes up.
PAIRS = [(user, (user + 2 * place) % 12) for place in range(6) for user in range(40)]


def lines(form: str) -> bytes:
    """Write each pair in a form, in which u and i are the user and the item, and n is the number of the row."""
    return "".join(form.format(u=user, i=item, n=number) for number, (user, item) in enumerate(PAIRS)).encode()


def by_film(films: Iterator[int]) -> bytes:
    rated = {film: [user for user, item in PAIRS if item == film] for film in films}
    return "".join(
        f"{film + 1}:\n" + "".join(f"{u + 9},{4 + u % 2},2005-01-{u % 28 + 1:02}\n" for u in users)
        for film, users in rated.items()
    ).encode()


def table(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    users, items = (pa.array([pair[place] for pair in PAIRS], pa.uint32()) for place in (0, 1))
    times = pa.array(range(0, 5 * len(PAIRS), 5), pa.uint32())
    pq.write_table(pa.table({"uid": users, "item_id": items, "timestamp": times, **columns}), buffer)
    return buffer.getvalue()


def lists(kept: slice) -> bytes:
    items = {user: [item for one, item in PAIRS if one == user][kept] for user in range(40)}
    return "".join(f"{user} {' '.join(map(str, found))}\n" for user, found in items.items()).encode()


CLICKS = "".join(
    f"{n}\tU{u}\t11/{9 + n // 60}/2019 {n % 12 + 1}:{n % 60:02}:00 PM\t\tN{i}-1 N99-0\n"
    for n, (u, i) in enumerate(PAIRS)
).encode()
LIBRARIES = "".join(f"6 {' '.join(str(item) for one, item in PAIRS if one == user)}\n" for user in range(40)).encode()
FILES_OF: dict[str, dict[str, bytes]] = {
    "ml-1m": {"ratings.dat": lines("{u}::{i}::5::{n}\n")},
    "netflix": {"combined_data_1.txt": by_film(iter(range(7))), "combined_data_2.txt": by_film(iter(range(7, 12)))},
    "anime": {"rating.csv": b"user_id,anime_id,rating\n" + lines("{u},{i},-1\n")},
    "msd": {"train_triplets.txt": lines("{u:040x}\tSO{i:016}\t1\n")},
    "lastfm-360k": {"usersha1-artmbid-artname-plays.tsv": lines("{u:040x}\t\tthe {i}\t3\n")},
    "lastfm-2k": {"user_artists.dat": b"userID\tartistID\tweight\r\n" + lines("{u}\t{i}\t1\r\n")},
    "yambda:50m-likes": {"likes.parquet": table()},
    "yambda:500m-listens": {"listens.parquet": table(played_ratio_pct=[100] * 200 + [10] * 40)},
    "goodbooks-10k": {"ratings.csv": b"user_id,book_id,rating\n" + lines("{u},{i},4\n")},
    "book-crossing": {"BX-Book-Ratings.csv": b'"User-ID";"ISBN";"Book-Rating"\n' + lines('"{u}";"X{i}";"0"\n')},
    "amazon-2023:Digital_Music": {
        "Digital_Music.csv": b"user_id,parent_asin,rating,timestamp\n" + lines("A{u},B{i},1.0,15{n:011}\n")
    },
    "retailrocket": {
        "events.csv": b"timestamp,visitorid,event,itemid,transactionid\n" + lines("14{n:011},{u},view,{i},\n")
    },
    "steam-200k": {"steam-200k.csv": lines("{u},Game {i},purchase,1.0,0\n{u},Game {i},play,9.5,0\n")},
    "gowalla": {"train.txt": lists(slice(5)), "test.txt": lists(slice(5, 6))},
    "yelp2018": {"train.txt": lists(slice(4)), "test.txt": lists(slice(4, 6))},
    "amazon-book": {"train.txt": lists(slice(5)), "test.txt": lists(slice(5, 6)) + b"40 \n"},
    "mind:small": {"behaviors.tsv": CLICKS},
    "citeulike-a": {"users.dat": LIBRARIES},
}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("name", FILES_OF)
def test_a_download_becomes_a_data_set(name: str, workplace: Path, command: Command) -> None:
    write(Path("mine"), FILES_OF[name])
    options = [] if known_dataset(name).is_pair else ["--min-item-users", 3]
    if known_dataset(name).split == "strong" and options:
        options += ["--heldout-users", 4, "--min-user-items", 2]
    said = command("preprocess", name, "--source", "mine", "--force", *options, "--json")
    assert said.code == 0, said.err
    dataset = Dataset.load(Path("data") / name.replace(":", "-"))
    assert dataset.manifest["source"]["name"] == name
    assert dataset.train.nnz and dataset.test.targets.nnz
    shown = command("preprocess", name, "--source", "mine", "--force", "--overwrite", *options)
    assert shown.code == 0 and f"recvae train --model multvae --data {name.replace(':', '-')}" in shown.err


def test_every_data_set_is_prepared_above() -> None:
    assert {name.partition(":")[0] for name in FILES_OF} >= {name for name in CATALOG if not name.startswith("ml-")}


def test_titles_and_origin_are_in_the_data_set(tmp_path: Path) -> None:
    titles = "anime_id,name,genre\n" + "".join(f'{item},"A &amp; {item}, B",x\n' for item in range(12))
    write(tmp_path / "anime", FILES_OF["anime"] | {"anime.csv": titles.encode()})
    prepared = prepare_known("anime", Protocol(min_user_items=2), source=tmp_path / "anime", force=True)
    assert prepared.dataset.titles is not None
    assert prepared.dataset.titles.tolist() == [f"A & {item}, B" for item in prepared.dataset.item_ids]
    write(tmp_path / "nf", FILES_OF["netflix"])
    source = prepare_known("netflix", Protocol(heldout_users=4), source=tmp_path / "nf", force=True).dataset.manifest[
        "source"
    ]
    assert source["file"] == "nf" and source["url"] == CATALOG["netflix"].url and len(source["sha256"]) == 64


def test_the_same_log_in_both_forms_of_netflix_is_the_same_data(tmp_path: Path) -> None:
    one = write(tmp_path / "four", FILES_OF["netflix"])
    films = {f"mv_{film + 1:07}.txt": by_film(iter([film])) for film in range(12)}
    two = write(tmp_path / "many", films)
    with tarfile.open(tmp_path / "training_set.tar", "w") as archive:
        archive.add(two, "training_set")
    prints = {
        prepare_known("netflix", Protocol(heldout_users=4), source=source, force=True).dataset.fingerprint
        for source in (one, two, tmp_path / "training_set.tar")
    }
    assert len(prints) == 1


# Protocols and counts


def test_the_usual_protocol_is_that_of_the_papers() -> None:
    msd = usual_protocol(CATALOG["msd"])
    assert (msd.min_user_items, msd.min_item_users, msd.split) == (20, 200, "strong")
    assert usual_protocol(known_dataset("amazon-2023:Books")).split == "leave-last-out"
    assert usual_protocol(known_dataset("yambda:50m-likes"), seed=3, min_user_items=7) == Protocol(
        seed=3, min_user_items=7, split="time"
    )
    assert usual_protocol(CATALOG["ml-1m"]) == Protocol()
    held_out = {name: known.heldout_users for name, known in CATALOG.items() if known.heldout_users}
    assert held_out == {"ml-20m": 10_000, "netflix": 40_000, "msd": 50_000, "goodbooks-10k": 2_500}


def test_filters_of_a_data_set_hold_unless_others_are_chosen(tmp_path: Path) -> None:
    folder = write(tmp_path, FILES_OF["retailrocket"])
    with pytest.raises(DataError, match="the filter 'items with >= 50 users' left no event"):
        prepare_known("retailrocket", source=folder, force=True)
    chosen = usual_protocol(CATALOG["retailrocket"], min_item_users=3)
    manifest = prepare_known("retailrocket", chosen, source=folder, force=True).dataset.manifest
    assert (manifest["filters"]["min_user_items"], manifest["filters"]["min_item_users"]) == (3, 3)


def test_only_listens_to_half_of_a_track_count(tmp_path: Path) -> None:
    folder = write(tmp_path, FILES_OF["yambda:500m-listens"])
    steps = prepare_known("yambda:500m-listens", source=folder, force=True).dataset.manifest["filters"]["steps"]
    assert [(step["name"], step["events"]) for step in steps[:2]] == [("as read", 240), ("rating >= 50", 200)]


def test_published_counts_are_confirmed_or_doubted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path, FILES_OF["msd"])
    known = replace(CATALOG["msd"], n_events=240, n_users=40, n_items=None, min_item_users=3, min_user_items=2)
    known = replace(known, heldout_users=4, expected={"events": 240, "users": 40, "items": 13})
    monkeypatch.setitem(CATALOG, "msd", known)
    prepared = prepare_known("msd", source=folder)
    assert prepared.confirmed == [
        "240 events, 40 users read",
        "240 events after the filters",
        "40 users after the filters",
    ]
    assert prepared.warnings == ["msd: got 12 items after the filters, the published number is 13"]
    assert prepare_known("msd", Protocol(min_user_items=3, heldout_users=4), source=folder).confirmed == [
        "240 events, 40 users read"
    ]


def test_counts_that_nobody_published_are_not_compared() -> None:
    events = Events.from_columns([1, 1, 2], [5, 6, 5])
    known = replace(CATALOG["steam-200k"], n_events=None, n_users=2, n_items=None)
    assert check_counts(known, events) == []
    with pytest.raises(DataError, match=r"this is not steam-200k: got 3 events, .*, expected 9 users; check --source"):
        check_counts(replace(known, n_users=9), events)


def test_the_counts_of_a_pair_are_those_of_both_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = Events.from_columns([3, 1], [5, 6]), Events.from_columns([1, 7], [5, 9])
    whole = both(train, test)
    assert whole.counts() == {"events": 4, "users": 3, "items": 3}
    assert whole.user_ids[whole.users].tolist() == [3, 1, 1, 7] and whole.item_ids[whole.items].tolist() == [5, 6, 5, 9]
    folder = write(tmp_path, FILES_OF["gowalla"])
    with pytest.raises(DataError, match=r"this is not gowalla: got 240 events, 40 users, 12 items, expected 1,027,370"):
        prepare_known("gowalla", source=folder)
    monkeypatch.setitem(CATALOG, "gowalla", replace(CATALOG["gowalla"], n_events=240, n_users=40, n_items=12))
    prepared = prepare_known("gowalla", source=folder)
    assert prepared.confirmed == ["240 events, 40 users, 12 items read"] and prepared.warnings == []
    assert prepared.dataset.manifest["source"]["train"]["file"] == "train.txt"


# Names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "amazon-2023",
            "got data set 'amazon-2023', expected one part of amazon-2023, e.g. amazon-2023:Video_Games; its",
        ),
        (
            "amazon-2023:VideoGames",
            "got data set 'amazon-2023:VideoGames', .* e.g. amazon-2023:Video_Games; its parts: ",
        ),
        ("mind:tiny", "expected one part of mind, e.g. mind:small; its parts: small, large"),
        ("ml-1m:small", "got data set 'ml-1m:small', but ml-1m has no parts; expected 'ml-1m' alone"),
        ("netflx", "did you mean 'netflix'?"),
    ],
)
def test_a_wrong_name_or_part(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        known_dataset(name)


@pytest.mark.parametrize("known", ALL, ids=lambda known: known.name)
def test_entry_is_complete(known: KnownDataset) -> None:
    assert known.subject in SUBJECTS and known.licence
    assert known.description and "\n" not in known.description and len(known.description) < 90
    assert known.url.startswith(("https://", "http://"))
    assert known.download in (ZIP, TAR, FILES, BY_HAND)
    assert (known.download == BY_HAND) == bool(known.by_hand)
    assert known.parts or bool(known.files) == (known.download == FILES)
    assert bool(known.ratings) != bool(known.parts)
    for md5 in (known.md5, *(file.md5 for file in known.files)):
        assert md5 is None or re.fullmatch("[0-9a-f]{32}", md5)
    if known.download == ZIP:
        assert known.url.endswith(".zip")
    elif known.download == TAR:
        assert known.url.endswith(".tar.gz")
    for file in known.files:
        assert file.url.rsplit("/", 1)[1] == file.name
    assert set(known.convert) <= {*known.ratings, *known.titles}
    assert re.fullmatch(r"[A-Za-z0-9_-]+", known.folder_name)


def test_parts_are_named_by_their_whole() -> None:
    for name, known in CATALOG.items():
        assert known.name == name
        assert all(part.name == f"{name}:{key}" for key, part in known.parts.items())


# Wrong files


def located(name: str, files: dict[str, bytes], folder: Path) -> object:
    (folder / "scratch").mkdir()
    return locate(known_dataset(name), write(folder / "files", files), folder / "scratch")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"6,3,2005-09-06\n1:\n", "line 1: got '6,3,2005-09-06', expected the id of a film, e.g. 1:; download"),
        (b"1:\n6,3,2005-09-06\n7,5\n", "line 3: got '7,5', expected user,rating,date; download the file again"),
        (b"1:\n\n6,3,2005-09-06\n2:\n7,6,2005-09-06\n", "line 5: got '7,6,2005-09-06', expected user,rating,date"),
        (b"1:\n6,3,2005-09-06\n2:\n7,5,2005-09", "line 4: got '7,5,2005-09', expected user,rating,date"),
    ],
)
def test_a_wrong_line_of_netflix(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"combined_data_1\.txt {message}"):
        located("netflix", {"combined_data_1.txt": content}, tmp_path)


def test_lines_are_counted_over_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recvae.datasets.catalog.films._CHUNK", 64)
    content = by_film(iter(range(12)))
    log, *_ = located("netflix", {"combined_data_1.txt": content}, tmp_path)  # type: ignore[misc]
    assert len(log.path.read_text().splitlines()) == 1 + len(PAIRS)
    with pytest.raises(DataError, match=rf"combined_data_1\.txt line {content.count(10) + 1}: got 'x', expected"):
        located("netflix", {"combined_data_1.txt": content + b"x\n"}, write(tmp_path / "again", {}))


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        (
            "netflix",
            "movie_titles.csv",
            b"1,2003,Rain\n2;2004;Sea\n",
            "line 2: got '2;2004;Sea', expected id,year,title",
        ),
        ("msd", "unique_tracks.txt", b"TR1<SEP>SO1<SEP>Band\n", "line 1: got .*, expected track<SEP>song<SEP>artist"),
        (
            "mind:small",
            "behaviors.tsv",
            b"1\tU1\t2019-11-11\t\tN1-1\n",
            "line 1: got .*, expected impression, user, time",
        ),
        ("mind:small", "news.tsv", b"N1\tsports\n", "line 1: got .*, expected eight columns, of which the fourth is"),
        (
            "citeulike-a",
            "users.dat",
            b"1 4\n3 1 2\n",
            "line 2: got '3 1 2', expected the number of articles, then as many",
        ),
        (
            "citeulike-a",
            "raw-data.csv",
            b"doc.id,title\n1,Sea\n",
            "near line 2: got no doc.id and raw.title, expected both",
        ),
    ],
)
def test_a_wrong_line_of_a_file_that_is_no_table(
    name: str, file: str, content: bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=rf"{re.escape(file)} {message}"):
        located(name, FILES_OF[name] | {file: content}, tmp_path)


def test_damaged_tars(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"training_set\.tar is truncated or damaged .*; download it again"):
        located("netflix", {"training_set.tar": b"no tar at all"}, tmp_path)
    empty = io.BytesIO()
    tarfile.open(fileobj=empty, mode="w").close()
    with pytest.raises(DataError, match=r"training_set\.tar holds no mv_\*\.txt, expected one such file for each film"):
        located("netflix", {"training_set.tar": empty.getvalue()}, write(tmp_path / "again", {}))
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(write(tmp_path / "in", FILES_OF["lastfm-360k"]), "in")
    content = (tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"a\.tar\.gz is truncated or damaged .*; download"):
        locate(CATALOG["lastfm-360k"], tmp_path / "a.tar.gz", tmp_path / "in")


def test_a_tar_that_is_cut_between_two_blocks(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(write(tmp_path / "in", FILES_OF["lastfm-360k"]), "in")
    content = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(content[:3072])
    with pytest.raises(
        DataError, match=r"a\.tar is truncated or damaged \(unexpected end of data\); download it again"
    ):
        locate(CATALOG["lastfm-360k"], tmp_path / "a.tar", tmp_path / "in")


def test_a_file_that_must_be_converted_needs_a_folder(tmp_path: Path) -> None:
    folder = write(tmp_path, FILES_OF["citeulike-a"])
    with pytest.raises(
        UsageError, match=r"users\.dat, which is no table, and no folder to convert it in; give `scratch`"
    ):
        locate(CATALOG["citeulike-a"], folder)


def test_a_file_of_another_name(tmp_path: Path) -> None:
    (tmp_path / "steam.txt").write_text("1,a\n")
    with pytest.raises(
        UsageError, match=r"neither a folder nor a zip; give the .* steam-200k, or its zip, or steam-200k\.csv"
    ):
        locate(CATALOG["steam-200k"], tmp_path / "steam.txt")


# The command


def test_what_a_person_must_download_says_where(workplace: Path, command: Command) -> None:
    said = command("preprocess", "anime")
    assert said.code == 2
    assert "anime cannot be downloaded without you: Kaggle asks for a login; get it from https://www.kaggle" in said.err
    assert "recvae preprocess anime --source PATH" in said.err
    for known in ALL:
        if known.download == BY_HAND and not known.parts:
            with pytest.raises(
                UsageError, match=f"{known.name} cannot be downloaded without you: {known.by_hand}; get"
            ):
                download(known, Path("downloads"))


def test_a_pair_takes_no_filters(workplace: Path, command: Command) -> None:
    said = command("preprocess", "gowalla", "--min-user-items", 3, "--source", write(Path("mine"), FILES_OF["gowalla"]))
    assert said.code == 2 and "got --min-user-items with a known data set that is split already" in said.err


def test_parts_and_downloads_by_hand_are_listed(workplace: Path, command: Command) -> None:
    listed = {entry["name"]: entry for entry in json.loads(command("datasets", "--json").out)["known"]}
    assert listed["yambda"]["parts"]["50m-likes"]["events"] == 881_456
    assert listed["anime"]["by_hand"] == "Kaggle asks for a login" and listed["netflix"]["by_hand"] is None
    assert listed["msd"]["min_item_users"] == 200 and listed["gowalla"]["protocol"] == "ready-made"
    out = command("datasets").out
    assert [line for line in out.splitlines() if line.strip() in (*SUBJECTS, "generated")] and "26 MB*" in out
    assert "  mind: small, large" in out and "amazon-2023:PART" in out


# Downloads


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """Return an address, and the folder whose files it serves."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Keep the output of the tests clean."""

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = write(tmp_path / "served", {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}", folder
        finally:
            running.shutdown()
            thread.join(timeout=10)


def served(known: KnownDataset, address: str) -> KnownDataset:
    files = tuple(RemoteFile(name=file.name, url=f"{address}/{file.name}") for file in known.files)
    return replace(known, url=f"{address}/{known.url.rsplit('/', 1)[1]}", files=files, md5=None)


def test_plain_files_are_downloaded_into_a_folder(server: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = server
    write(folder, FILES_OF["gowalla"])
    known = served(CATALOG["gowalla"], address)
    place = download(known, tmp_path / "downloads")
    assert place == tmp_path / "downloads" / "gowalla"
    assert sorted(path.name for path in place.iterdir()) == ["test.txt", "train.txt"]
    log, _, _ = locate(known, place)
    assert log.path == place / "train.txt"


def test_a_tar_is_downloaded_as_it_is(server: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = server
    known = served(CATALOG["lastfm-360k"], address)
    with tarfile.open(folder / "lastfm-dataset-360K.tar.gz", "w:gz") as archive:
        archive.add(write(tmp_path / "in", FILES_OF["lastfm-360k"]), "lastfm-dataset-360K")
    path = download(known, tmp_path / "downloads")
    assert path == tmp_path / "downloads" / "lastfm-360k.tar.gz"
    assert prepare_known("lastfm-360k", Protocol(heldout_users=4), source=path, force=True).dataset.train.nnz


def test_a_zip_among_the_files_is_looked_into(server: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = server
    with zipfile.ZipFile(folder / "train_triplets.txt.zip", "w") as archive:
        archive.writestr("train_triplets.txt", FILES_OF["msd"]["train_triplets.txt"])
    (folder / "unique_tracks.txt").write_text("TR1<SEP>SO0000000000000003<SEP>Band<SEP>Song\n")
    place = download(served(CATALOG["msd"], address), tmp_path / "downloads")
    titles = prepare_known("msd", Protocol(heldout_users=4), source=place, force=True).dataset.titles
    assert titles is not None and "Band - Song" in titles.tolist()


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("citeulike-a", "users.dat", "the downloaded file is a web page"),
        ("lastfm-360k", "lastfm-dataset-360K.tar.gz", "the downloaded file is not a tar"),
        ("msd", "train_triplets.txt.zip", "the downloaded file is not a zip"),
    ],
)
def test_a_web_page_instead_of_a_file(
    name: str, file: str, message: str, server: tuple[str, Path], tmp_path: Path
) -> None:
    address, folder = server
    (folder / file).write_text("<!DOCTYPE html><html>please log in</html>")
    with pytest.raises(
        DownloadError, match=rf"could not download {name} from {address}/{re.escape(file)}: {message}; try"
    ):
        download(served(CATALOG[name], address), tmp_path / "downloads")
    assert not (tmp_path / "downloads").exists()
