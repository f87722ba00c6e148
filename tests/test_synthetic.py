"""The made-up log: exact in its counts, the same for the same seed, and worth learning from."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array

from recvae.datasets.events import Events
from recvae.datasets.synthetic import synthetic_log, write_ratings_csv
from recvae.errors import StorageError, UsageError

# Letters in shape comments: U users, H users held out, I items.


@pytest.fixture(scope="module")
def log() -> tuple[Events, np.ndarray]:
    return synthetic_log()


@pytest.fixture(scope="module")
def events(log: tuple[Events, np.ndarray]) -> Events:
    return log[0]


def columns_of(events: Events) -> list[np.ndarray]:
    assert events.ratings is not None
    assert events.timestamps is not None
    return [events.users, events.items, events.user_ids, events.item_ids, events.ratings, events.timestamps]


def assert_sound(events: Events, titles: np.ndarray, n_users: int, n_items: int, n_events: int) -> None:
    """Check everything that has to hold at any size."""
    users, items, user_ids, item_ids, ratings, timestamps = columns_of(events)
    assert [column.dtype for column in (users, items, ratings, timestamps)] == ["int32", "int32", "float32", "int64"]
    assert len(users) == len(items) == len(ratings) == len(timestamps) == n_events
    np.testing.assert_array_equal(user_ids, np.arange(1, n_users + 1))
    assert item_ids.dtype == np.int64
    assert len(item_ids) == n_items
    assert item_ids[0] == 1
    assert (np.diff(item_ids) > 0).all()
    assert 0 <= items.min() <= items.max() < n_items
    assert (np.diff(users) >= 0).all()
    assert (np.diff(timestamps)[np.diff(users) == 0] >= 0).all()
    pairs = np.sort(users.astype(np.int64) * n_items + items)
    assert (np.diff(pairs) > 0).all()
    counts = events.user_counts()
    assert 20 <= counts.min() <= counts.max() <= n_items // 2
    assert set(np.unique(2 * ratings)) <= set(range(1, 11))
    assert titles.shape == (n_items,)
    assert titles.dtype == object
    assert len(set(titles)) == n_items


def test_default_log_is_sound(log: tuple[Events, np.ndarray]) -> None:
    assert_sound(*log, n_users=3000, n_items=1200, n_events=150_000)


@pytest.mark.parametrize(
    ("n_users", "n_items", "n_events"),
    [(1, 80, 20), (7, 80, 140), (7, 90, 157), (300, 100, 7500), (40, 20_000, 200_000), (12_000, 500, 850_000)],
    ids=["smallest", "everyone at the floor", "fullest", "dense", "few busy users", "several blocks"],
)
def test_other_sizes_are_sound(n_users: int, n_items: int, n_events: int) -> None:
    log = synthetic_log(n_users=n_users, n_items=n_items, n_events=n_events, seed=3)
    assert_sound(*log, n_users=n_users, n_items=n_items, n_events=n_events)


def test_same_seed_gives_the_same_log_and_leaves_the_global_generator_alone() -> None:
    before = np.random.get_state(legacy=False)  # noqa: NPY002
    one, one_titles = synthetic_log(n_users=200, n_items=300, n_events=8000, seed=7)
    assert str(np.random.get_state(legacy=False)) == str(before)  # noqa: NPY002
    two, two_titles = synthetic_log(n_users=200, n_items=300, n_events=8000, seed=7)
    for left, right in zip([*columns_of(one), one_titles], [*columns_of(two), two_titles], strict=True):
        np.testing.assert_array_equal(left, right)


def test_log_is_the_same_on_every_machine() -> None:
    events, titles = synthetic_log(n_users=100, n_items=200, n_events=3000, seed=11)
    users, items, _, item_ids, ratings, timestamps = columns_of(events)
    sums = [int(users @ np.arange(3000)), int(items @ np.arange(3000)), int(item_ids.sum()), int(2 * ratings.sum())]
    assert [*sums, int(timestamps.sum())] == [299765273, 461819605, 92718, 20859, 3516847080703]
    assert titles[:2].tolist() == ["Beyond the Frozen Algorithm (1949)", "Return of the Exiled Masquerade (1983)"]


def test_another_seed_changes_everything() -> None:
    one, one_titles = synthetic_log(n_users=200, n_items=300, n_events=8000, seed=7)
    two, two_titles = synthetic_log(n_users=200, n_items=300, n_events=8000, seed=8)
    assert (one.items != two.items).mean() > 0.9
    assert (columns_of(one)[5] != columns_of(two)[5]).mean() > 0.9
    assert (one_titles != two_titles).mean() > 0.9
    assert not np.array_equal(one.user_counts(), two.user_counts())


def test_popularity_and_activity_have_long_tails(events: Events) -> None:
    items = np.sort(events.item_counts())[::-1]
    assert items[:120].sum() > 0.4 * len(events)
    assert items[600:].sum() < 0.25 * len(events)
    users = events.user_counts()
    assert users.mean() > 1.3 * np.median(users)
    assert users.max() > 6 * users.mean()


def test_half_of_the_ratings_are_four_or_more_and_all_stars_occur(events: Events) -> None:
    ratings = columns_of(events)[4]
    assert 0.4 < (ratings >= 4).mean() < 0.6
    assert len(np.unique(ratings)) == 10


def test_events_fall_inside_twenty_years_after_the_films(log: tuple[Events, np.ndarray]) -> None:
    events, titles = log
    rated = columns_of(events)[5].astype("datetime64[s]")
    assert np.datetime64("1996-01-01") <= rated.min() <= rated.max() <= np.datetime64("2015-04-01")
    years = [int(found[1]) for title in titles if (found := re.fullmatch(r"[A-Z][A-Za-z ]+ \((\d{4})\)", title))]
    assert len(years) == len(titles)
    assert 1940 <= min(years) <= max(years) < 1996


def test_time_order_within_a_user_says_nothing_about_the_item(events: Events) -> None:
    inside = np.diff(events.users) == 0
    rising = (np.diff(events.items)[inside] > 0).mean()
    assert 0.48 < rising < 0.52


def ndcg_at_100(scores: np.ndarray, seen: np.ndarray, hidden: np.ndarray) -> float:
    """Return the mean NDCG@100 of the hidden items, all arguments of shape (H, I)."""
    top = np.argsort(np.where(seen > 0, np.inf, -scores), axis=1)[:, :100]  # (H, 100)
    discount = 1 / np.log2(np.arange(2, 102))
    gain = (np.take_along_axis(hidden, top, axis=1) * discount).sum(axis=1)  # (H,)
    ideal = np.concatenate([[0.0], np.cumsum(discount)])[np.minimum(hidden.sum(axis=1), 100).astype(int)]  # (H,)
    return float((gain[ideal > 0] / ideal[ideal > 0]).mean())


def test_taste_beats_popularity_for_users_never_seen(events: Events) -> None:
    liked = events.keep(columns_of(events)[4] >= 4)
    matrix = csr_array((np.ones(len(liked)), (liked.users, liked.items)), shape=(3000, 1200))  # (U, I)
    known, new = matrix[:2500], matrix[2500:].toarray()
    hide = np.random.default_rng(0).random(new.shape) < 0.2
    seen, hidden = new * ~hide, new * hide  # (H, I)
    popular = np.asarray(known.sum(axis=0))  # (I,)
    together = (known.T @ known).toarray() / np.sqrt(np.outer(popular + 1, popular + 1))  # (I, I)
    by_popularity = ndcg_at_100(np.tile(popular, (len(new), 1)), seen, hidden)
    by_taste = ndcg_at_100(seen @ together, seen, hidden)
    assert by_taste > 1.5 * by_popularity
    assert 0.3 < by_taste < 0.6  # there is something to learn, and noise is left


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_users": 0}, "got n_users 0, expected 1 to .*; choose another number of users"),
        ({"n_items": 0}, "got n_items 0, expected 80 to 250,000; choose another number of films"),
        ({"n_items": 79}, "got n_items 79, expected 80 to 250,000"),
        ({"n_items": 250_001}, "got n_items 250,001, expected 80 to 250,000"),
        ({"n_events": 0}, "got n_events 0, expected 60,000 to 900,000; use 20 to n_items / 4 events per user"),
        ({"n_events": 59_999}, "got n_events 59,999, expected 60,000 to 900,000"),
        ({"n_events": 900_001}, "got n_events 900,001, expected 60,000 to 900,000"),
        ({"seed": -1}, "got seed -1, expected 0 to .*; choose another seed"),
    ],
)
def test_a_number_out_of_range_is_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        synthetic_log(**arguments)


def test_ratings_csv_reads_back_as_the_same_log(events: Events, tmp_path: Path) -> None:
    path = tmp_path / "new" / "ratings.csv"
    write_ratings_csv(events, path)
    with path.open(encoding="utf-8") as file:
        assert file.readline() == "userId,movieId,rating,timestamp\n"
        assert re.fullmatch(r"1,\d+,\d(\.5)?,\d{9,10}\n", file.readline())
    users, items, ratings, timestamps = (column.to_numpy() for _, column in pd.read_csv(path).items())
    back = Events.from_columns(users, items, ratings, timestamps)
    for written, read in zip(columns_of(events), columns_of(back), strict=True):
        np.testing.assert_array_equal(written, read)


def test_ratings_csv_of_more_than_one_piece_has_one_header(tmp_path: Path) -> None:
    events, _ = synthetic_log(n_users=6000, n_items=500, n_events=450_000)
    write_ratings_csv(events, tmp_path / "ratings.csv")
    lines = (tmp_path / "ratings.csv").read_text().splitlines()
    assert len(lines) == 450_001
    assert sum(line.startswith("userId") for line in lines) == 1


@pytest.mark.parametrize("ratings", [None, [3.5, 4.0]])
def test_ratings_csv_needs_ratings_and_timestamps(ratings: list[float] | None, tmp_path: Path) -> None:
    events = Events.from_columns([1, 2], [3, 4], ratings, None if ratings else [5, 6])
    with pytest.raises(UsageError, match="got a log without ratings or timestamps, expected both; add the columns"):
        write_ratings_csv(events, tmp_path / "ratings.csv")
    assert not (tmp_path / "ratings.csv").exists()


def test_ratings_csv_that_cannot_be_written_is_reported(events: Events, tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").mkdir()
    with pytest.raises(StorageError, match=r"could not write .*ratings\.csv"):
        write_ratings_csv(events, tmp_path / "ratings.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["ratings.csv"]


@pytest.mark.large
def test_log_of_the_shape_of_ml_20m_is_sound() -> None:
    shape = {"n_users": 138_000, "n_items": 27_000, "n_events": 20_000_000}
    events, titles = synthetic_log(**shape)
    assert_sound(events, titles, **shape)
    assert np.sort(events.item_counts())[-2700:].sum() > 0.6 * len(events)
    assert 0.4 < (columns_of(events)[4] >= 4).mean() < 0.6
