"""Are planted odd users found? A run's scores against length, popularity, isolation forest and PyOD's autoencoder.

    python benchmarks/anomalies.py RUN --data FOLDER

Test users are the ordinary ones; 200 odd users of each kind are planted beside them: first with lengths drawn from the
test users', then all with one length. Those of one length are compared with all test users, and with those whose length
is similar (3/4 to 4/3 of it), since length alone may tell otherwise. What learns, learns from training users and is
calibrated on validation users. Needs `pip install pyod`.

Letters in shape comments: U users, I items.
"""

import argparse
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from measuring import processor
from recvae.bundles.bundle import read_bundle
from recvae.datasets.dataset import Dataset
from recvae.errors import RecvaeError
from recvae.latent.anomalies import SCORES, AnomalyDetector
from recvae.latent.profiles import PROFILES, plant

_PLANTED, _RESAMPLES, _WIDTH, _TRAINED_ON, _NEAR = 200, 200, 50, 2000, 4 / 3
LENGTHS = (10, 30, 100, 300)
Score = Callable[[sp.csr_matrix], np.ndarray]
Odd = dict[str, dict[str, np.ndarray]]
"""Scores of planted users, by kind and by what scores."""


def scores_of(dataset: Dataset, run: Path) -> dict[str, Score]:
    """Return everything that scores users: higher is odder."""
    model = read_bundle(run, "cpu").model
    calibration = sp.csr_matrix(dataset.validation.fold_in + dataset.validation.targets)
    chance = np.asarray(dataset.train.sum(axis=0)).ravel() + 1
    surprise = -np.log(chance / chance.sum())  # (I,)
    found: dict[str, Score] = {
        "length": lambda rows: -rows.getnnz(axis=1).astype(float),
        "popularity": lambda rows: (rows @ surprise) / rows.getnnz(axis=1),
        "isolation forest on SVD": _isolation_forest(dataset.train),
        "PyOD's AutoEncoder": _pyod(dataset.train),
    }
    for name in SCORES:
        found[f"{model.name}, {name}"] = AnomalyDetector(model, score=name).fit(calibration).decision_function
    return found


def _isolation_forest(train: sp.csr_matrix) -> Score:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.ensemble import IsolationForest
    from sklearn.preprocessing import normalize

    svd = TruncatedSVD(_WIDTH, random_state=0).fit(normalize(train))
    forest = IsolationForest(random_state=0).fit(svd.transform(normalize(train)))
    return lambda rows: -forest.score_samples(svd.transform(normalize(rows)))


def _pyod(train: sp.csr_matrix) -> Score:
    """Train on some users, dense, which is the only way it takes them."""
    from pyod.models.auto_encoder import AutoEncoder  # type: ignore[import-not-found]  (no package of this one needs it)

    chosen = np.random.default_rng(0).permutation(train.shape[0])[:_TRAINED_ON]
    model = AutoEncoder(random_state=0, verbose=0).fit(train[chosen].toarray())
    return lambda rows: np.asarray(model.decision_function(rows.toarray()))


def figures(ordinary: np.ndarray, odd: np.ndarray, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Return ROC-AUC and average precision, and half of the 95 % interval of each, by a bootstrap over users.

    Parameters
    ----------
    ordinary, odd : ndarray of shape (n_users,)
        Scores.
    ratio : float
        Ordinary users to one odd user. Users are weighted so, for average precision depends on it: by chance it is
        1 / (1 + ratio).
    """
    rng, n_ordinary = np.random.default_rng(0), len(ordinary)
    times = np.ones((1 + _RESAMPLES, n_ordinary + len(odd)))  # how often each user is drawn, first as they are
    for row in times[1:]:
        row[:n_ordinary] = np.bincount(rng.integers(n_ordinary, size=n_ordinary), minlength=n_ordinary)
        row[n_ordinary:] = np.bincount(rng.integers(len(odd), size=len(odd)), minlength=len(odd))
    values, place = np.unique(-np.concatenate([ordinary, odd]), return_inverse=True)  # the oddest first
    by_value = sp.csr_matrix((np.ones(len(place)), (np.arange(len(place)), place)), shape=(len(place), len(values)))
    honest = np.asarray(times[:, :n_ordinary] @ by_value[:n_ordinary])  # (1 + resamples, values)
    found = np.asarray(times[:, n_ordinary:] @ by_value[n_ordinary:])
    wrong, right = np.cumsum(honest, axis=1), np.cumsum(found, axis=1)  # (1 + resamples, values)
    area = (found * (wrong[:, -1:] - wrong + honest / 2)).sum(axis=1) / (n_ordinary * len(odd))
    charged = ratio * len(odd) / n_ordinary * wrong
    shares = right / np.maximum(right + charged, 1e-12)  # precision, where that score is the threshold
    both = np.stack([area, (found * shares).sum(axis=1) / len(odd)])  # (2, 1 + resamples)
    return both[:, 0], 1.96 * both[:, 1:].std(axis=1, ddof=1)


def similar(lengths: np.ndarray, wanted: int) -> np.ndarray:
    """Return the places of the users whose length is similar."""
    ratio = lengths / wanted
    return np.flatnonzero((ratio <= _NEAR) & (ratio >= 1 / _NEAR))


def rows_of(ordinary: dict[str, np.ndarray], odd: Odd, who: slice | np.ndarray, label: str) -> list[str]:
    """Return a line of the table for each score: its figures by kind of odd users.

    Parameters
    ----------
    ordinary : dict of str to ndarray of shape (n_users,)
        By score, of all test users.
    odd : dict of str to dict of str to ndarray
        By kind and score, of planted users.
    who : slice or ndarray of int
        The test users to compare with.
    label : str
        First cells of each line.
    """
    lines = []
    for name, values in ordinary.items():
        cells = []
        for found in odd.values():
            ratio = len(values) / len(found[name])
            (area, precision), (of_area, of_precision) = figures(values[who], found[name], ratio)
            cells.append(f"{area:.3f} ± {of_area:.3f} / {precision:.3f} ± {of_precision:.3f}")
        lines.append(f"| {label}{name} | {' | '.join(cells)} |")
    return lines


def of_drawn_lengths(ordinary: dict[str, np.ndarray], odd: Odd) -> str:
    """Return the table of users whose lengths are like those of the test users."""
    head = f"| ROC-AUC / average precision | {' | '.join(odd)} |\n|---|{'---|' * len(odd)}"
    return "\n".join([head, *rows_of(ordinary, odd, slice(None), "")])


def of_one_length(ordinary: dict[str, np.ndarray], odd: dict[int, Odd], own: np.ndarray, near: bool) -> str:
    """Return the table of users of each length, against the test users nearest in length or against all."""
    against = "test users of similar length" if near else "all test users"
    lines = [f"| length | against {against} | {' | '.join(PROFILES)} |\n|---|---|{'---|' * len(PROFILES)}"]
    for length, found in odd.items():
        who = similar(own, length) if near else np.arange(len(own))
        span = f" ({len(who)} users, {own[who].min()} to {own[who].max()})" if near else ""
        lines += rows_of(ordinary, found, who, f"{length}{span} | ")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print tables.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the command line.
    """
    parser = argparse.ArgumentParser(description="Are planted odd users found?")
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--data", type=Path, required=True, help="folder of its data set")
    parser.add_argument("--lengths", type=int, nargs="*", default=LENGTHS, help="also plant users that are all so long")
    options = parser.parse_args(arguments)
    dataset = Dataset.load(options.data)
    test = sp.csr_matrix(dataset.test.fold_in + dataset.test.targets)
    popularity, own = np.asarray(dataset.train.sum(axis=0)).ravel(), test.getnnz(axis=1)
    for length in options.lengths:
        if length < 1 or len(similar(own, length)) < 2:
            parser.error(
                f"got --lengths {length}, expected a length that at least two test users have about; give others"
            )

    def planted(lengths: np.ndarray) -> dict[str, sp.csr_matrix]:
        return {kind: plant(kind, lengths, popularity, test, seed=place) for place, kind in enumerate(PROFILES)}

    try:
        drawn = planted(np.random.default_rng(0).choice(own, _PLANTED))
        fixed = {length: planted(np.full(_PLANTED, length)) for length in options.lengths}
        scores = scores_of(dataset, options.run)
    except RecvaeError as error:
        parser.error(str(error))

    def scored(found: dict[str, sp.csr_matrix]) -> Odd:
        return {kind: {name: score(rows) for name, score in scores.items()} for kind, rows in found.items()}

    ordinary = {name: score(test) for name, score in scores.items()}
    print(f"{processor()}; Python {platform.python_version()}; {test.shape[0]} ordinary users, {_PLANTED} odd ones\n")
    print(of_drawn_lengths(ordinary, scored(drawn)), flush=True)
    odd = {length: scored(found) for length, found in fixed.items()}
    for near in (True, False) if odd else ():
        print(f"\n{of_one_length(ordinary, odd, own, near)}", flush=True)


if __name__ == "__main__":
    main()
