"""A generated log of film ratings with the structure that recommenders learn, of any size up to that of ML-20M.

Every user has a taste: up to three strong genres, a little of the others. Every film belongs to a genre and may lean
to a second one. Neighbours in the list of genres are related: tastes and films often join two of them. A user draws a
genre by taste, then a film of it by popularity, never the same film twice. A few draws ignore taste and popularity;
their share grows for users who have already seen most films of their genres.

Events are computed without matrix products and vectorised powers or logarithms: their last bit differs by machine.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.random import Generator

from recvae.datasets.events import Events
from recvae.errors import UsageError
from recvae.storage.files import write_file

N_USERS, N_ITEMS, N_EVENTS = 3000, 1200, 150_000
"""Default size of the log."""

# Letters in shape comments: E events of a block, U users of a block, I items, G genres, T rows of the draw table.

# Two related genres in three lines: adjectives of both, then nouns of each; every noun is in one genre only.
_WORDS = """
Silent Orbital Distant Lunar Stellar Infinite Electric Drifting Frozen Synthetic Obedient Dreaming
Nebula Comet Planet Galaxy Starship Asteroid Satellite Eclipse Cosmonaut Orbit Supernova Moonbase
Android Machine Robot Circuit Algorithm Automaton Replica Hologram Cyborg Prototype Mainframe Signal
Enchanted Little Hidden Emerald Curious Whispering Golden Sleeping Winged Brave Invisible Wandering
Dragon Wizard Kingdom Sorceress Unicorn Amulet Griffin Prophecy Spellbook Elf Throne Talisman
Penguin Hedgehog Balloon Squirrel Teddy Otter Dinosaur Kitten Treehouse Duckling Snowman Puppy
Awkward Summer Ridiculous Unlikely Reluctant Cheerful Hopeless Secret Accidental Grumpy Parisian Foolish
Neighbour Landlord Roommate Butler Plumber Waiter Cousin Mayor Barber Magician Dentist Uncle
Kiss Bride Letter Heart Wedding Honeymoon Embrace Bouquet Valentine Promise Sweetheart Confession
Blue Quiet Velvet Lonesome Fading Fragile Midnight Broken Winter Forgotten Restless Patient
Melody Trumpet Ballad Orchestra Cabaret Jukebox Serenade Waltz Saxophone Rhapsody Tango Encore
Family Father Daughter Orchard Silence Mother Farmhouse Memory Brother Photograph Window Sister
Royal Fallen Exiled Proud Scarlet Imperial Northern Banished Iron Scheming Noble Loyal
Empress Duchess Palace Courtier Dynasty Portrait Cardinal Manuscript Ambassador Masquerade Queen Regent
Regiment Trench Soldier Battalion Armistice Bugle Convoy Captain Sentry Infantry Bunker Ceasefire
Dusty Crimson Outlaw Silver Stormy Thirsty Wild Uncharted Wanted Daring Sunburnt Cursed
Sheriff Saloon Canyon Gunslinger Stagecoach Ranch Rodeo Mustang Deputy Cowboy Homestead Bandit
Harbour Island Pirate Lagoon Galleon Lighthouse Treasure Compass Reef Voyage Schooner Castaway
Explosive Covert Furious Relentless Coded Foreign Lethal Elusive Masked Double Red Reckless
Pursuit Commando Vendetta Showdown Ambush Detonator Hostage Firestorm Warhead Mercenary Ultimatum Getaway
Agent Cipher Dossier Informer Passport Defector Courier Microfilm Embassy Handler Spy Alias
Crooked Smoky Missing Locked Puzzling Guilty Stolen Rainy Anonymous Poisoned Misty Unsolved
Heist Gangster Racket Alley Bribe Smuggler Jury Felon Syndicate Precinct Forger Verdict
Detective Clue Alibi Witness Suspect Manor Inspector Riddle Footprint Corpse Sleuth Testimony
Haunted Pale Trembling Twisted Screaming Hollow Shadowy Sleepless Unholy Buried Fractured Nameless
Crypt Ghoul Vampire Cellar Werewolf Coffin Attic Phantom Graveyard Demon Scarecrow Seance
Stranger Mirror Nightmare Stalker Intruder Delusion Psychiatrist Amnesia Staircase Obsession Hypnosis Stairwell
Untamed Northern Endless Unbeaten Final Giant Nocturnal Mighty Roaring Fearless Great Rising
Glacier Whale Savanna Rainforest Falcon Desert Ocean Volcano Wolf Elephant Monsoon Tundra
Goalkeeper Boxer Marathon Quarterback Stadium Sprinter Cyclist Trophy Coach Wrestler Referee Pitcher
"""
_LINES = [line.split() for line in _WORDS.split("\n")[1:-1]]
_N_GENRES = len(_LINES) // 3 * 2
# (G,) How often each genre is made and watched. Steps of 7, which shares no factor with 20, part the popular ones.
_SHARES = (np.arange(_N_GENRES) * 7 % _N_GENRES + 4.0) ** -0.8
_SHARES /= _SHARES.sum()
_PATTERNS = ("The {} {}", "{} {}", "My {} {}", "Beyond the {} {}", "Return of the {} {}", "Farewell to the {} {}")
_YEARS = np.arange(1940, 1996)  # all before the first rating
_FIRST_SECOND, _LAST_SECOND = 820_454_400, 1_427_846_400  # 1996-01-01 and 2015-04-01, UTC

_LEAST_EVENTS = 20  # of a user, as in MovieLens
_MOST_ITEMS = 250_000  # as many titles as the words allow, with a margin in the largest genre
_BLOCK_EVENTS = 400_000  # few enough for the cache; another number gives another log
_EXPLORING = 0.04  # share of first draws that ignore taste and popularity


@dataclass(frozen=True, kw_only=True)
class _Catalogue:
    """The films, and a table to draw them from: one stretch per genre, and one over all films."""

    item_ids: np.ndarray  # (I,) int64
    titles: np.ndarray  # (I,) object
    genre: np.ndarray  # (I,) int64
    second_genre: np.ndarray  # (I,) int64
    lean: np.ndarray  # (I,) float64, share of the second genre
    quality: np.ndarray  # (I,) float64, in stars
    bounds: np.ndarray  # (T,) float64, from g to g + 1 inside stretch g, steps as wide as films are likely
    items: np.ndarray  # (T,) int64


def synthetic_log(
    *, n_users: int = N_USERS, n_items: int = N_ITEMS, n_events: int = N_EVENTS, seed: int = 0
) -> tuple[Events, np.ndarray]:
    """Generate a log of film ratings with overlapping tastes and a long tail; the same arguments give the same log.

    Parameters
    ----------
    n_users : int
        Number of users, >= 1; their ids are 1 to `n_users`.
    n_items : int
        Number of films, 80 to 250,000; the rarest may have no event.
    n_events : int
        Exact number of ratings: per user on average at least 20 and at most `n_items` / 4.
    seed : int
        Seed of all random numbers, >= 0.

    Returns
    -------
    events : Events
        Rows sorted by user, then by time; each (user, item) pair once; ratings from 0.5 to 5 in half stars, about half
        of them 4 or more; timestamps from 1996 to 2015.
    titles : ndarray of shape (n_items,), object (str)
        The unique title of each film, with its year, in the order of `events.item_ids`.

    Raises
    ------
    UsageError
        If a number is out of its range.

    Examples
    --------
    >>> events, titles = synthetic_log(n_users=50, n_items=100, n_events=1200)
    >>> len(events), len(titles), int(events.user_counts().min()) >= 20
    (1200, 100, True)
    """
    _check(n_users, n_items, n_events, seed)
    rng = np.random.default_rng(seed)
    films = _catalogue(rng, n_items)
    counts = _event_counts(rng, n_users, n_events, n_items // 2)  # (n_users,)
    ends = np.append(0, np.cumsum(counts))  # (n_users + 1,)
    items = np.empty(n_events, dtype=np.int32)
    ratings = np.empty(n_events, dtype=np.float32)
    timestamps = np.empty(n_events, dtype=np.int64)
    cuts = np.searchsorted(ends, np.arange(0, n_events, _BLOCK_EVENTS))
    for first, after in pairwise(np.unique(np.append(cuts, n_users))):
        rows = slice(ends[first], ends[after])
        items[rows], ratings[rows], timestamps[rows] = _block(rng, films, counts[first:after])
    return Events(
        users=np.repeat(np.arange(n_users, dtype=np.int32), counts),
        items=items,
        user_ids=np.arange(1, n_users + 1, dtype=np.int64),
        item_ids=films.item_ids,
        ratings=ratings,
        timestamps=timestamps,
    ), films.titles


def _check(n_users: int, n_items: int, n_events: int, seed: int) -> None:
    least, most = _LEAST_EVENTS * n_users, n_users * n_items // 4
    for name, value, low, high, advice in (
        ("seed", seed, 0, 2**63 - 1, "choose another seed"),
        ("n_users", n_users, 1, 2**31 - 1, "choose another number of users"),
        ("n_items", n_items, 4 * _LEAST_EVENTS, _MOST_ITEMS, "choose another number of films"),
        ("n_events", n_events, least, most, f"use {_LEAST_EVENTS} to n_items / 4 events per user"),
    ):
        if not low <= value <= high:
            raise UsageError(f"got {name} {value:,}, expected {low:,} to {high:,}; {advice}")


def _any_genre(rng: Generator, size: int) -> np.ndarray:
    return np.searchsorted(np.cumsum(_SHARES)[:-1], rng.random(size), side="right")


def _related(rng: Generator, genre: np.ndarray) -> np.ndarray:
    """Return a companion for each genre, mostly a neighbour in the list."""
    neighbour = (genre + rng.choice([-1, 1], len(genre))) % _N_GENRES
    return np.where(rng.random(len(genre)) < 0.6, neighbour, _any_genre(rng, len(genre)))


def _catalogue(rng: Generator, n_items: int) -> _Catalogue:
    genre = _any_genre(rng, n_items)  # (I,)
    genre[rng.permutation(n_items)[:_N_GENRES]] = np.arange(_N_GENRES)  # every genre has a film
    second_genre = _related(rng, genre)
    lean = np.where(rng.random(n_items) < 0.5, rng.uniform(0.1, 0.5, n_items), 0.0)
    rank = rng.permutation(n_items)  # (I,) 0 is the most popular
    weight = (rank / n_items + 0.008) ** -1.5  # (I,) Zipf's law, flattened at the top as in MovieLens
    group = np.concatenate([genre, second_genre, np.full(n_items, _N_GENRES)])  # (T,) = (3 I,)
    weights = np.concatenate([weight * (1 - lean), weight * lean, np.sqrt(weight)])
    order = np.argsort(group, kind="stable")
    order = order[weights[order] > 0]
    return _Catalogue(
        item_ids=np.cumsum(np.concatenate([[1], rng.integers(1, 10, n_items - 1)])),
        titles=_titles(rng, genre),
        genre=genre,
        second_genre=second_genre,
        lean=lean,
        quality=0.35 * rng.standard_normal(n_items) - 0.4 * rank / n_items,
        bounds=_stretches(group[order], weights[order]),
        items=order % n_items,
    )


def _stretches(group: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return cumulated weights that rise from g to exactly g + 1 inside each run g of `group`, shape (T,)."""
    parts = np.split(weights, np.flatnonzero(np.diff(group)) + 1)
    return np.concatenate([number + (rising := np.cumsum(part)) / rising[-1] for number, part in enumerate(parts)])


def _titles(rng: Generator, genre: np.ndarray) -> np.ndarray:
    titles = np.empty(len(genre), dtype=object)
    for number in range(_N_GENRES):
        films = np.flatnonzero(genre == number)
        hows, whats = _LINES[number // 2 * 3], _LINES[number // 2 * 3 + number % 2 + 1]
        sizes = (len(_PATTERNS), len(hows), len(whats), len(_YEARS))
        chosen = rng.choice(np.prod(sizes), len(films), replace=False)  # each title once
        for film, pattern, how, what, year in zip(films, *np.unravel_index(chosen, sizes), strict=True):
            titles[film] = f"{_PATTERNS[pattern].format(hows[how], whats[what])} ({_YEARS[year]})"
    return titles


def _event_counts(rng: Generator, n_users: int, n_events: int, most: int) -> np.ndarray:
    """Return lognormal numbers of events, shape (n_users,), from the floor to `most`, of sum `n_events`."""
    activity = rng.lognormal(sigma=1.2, size=n_users)
    counts = np.full(n_users, _LEAST_EVENTS)
    while (left := n_events - int(counts.sum())) > 0:
        users = np.flatnonzero(counts < most)
        share = np.floor(left * (activity[users] / activity[users].sum())).astype(np.int64)
        share[: left - int(share.sum())] += 1  # what rounding down left over
        counts[users] = np.minimum(counts[users] + share, most)
    return counts


def _tastes(rng: Generator, n_users: int) -> np.ndarray:
    """Return how often each user draws from each genre, shape (U, G), rows of sum 1."""
    tastes = np.tile(0.2 * _SHARES, (n_users, 1))  # (U, G)
    first = _any_genre(rng, n_users)  # (U,)
    for genre, low, high in ((first, 0.4, 0.6), (_related(rng, first), 0.1, 0.4), (_related(rng, first), 0.0, 0.3)):
        tastes[np.arange(n_users), genre] += rng.uniform(low, high, n_users)
    return tastes / tastes.sum(axis=1, keepdims=True)


def _block(rng: Generator, films: _Catalogue, counts: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the items, ratings and timestamps of some users, each of shape (E,), by user and then by time."""
    tastes = _tastes(rng, len(counts))  # (U, G)
    users, items = _draw(rng, films, tastes, counts)
    moment = users + rng.random(len(users))  # (E,)
    order = np.argsort(moment, kind="stable")
    items, moment = items[order], moment[order] - users  # users are ascending, so that they stay as they are
    start = rng.uniform(_FIRST_SECOND, _LAST_SECOND, len(counts))  # (U,)
    period = (_LAST_SECOND - start) * rng.random(len(counts)) ** 2 * rng.random(len(counts)) ** 2
    timestamps = (start[users] + period[users] * moment).astype(np.int64)
    return items, _ratings(rng, films, tastes, users, items), timestamps


def _draw(rng: Generator, films: _Catalogue, tastes: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return users and items, each of shape (E,), `counts` different items for each user, ascending."""
    n_items = len(films.item_ids)
    pairs = np.empty(0, dtype=np.int64)  # user * n_items + item, ascending
    missing, exploring = counts, _EXPLORING
    while missing.any():
        chances = np.column_stack([tastes * (1 - exploring), np.full(len(counts), exploring)])  # (U, G + 1)
        draws = rng.multinomial(missing, chances)  # (U, G + 1)
        groups = np.tile(np.arange(draws.shape[1]), len(counts))
        # 24-bit fractions: g + fraction stays below g + 1, where 53 bits could round up to it
        place = np.repeat(groups, draws.ravel()) + rng.random(int(draws.sum()), dtype=np.float32).astype(np.float64)
        items = films.items[np.searchsorted(films.bounds, place, side="right")]
        drawn = np.sort(np.repeat(np.arange(len(counts)) * n_items, missing) + items)
        pairs = np.sort(np.concatenate([pairs, drawn]), kind="stable")  # merges two ascending runs
        pairs = pairs[np.diff(pairs, prepend=-1) > 0]
        missing = counts - np.bincount(pairs // n_items, minlength=len(counts))
        exploring = min(2 * exploring, 1.0)
    return np.divmod(pairs, n_items)


def _ratings(rng: Generator, films: _Catalogue, tastes: np.ndarray, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Return stars, shape (E,), float32: films of a strong genre, good films and mild users rate higher."""
    lean = films.lean[items]  # (E,)
    taste = tastes[users, films.genre[items]] * (1 - lean) + tastes[users, films.second_genre[items]] * lean
    mildness = 0.35 * rng.standard_normal(len(tastes))  # (U,)
    stars = 3.25 + np.minimum(5 * taste, 1.0) + films.quality[items] + mildness[users]
    stars += 0.7 * rng.standard_normal(len(users))
    return np.clip(np.rint(2 * stars) / 2, 0.5, 5.0).astype(np.float32)


def write_ratings_csv(events: Events, path: Path) -> None:
    """Write a log as the `ratings.csv` of ML-20M (userId,movieId,rating,timestamp), whole ratings without decimals.

    Parameters
    ----------
    events : Events
        The log, with ratings and timestamps.
    path : Path
        The file to write; an existing file is replaced when the new one is complete.

    Raises
    ------
    UsageError
        If the log has no ratings or no timestamps.
    StorageError
        If the file cannot be written.
    """
    if events.ratings is None or events.timestamps is None:
        raise UsageError("got a log without ratings or timestamps, expected both; add the columns to the log first")
    names = ["userId", "movieId", "rating", "timestamp"]
    with write_file(path) as aside, aside.open("wb") as file:
        file.write((",".join(names) + "\n").encode())  # pyarrow would put the names in quotes
        for start in range(0, len(events), _BLOCK_EVENTS):
            rows = slice(start, start + _BLOCK_EVENTS)
            users, items = events.user_ids[events.users[rows]], events.item_ids[events.items[rows]]
            table = pa.table([users, items, events.ratings[rows], events.timestamps[rows]], names=names)
            pyarrow.csv.write_csv(table, file, pyarrow.csv.WriteOptions(include_header=False))
