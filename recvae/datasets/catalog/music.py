"""Music: the Million Song taste profile, two data sets of Last.fm, and Yambda."""

from collections.abc import Iterator, Sequence

from recvae.datasets.catalog.converting import TITLES_TABLE, lines_of, titles_table, wrong_line
from recvae.datasets.catalog.entry import EVERY_WORD, FILES, TAR, KnownDataset, RemoteFile
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.sources import Source

_MSD = "http://millionsongdataset.com/sites/default/files"
_YAMBDA = "https://huggingface.co/datasets/yandex/yambda"


def song_titles(sources: Sequence[Source]) -> Iterator[bytes]:
    """Yield the titles of the Million Song Dataset as a table: lines of `track<SEP>song<SEP>artist<SEP>title`."""
    return titles_table(_song_titles(sources))


def _song_titles(sources: Sequence[Source]) -> Iterator[tuple[str, str]]:
    for source, number, text in lines_of(sources):
        values = text.split("<SEP>", 3)
        if len(values) < 4:
            raise wrong_line(source.name, number, text, "track<SEP>song<SEP>artist<SEP>title")
        _, song, artist, title = values  # one song may have several tracks
        yield song, " - ".join(one for one in (artist, title) if one.strip())


def _yambda(size: str, kind: str, n_events: int, archive_bytes: int) -> KnownDataset:
    is_listens = kind == "listens"
    form = LogFormat(user="uid", item="item_id", time="timestamp", without=("rating",))
    if is_listens:  # a listen counts by the share of the track that was played
        form = LogFormat(user="uid", item="item_id", time="timestamp", rating="played_ratio_pct")
    name = f"yambda:{size}-{kind}"
    url = f"{_YAMBDA}/resolve/main/flat/{size}/{kind}.parquet"
    return KnownDataset(
        name=name,
        description=f"Yambda, {size}: {'tracks played to 50 % or more' if is_listens else 'tracks liked'}",
        subject="music",
        url=_YAMBDA,
        download=FILES,
        files=(RemoteFile(name=f"{kind}.parquet", url=url),),
        archive_bytes=archive_bytes,
        licence=_YAMBDA_LICENCE,
        ratings={f"{size}/{kind}.parquet": form, f"{kind}.parquet": form},
        n_events=n_events,
        min_rating=50 if is_listens else None,
        min_user_items=0,
        split="time",
        protocol_of=_YAMBDA_PROTOCOL,
    )


_YAMBDA_LICENCE = "Apache 2.0; for scientific and research purposes"
# Their benchmark cuts at fixed moments (the last day is the test); `time` cuts at shares of the events.
_YAMBDA_PROTOCOL = "Yambda (order of times)"
_YAMBDA_PARTS = (  # bytes: of 5b as listed by the publisher; 0 where we do not know
    _yambda("50m", "likes", 881_456, 0),
    _yambda("50m", "listens", 46_467_212, 0),
    _yambda("500m", "likes", 9_033_960, 0),
    _yambda("500m", "listens", 466_512_103, 0),
    _yambda("5b", "likes", 89_334_605, 767_656_711),
    _yambda("5b", "listens", 4_649_567_411, 36_687_438_541),
)

MUSIC = (
    KnownDataset(
        name="msd",
        description="Million Song Dataset, taste profile: plays of songs",
        subject="music",
        url="http://millionsongdataset.com/tasteprofile/",
        download=FILES,
        files=(
            RemoteFile(name="train_triplets.txt.zip", url=f"{_MSD}/challenge/train_triplets.txt.zip"),
            RemoteFile(name="unique_tracks.txt", url=f"{_MSD}/AdditionalFiles/unique_tracks.txt"),
        ),
        archive_bytes=596_000_000,  # the zip 512 MB, the titles 84 MB
        licence="research only, no commercial use (terms of The Echo Nest); cite Bertin-Mahieux et al. (2011)",
        ratings={
            "train_triplets.txt": LogFormat(
                separator="\t", header=False, quote="", user="1", item="2", rating="3", without=("time",)
            )
        },
        titles={"unique_tracks.txt": TITLES_TABLE},
        convert={"unique_tracks.txt": song_titles},
        archives=("train_triplets.txt.zip",),
        n_events=48_373_586,
        n_users=1_019_318,
        n_items=384_546,
        min_rating=1,  # every row: to have played is the event
        min_user_items=20,
        min_item_users=200,
        heldout_users=50_000,
        protocol_of="Liang et al. (2018)",
        expected={"events": 33_633_450, "users": 571_355, "items": 41_140},
    ),
    KnownDataset(
        name="lastfm-360k",
        description="Last.fm: plays of artists, who are known by name",
        subject="music",
        url="http://mtg.upf.edu/static/datasets/last.fm/lastfm-dataset-360K.tar.gz",  # also zenodo.org/records/6090214
        download=TAR,
        md5="635e6ed3fc873aa4ba33aba0ebce02b1",
        archive_bytes=569_202_935,
        licence="non-commercial use only, with permission of Last.fm; cite Celma (2010)",
        # Some artists have no MusicBrainz id (column 2), so that the name (column 3) is the item, as in most papers.
        ratings={
            "usersha1-artmbid-artname-plays.tsv": LogFormat(
                separator="\t",
                header=False,
                quote="",
                user="1",
                item="3",
                rating="4",
                without=("time",),
                kept=EVERY_WORD,
                on_bad_row="skip",
            )
        },
        n_events=17_559_530,
        n_users=359_347,
        min_rating=1,  # every row: to have played is the event; some rows may have 0 plays
    ),
    KnownDataset(
        name="lastfm-2k",
        description="Last.fm, HetRec 2011: plays of the top 50 artists of each user",
        subject="music",
        url="https://files.grouplens.org/datasets/hetrec2011/hetrec2011-lastfm-2k.zip",
        md5="296d61afe4e8632b173fc2dd3be20ce2",
        archive_bytes=2_589_075,  # from memory
        licence="non-commercial use only; cite Cantador et al. (2011)",
        ratings={
            "user_artists.dat": LogFormat(
                separator="\t",
                header=True,
                quote="",
                user="userID",
                item="artistID",
                rating="weight",
                without=("time",),
            )
        },
        titles={
            "artists.dat": LogFormat(separator="\t", header=True, quote="", item="id", title="name", on_bad_row="skip")
        },
        n_events=92_834,
        n_users=1_892,
        n_items=17_632,
        min_rating=1,  # every row: to have played is the event
    ),
    KnownDataset(
        name="yambda",
        description="Yandex Music: likes or listens, in three sizes",
        subject="music",
        url=_YAMBDA,
        download=FILES,
        licence=_YAMBDA_LICENCE,
        ratings={},
        min_rating=None,
        min_user_items=0,
        split="time",
        protocol_of=_YAMBDA_PROTOCOL,
        parts={known.name.partition(":")[2]: known for known in _YAMBDA_PARTS},
    ),
)
"""Data sets of music."""
