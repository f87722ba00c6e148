"""Shops: Amazon Reviews 2023, RetailRocket and Steam-200k."""

from recvae.datasets.catalog.entry import BY_HAND, EVERY_WORD, FILES, KnownDataset, RemoteFile
from recvae.datasets.reading.options import LogFormat

_AMAZON = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023"
_AMAZON_PAGE = "https://amazon-reviews-2023.github.io/"
_AMAZON_LICENCE = "no licence stated; cite Hou et al. (2024)"
_AMAZON_PROTOCOL = "Hou et al. (2024)"
_REVIEWS = LogFormat(user="user_id", item="parent_asin", rating="rating", time="timestamp")
_RATINGS = LogFormat(separator=",", header=True, user="user_id", item="parent_asin", rating="rating", time="timestamp")
# (events, users, items) of the files of ratings with 5 or more for each user and item, where we know all digits.
_COUNTS = {"Video_Games": (814_586, 94_762, 25_612), "Toys_and_Games": (3_861_886, 432_264, 162_035)}
_CATEGORIES = (  # most as their page has them, a few from memory
    *("Video_Games", "All_Beauty", "Amazon_Fashion", "Appliances", "Arts_Crafts_and_Sewing", "Automotive"),
    *("Baby_Products", "Beauty_and_Personal_Care", "Books", "CDs_and_Vinyl", "Cell_Phones_and_Accessories"),
    *("Clothing_Shoes_and_Jewelry", "Digital_Music", "Electronics", "Gift_Cards", "Grocery_and_Gourmet_Food"),
    *("Handmade_Products", "Health_and_Household", "Health_and_Personal_Care", "Home_and_Kitchen"),
    *("Industrial_and_Scientific", "Kindle_Store", "Magazine_Subscriptions", "Movies_and_TV"),
    *("Musical_Instruments", "Office_Products", "Patio_Lawn_and_Garden", "Pet_Supplies", "Software"),
    *("Sports_and_Outdoors", "Subscription_Boxes", "Tools_and_Home_Improvement", "Toys_and_Games", "Unknown"),
)


def _category(name: str) -> KnownDataset:
    n_events, n_users, n_items = _COUNTS.get(name, (None, None, None))
    titles = LogFormat(item="parent_asin", title="title")
    url = f"{_AMAZON}/benchmark/5core/rating_only/{name}.csv.gz"
    return KnownDataset(
        name=f"amazon-2023:{name}",
        description=f"Amazon Reviews 2023, {name.replace('_', ' ')}: users and items with 5 or more reviews",
        subject="shops",
        url=_AMAZON_PAGE,
        download=FILES,
        files=(RemoteFile(name=f"{name}.csv.gz", url=url),),
        licence=_AMAZON_LICENCE,
        ratings={
            **dict.fromkeys((f"{name}.csv.gz", f"{name}.csv"), _RATINGS),
            **dict.fromkeys((f"{name}.jsonl.gz", f"{name}.jsonl"), _REVIEWS),
        },
        titles=dict.fromkeys((f"meta_{name}.jsonl.gz", f"meta_{name}.jsonl"), titles),
        n_events=n_events,
        n_users=n_users,
        n_items=n_items,
        min_rating=1,  # every row: to have bought is the event
        min_item_users=5,
        split="leave-last-out",
        protocol_of=_AMAZON_PROTOCOL,
    )


SHOPS = (
    KnownDataset(
        name="amazon-2023",
        description=f"Amazon Reviews 2023: whole stars, {len(_CATEGORIES)} categories",
        subject="shops",
        url=_AMAZON_PAGE,
        download=FILES,
        licence=_AMAZON_LICENCE,
        ratings={},
        min_rating=1,
        min_item_users=5,
        split="leave-last-out",
        protocol_of=_AMAZON_PROTOCOL,
        parts={name: _category(name) for name in _CATEGORIES},
    ),
    KnownDataset(
        name="retailrocket",
        description="RetailRocket: products viewed, 2015; no baskets, no orders",
        subject="shops",
        url="https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset",
        download=BY_HAND,
        by_hand="Kaggle asks for a login",
        archive_bytes=305_000_000,  # from memory
        licence="CC BY-NC-SA 4.0, as far as we know; see its page",  # from memory
        ratings={
            "events.csv": LogFormat(
                separator=",",
                header=True,
                user="visitorid",
                item="itemid",
                time="timestamp",
                without=("rating",),
                only=(("event", ("view",)),),
            )
        },
        n_events=2_664_312,  # views
        n_users=1_404_179,
        n_items=234_838,
        min_rating=None,
        min_user_items=3,
        min_item_users=50,
        protocol_of="RecPack (filters)",  # it also counts repeated views
    ),
    KnownDataset(
        name="steam-200k",
        description="Steam: games bought; no hours, no times",
        subject="shops",
        url="https://www.kaggle.com/datasets/tamber/steam-video-games",
        download=BY_HAND,
        by_hand="Kaggle asks for a login",
        archive_bytes=1_500_000,
        licence="ODbL 1.0, as far as we know; see its page",  # from memory
        ratings={
            "steam-200k.csv": LogFormat(
                separator=",",
                header=False,
                user="1",
                item="2",
                without=("rating", "time"),
                only=(("3", ("purchase",)),),
                kept=EVERY_WORD,
            )
        },
        n_events=129_511,  # 200,000 rows less 70,489 of hours
        min_rating=None,
    ),
)
"""Data sets of shops."""
