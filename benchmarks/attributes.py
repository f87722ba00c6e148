"""What vectors of users know of the users: linear probes of AE, DAE, VAE, ALS, EASE and SVD at equal width.

    recvae preprocess ml-100k --heldout-users 200
    python benchmarks/attributes.py --data data/ml-100k --ratings u.data --results attributes.json

--ratings (u.data, ratings.dat, or ratings.csv with userId, movieId, rating and perhaps timestamp) makes attributes that
no model was told, since a model sees neither ratings nor times: whether a user is generous, came late, or rates in the
evening. --attributes (u.user of MovieLens-100K, or users.dat of MovieLens-1M) has gender, age and occupation. The
networks are those of ae_dae_vae.py, each knob chosen on validation users; vectors are of training users. Probes that
are fitted and measured on other users are those of recvae.probe (extra `latent`).

Letters in shape comments: U users, I items, D width.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

import ae_dae_vae as sides
from measuring import machine_line
from recvae import ALS, EASE, Dataset
from recvae.latent.probes import probe
from recvae.latent.vectors import RANDOM, SVD, random_vectors, simple_vectors, vectors_of

SEEDS = 3
DAY, EVENING = 24 * 3600, 18 * 3600  # seconds
LEAST = 20  # users that must have an attribute, and that must lack it
REGULARIZATIONS = (5.0, 20.0, 50.0, 100.0)  # of ALS


def habits(path: Path) -> pd.DataFrame:
    """Return what ratings tell of users beside what they like: a column of bool for each habit, by user id.

    Parameters
    ----------
    path : Path
        `u.data`, `ratings.dat`, or a file `.csv` with a head line.

    Returns
    -------
    DataFrame of bool, indexed by user id
        `generous`: the mean rating is above the median user's. With times also `came late`: the first rating is later
        than the median user's; and `in the evening`: half of the ratings or more are of 18 to 24 o'clock, UTC.
    """
    columns = ["user", "item", "rating", "time"]
    if path.suffix == ".csv":
        table = pd.read_csv(path).rename(columns={"userId": "user", "movieId": "item", "timestamp": "time"})
    else:
        table = pd.read_csv(path, sep="::" if path.suffix == ".dat" else "\t", engine="python", names=columns)
    users = table.groupby("user")
    means = users["rating"].agg("mean")
    found = pd.DataFrame({"generous": means > np.median(means)})
    if "time" in table:
        first = users["time"].agg("min")
        found["came late"] = first > np.median(first)
        table["evening"] = table["time"] % DAY >= EVENING
        found["in the evening"] = table.groupby("user")["evening"].agg("mean") >= 0.5
    return found


def attributes(path: Path) -> pd.DataFrame:
    """Return gender, age and occupation: a column of bool for each, by user id.

    Parameters
    ----------
    path : Path
        `u.user` (id|age|gender|occupation|zip code) or `users.dat` (id::gender::age::occupation::zip code).

    Returns
    -------
    DataFrame of bool, indexed by user id
    """
    if path.suffix == ".dat":
        columns, separator = ["user", "gender", "age", "occupation", "zip"], "::"
    else:
        columns, separator = ["user", "age", "gender", "occupation", "zip"], r"\|"
    table = pd.read_csv(path, sep=separator, engine="python", names=columns, dtype={"zip": str}).set_index("user")
    found = pd.DataFrame({"woman": table["gender"] == "F", "under 25": table["age"] < 25, "over 44": table["age"] > 44})
    jobs = pd.get_dummies(table["occupation"], prefix="occupation", prefix_sep="=", dtype=bool)
    return pd.concat([found, jobs], axis=1)


def kinds(bench: sides.Bench, seeds: int) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yield each kind of vector of the training users, and the vectors of each seed, (U, D)."""
    train, validation = bench.dataset.train, bench.dataset.validation
    width = sides.NETWORK["latent_dim"]
    for side in sides.SIDES:
        knob = bench.chosen(side)
        fitted = (bench.planned(side, seed, **knob)[0].fit(train, validation, device="cpu") for seed in range(seeds))
        label = ", ".join(f"{name} {value:g}" for name, value in knob.items())
        yield f"{side.name}: {label}" if label else side.name, [model.embed(train) for model in fitted]
    others = {
        "ALS": [ALS(factors=width, regularization=value, seed=0).fit(train) for value in REGULARIZATIONS],
        "EASE, sum over items": [EASE(l2=value).fit(train) for value in sides.L2],
    }
    for name, grid in others.items():
        yield name, [vectors_of(sides.best_of(grid, validation), train, "users", width)]
    for name, vectors in simple_vectors(train, "users", width).items():
        more = range(1, seeds) if name == RANDOM else ()
        yield name, [vectors, *(random_vectors(train.shape[0], width, seed) for seed in more)]


def measured(vectors: Sequence[np.ndarray], told: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return the ROC-AUC of each attribute, its resamples, and the names; means over seeds, of the same resamples."""
    found = [probe(rows, told, [name], of="users", least=LEAST) for rows in vectors for name in told]
    n = len(vectors)
    aucs = np.array([one.mean for one in found]).reshape(n, -1)  # (seeds, attributes)
    resampled = np.stack([one.resampled for one in found]).reshape(n, len(told.columns), -1)
    return aucs.mean(axis=0), resampled.mean(axis=0), tuple(told.columns)


def table(found: dict[str, tuple[np.ndarray, np.ndarray, tuple[str, ...]]], against: str) -> str:
    """Return a table: a row for each kind of vector, a column for each attribute, and the mean with its interval."""
    names = next(iter(found.values()))[2]
    lines = [
        f"| user vectors | {' | '.join(names)} | mean | minus that of {against} |",
        f"|---{'|---' * len(names)}|---|---|",
    ]
    reference = found[against][1].mean(axis=0)
    for kind, (aucs, resampled, _) in found.items():
        cells = [_with_interval(auc, line) for auc, line in zip(aucs, resampled, strict=True)]
        mean = resampled.mean(axis=0)
        above = aucs.mean() - found[against][0].mean()
        difference = "-" if kind == against else _with_interval(above, mean - reference, "+.3f")
        lines.append(f"| {kind} | {' | '.join(cells)} | {_with_interval(aucs.mean(), mean)} | {difference} |")
    return "\n".join(lines)


def _with_interval(value: float, resampled: np.ndarray, form: str = ".3f") -> str:
    """Return a figure and its 95 % interval, without zeros before the point."""
    low, high = np.percentile(resampled, (2.5, 97.5))
    return f"{value:{form}} [{low:{form}}, {high:{form}}]".replace("0.", ".")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print it.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the command line.
    """
    parser = argparse.ArgumentParser(description="What vectors of users know of the users.")
    parser.add_argument("--data", type=Path, required=True, help="a prepared data set")
    parser.add_argument("--ratings", type=Path, help="u.data, ratings.dat or ratings.csv: generous, late users")
    parser.add_argument("--attributes", type=Path, help="u.user or users.dat: gender, age, occupation")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="fits of each network")
    parser.add_argument("--epochs", type=int, default=sides.NETWORK["epochs"], help="of each fit, at most")
    parser.add_argument("--results", type=Path, help="choices of ae_dae_vae.py: kept in this file, and read from it")
    given = parser.parse_args(arguments)
    read = [(habits, given.ratings), (attributes, given.attributes)]
    tables = [reader(path) for reader, path in read if path is not None]
    if not tables:
        parser.error("got neither --ratings nor --attributes, expected one of them")
    dataset = Dataset.load(given.data)
    if dataset.train_user_ids is None:
        parser.error(f"{given.data} has no ids of training users, expected those; prepare it again")
    told = pd.concat(tables, axis=1).loc[dataset.train_user_ids.tolist()]  # in the order of the vectors
    told = told.loc[:, np.minimum(told.sum(), (~told).sum()) >= LEAST]
    bench = sides.Bench(dataset, None, sides.Notebook(given.results, dataset.fingerprint), given.epochs)
    found = {}
    for kind, vectors in kinds(bench, given.seeds):
        found[kind] = measured(vectors, told)
        print(f"{kind}: {found[kind][0].mean():.3f}", flush=True)
    print(f"\n{dataset.name}: {dataset.train.shape[0]:,} training users")
    print(", ".join(f"{name}: {int(told[name].sum()):,}" for name in told))
    print(f"{machine_line()}\n\n{table(found, SVD)}")


if __name__ == "__main__":
    main()
