"""The pairs of training and test file that come with LightGCN: gowalla, yelp2018 and amazon-book."""

from recvae.datasets.catalog.entry import FILES, KnownDataset, RemoteFile
from recvae.datasets.reading.options import LogFormat

# The files of NGCF, as they lie in the code of LightGCN at one commit.
_COMMIT = "947ca2b3b1d2d3545b114145710cb06c4e57b3d2"
_PAGE = f"https://github.com/gusye1234/LightGCN-PyTorch/tree/{_COMMIT}/data"
_RAW = f"https://raw.githubusercontent.com/gusye1234/LightGCN-PyTorch/{_COMMIT}/data"
_LISTS = LogFormat(lists=True, without=("rating", "time"))


def _pair(
    name: str,
    description: str,
    md5: tuple[str, str],
    counts: tuple[int, int, int],
    *,
    subject: str,
    archive_bytes: int,
    licence: str,
) -> KnownDataset:
    """Return an entry; `md5` is that of train.txt and test.txt, `counts` are events, users and items."""
    return KnownDataset(
        name=name,
        description=f"{description}; the split of LightGCN",
        subject=subject,
        url=f"{_PAGE}/{name}",
        download=FILES,
        files=tuple(
            RemoteFile(name=f"{part}.txt", url=f"{_RAW}/{name}/{part}.txt", md5=one)
            for part, one in zip(("train", "test"), md5, strict=True)
        ),
        archive_bytes=archive_bytes,
        licence=licence,
        ratings={f"{name}/train.txt": _LISTS, "train.txt": _LISTS},
        test={f"{name}/test.txt": _LISTS, "test.txt": _LISTS},
        is_file=False,
        n_events=counts[0],
        n_users=counts[1],
        n_items=counts[2],
        min_rating=None,
        min_user_items=0,
        protocol_of="He et al. (2020)",
    )


READY_MADE = (
    _pair(
        "gowalla",
        "Gowalla: check-ins at places",
        ("5eec1eb2edb8dd648377d348b8e136cf", "c04e2c4bcd2389f53ed8281816166149"),
        (1_027_370, 29_858, 40_981),
        subject="places",
        archive_bytes=6_000_000,
        licence="no licence stated; cite Cho, Myers & Leskovec (2011)",
    ),
    _pair(
        "yelp2018",
        "Yelp 2018: reviews of businesses",
        ("1b8b5d22a227e01d6de002c53d32b4c4", "0d57d7399862c32152b045ec5d2698e7"),
        (1_561_406, 31_668, 38_048),
        subject="places",
        archive_bytes=8_900_000,
        licence="terms of the Yelp Dataset: academic, no commercial use, no redistribution",  # from memory
    ),
    _pair(
        "amazon-book",
        "Amazon 2014: reviews of books",
        ("c916ecac04ca72300a016228258b41ed", "30f8ccfea18d25007ba9fb9aba4e174d"),
        (2_984_108, 52_643, 91_599),
        subject="books",
        archive_bytes=17_900_000,
        licence="research use; cite He & McAuley (2016)",  # from memory
    ),
)
"""Ready-made pairs."""
