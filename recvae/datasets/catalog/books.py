"""Books: Goodbooks-10k and Book-Crossing."""

from dataclasses import replace

from recvae.datasets.catalog.entry import BY_HAND, EVERY_WORD, KnownDataset
from recvae.datasets.reading.options import LogFormat

_BX = LogFormat(  # the ISBNs hold what users typed
    separator=";",
    header=True,
    quote='"',
    escape="\\",
    encoding="latin-1",
    user="User-ID",
    item="ISBN",
    rating="Book-Rating",
    without=("time",),
    kept=EVERY_WORD,
    on_bad_row="skip",
)
_BX_BOOKS = LogFormat(
    separator=";",
    header=True,
    quote='"',
    escape="\\",
    encoding="latin-1",
    item="ISBN",
    title="Book-Title",
    kept=EVERY_WORD,
    on_bad_row="skip",
)
_AT_KAGGLE = {"separator": ",", "escape": '"', "encoding": "utf-8"}

BOOKS = (
    KnownDataset(
        name="goodbooks-10k",
        description="Goodreads: whole stars for 10,000 books, no times",
        subject="books",
        url="https://github.com/zygmuntz/goodbooks-10k/releases/download/v1.0/goodbooks-10k.zip",
        archive_bytes=12_000_000,  # from memory
        licence="CC BY-SA 4.0",
        ratings={
            "ratings.csv": LogFormat(
                separator=",", header=True, user="user_id", item="book_id", rating="rating", without=("time",)
            )
        },
        titles={"books.csv": LogFormat(separator=",", header=True, quote='"', item="book_id", title="title")},
        n_events=5_976_479,
        n_users=53_424,
        n_items=10_000,
        heldout_users=2_500,
        protocol_of="beeFormer (2024)",
    ),
    KnownDataset(
        name="book-crossing",
        description="Book-Crossing: marks from 1 to 10; 0 is no mark",
        subject="books",
        url="http://www2.informatik.uni-freiburg.de/~cziegler/BX/BX-CSV-Dump.zip",
        download=BY_HAND,
        by_hand="its address no longer answers; there are copies of BX-CSV-Dump.zip at Kaggle and GitHub",
        archive_bytes=26_000_000,
        licence="free for research; cite Ziegler et al. (2005)",
        ratings={
            "BX-Book-Ratings.csv": _BX,
            "Ratings.csv": replace(_BX, **_AT_KAGGLE),
        },
        titles={"BX-Books.csv": _BX_BOOKS, "Books.csv": replace(_BX_BOOKS, **_AT_KAGGLE)},
        has_entities=True,
        n_events=1_149_780,
        n_users=105_283,
        n_items=340_556,
        min_rating=0,  # every row: to have a book is the event
    ),
)
"""Data sets of books."""
