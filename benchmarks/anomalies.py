"""Are planted odd users found? A run's scores against length, popularity, isolation forest and PyOD's autoencoder.

    python benchmarks/anomalies.py RUN --data FOLDER

Test users are the ordinary ones; 200 odd users of each kind are planted beside them, their lengths drawn from the test
users'. What learns, learns from training users and is calibrated on validation users. Needs `pip install pyod`.

Letters in shape comments: U users, I items.
"""

import argparse
import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from measuring import processor
from recvae.bundles.bundle import read_bundle
from recvae.datasets.dataset import Dataset
from recvae.latent.anomalies import SCORES, AnomalyDetector
from recvae.latent.profiles import PROFILES, plant

_PLANTED, _RESAMPLES, _WIDTH, _TRAINED_ON = 200, 200, 50, 2000
Score = Callable[[sp.csr_matrix], np.ndarray]


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


def figures(ordinary: np.ndarray, odd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ROC-AUC and average precision, and half of the 95 % interval of each, by a bootstrap over users."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng, truth = np.random.default_rng(0), np.repeat([0, 1], [len(ordinary), len(odd)])

    def of(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
        values = np.concatenate([one, other])
        return float(roc_auc_score(truth, values)), float(average_precision_score(truth, values))

    draws = [of(rng.choice(ordinary, len(ordinary)), rng.choice(odd, len(odd))) for _ in range(_RESAMPLES)]
    return np.array(of(ordinary, odd)), 1.96 * np.std(draws, axis=0, ddof=1)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="Are planted odd users found?")
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--data", type=Path, required=True, help="folder of its data set")
    options = parser.parse_args()
    dataset = Dataset.load(options.data)
    test = sp.csr_matrix(dataset.test.fold_in + dataset.test.targets)
    popularity = np.asarray(dataset.train.sum(axis=0)).ravel()
    lengths = np.random.default_rng(0).choice(test.getnnz(axis=1), _PLANTED)
    planted = {kind: plant(kind, lengths, popularity, test, seed=place) for place, kind in enumerate(PROFILES)}
    print(f"{processor()}; Python {platform.python_version()}; {test.shape[0]} ordinary users, {_PLANTED} odd ones\n")
    print(f"| ROC-AUC / average precision | {' | '.join(PROFILES)} |\n|---|{'---|' * len(PROFILES)}")
    for name, score in scores_of(dataset, options.run).items():
        ordinary, cells = score(test), []
        for rows in planted.values():
            (area, precision), (of_area, of_precision) = figures(ordinary, score(rows))
            cells.append(f"{area:.3f} ± {of_area:.3f} / {precision:.3f} ± {of_precision:.3f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
