"""AE, DAE and VAE side by side: the same widths, the same data; one table, and pictures of it.

    recvae preprocess ml-100k --heldout-users 200
    python benchmarks/ae_dae_vae.py --data data/ml-100k --genres u.item --results sides.json --plots docs

Each fit is measured once and kept in --results: an interrupted run continues, and more --seeds or another --part adds
to it. One knob of each side is chosen on validation users, with one seed; the epoch of each fit is too. Test users
are only measured. --genres is u.item of MovieLens-100K, with u.genre beside it; without it, item vectors are not
probed.

Letters in shape comments: U users, I items, k ranks.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.special import log_softmax

import ae_dae_vae_pages as pages
from measuring import machine, machine_line
from recvae import AE, EASE, Dataset, HeldOut, MultDAE, MultVAE, Popularity, evaluate
from recvae.datasets.features import ItemFeatures
from recvae.latent.likelihood import likelihood
from recvae.latent.probes import narrowed, probe
from recvae.metrics import ndcg_at_k
from recvae.models.common.base import Model

K = 100
HIDDEN, LATENT = 100, 50
NETWORK = {"hidden_dims": (HIDDEN,), "latent_dim": LATENT, "epochs": 150, "patience": 15, "learning_rate": 1e-3}
VAE = {"decay": "none", "warmup": 0.0, "anneal_fraction": 0.25}  # a constant step size, as the others have
MODELS: dict[str, type[Model]] = {"ae": AE, "multdae": MultDAE, "multvae": MultVAE}
DROPPED = (0.0, 0.25, 0.5, 0.75, 0.9)
ADDED = (0.0, 0.25, 0.5, 1.0, 2.0)
FOLLOWED = ("ndcg", "beta", "active_units", "mutual_information")  # of each epoch
L2 = (50.0, 100.0, 200.0, 300.0, 500.0, 1000.0)  # of EASE
FEW = 3  # seeds of what is measured beside the sides themselves
PARTS = ("sides", "noise", "beta", "latent", "hidden", "probes")


@dataclass(frozen=True)
class Side:
    """One contender: a model, what is fixed, and the knob that validation users choose.

    Parameters
    ----------
    name, model : str
        For the table, and of the registry.
    settings : dict
        Hyperparameters that differ from what all have.
    knob : str
        The hyperparameter that is chosen, "" for none.
    choices : tuple
        Of which.
    """

    name: str
    model: str
    settings: dict[str, Any] = field(default_factory=dict)
    knob: str = ""
    choices: tuple[float, ...] = ()


SIDES = (
    Side("AE", "ae", {}, "weight_decay", (4e-5, 4e-4, 4e-3)),
    Side("DAE", "multdae", {}, "dropout", (0.3, 0.5, 0.7)),
    Side("VAE", "multvae", {**VAE, "dropout": 0.0, "beta": 1.0}),
    Side("VAE, beta chosen", "multvae", {**VAE, "dropout": 0.0}, "beta", (0.1, 0.2, 0.5)),
    Side("Mult-VAE", "multvae", {**VAE, "dropout": 0.5}, "beta", (0.1, 0.2, 0.5, 1.0)),
)
NOISES = (
    *({"noise": "masking", "dropout": share} for share in (0.25, 0.5, 0.75)),
    *({"noise": "gaussian", "noise_level": level} for level in (0.01, 0.05)),
    *({"noise": "salt-and-pepper", "noise_level": level} for level in (0.01, 0.05)),
)
PRICES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # beta, from the first update on
WIDTHS = {"latent": (5, 15, 150), "hidden": (25, 400)}  # the others are at the widths that all have


class Notebook:
    """What was measured, by what was asked; kept on disk after each measurement."""

    def __init__(self, path: Path | None, fingerprint: str) -> None:
        self.path = path
        self.found: dict[str, Any] = {"data": fingerprint, "machine": machine(), "fits": {}}
        if path is not None and path.exists():
            self.found = json.loads(path.read_text(encoding="utf-8"))
            if self.found["data"] != fingerprint:
                raise SystemExit(f"{path} has figures of other data; give another --results")

    def keep(self, key: str, figures: dict[str, Any]) -> dict[str, Any]:
        """Note figures and return them."""
        self.found["fits"][key] = figures
        if self.path is not None:
            aside = self.path.with_suffix(".part")
            aside.write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")
            aside.replace(self.path)
        return figures


class Bench:
    """A data set, and what is measured on it.

    Parameters
    ----------
    dataset : Dataset
        With validation and test users.
    genres : ItemFeatures or None
        Features of 0 and 1 of its items, to probe item vectors with.
    notebook : Notebook
        Where figures are kept.
    epochs : int
        Of each fit, at most.
    """

    def __init__(self, dataset: Dataset, genres: ItemFeatures | None, notebook: Notebook, epochs: int) -> None:
        self.dataset, self.genres, self.notebook, self.epochs = dataset, genres, notebook, epochs
        self.inputs = dict(noisy_inputs(dataset.test))

    def planned(self, side: Side, seed: int, **more: Any) -> tuple[Model, str]:
        """Return a model that is not fitted, and what it is called in the notebook."""
        settings = {**NETWORK, **side.settings, **more, "seed": seed, "epochs": self.epochs}
        model = MODELS[side.model](**settings)
        return model, json.dumps([side.model, {name: settings[name] for name in sorted(settings)}])

    def chosen(self, side: Side) -> dict[str, Any]:
        """Return the knob of a side with the best validation NDCG@100, of one seed."""
        if not side.knob:
            return {}
        found = {value: self.measured(side, 0, False, **{side.knob: value})["validation"] for value in side.choices}
        return {side.knob: max(found, key=lambda value: found[value])}

    def measured(self, side: Side, seed: int, probed: bool = False, **more: Any) -> dict[str, Any]:
        """Return the figures of a fit, taken before or now."""
        model, key = self.planned(side, seed, **more)
        figures = self.notebook.found["fits"].get(key)
        if figures is not None and (not probed or "probe" in figures):
            return figures
        started = time.perf_counter()
        model.fit(self.dataset.train, self.dataset.validation, device="cpu")
        seconds = time.perf_counter() - started
        if figures is None:
            figures = {**self._figures(model), "seconds": seconds}
        if probed:
            figures = {**figures, "probe": self.probed(model.item_embeddings())}  # type: ignore[attr-defined]
        print(f"{side.name} seed {seed} {more or ''}: NDCG@100 {figures['ndcg']:.4f}, {seconds:.0f} s", flush=True)
        return self.notebook.keep(key, figures)

    def _figures(self, model: Any) -> dict[str, Any]:
        test = self.dataset.test
        found = likelihood(model, self.dataset, "test")
        records = [asdict(record) for record in model.log_]
        best = records[model.history_.best_epoch - 1]
        known = model.has_distribution
        return {
            "validation": best["ndcg"],
            "best_epoch": best["epoch"],
            "beta": best["beta"],
            "ndcg": float(np.nanmean(evaluate(model, test, f"ndcg@{K}")[0][f"ndcg@{K}"])),
            "copied": perplexity(model, sp.csr_matrix(test.fold_in + test.targets)),
            "copied_train": perplexity(model, self.dataset.train),
            "targets": found.targets["model"].value,
            "targets_popularity": found.targets["popularity"].value,
            "rows": {name: figure.value for name, figure in found.rows.items()},
            "active_units": found.active_units,
            "kl": found.kl,
            "information": found.mutual_information,
            "most_information": found.most_information,
            "kl_per_dimension": model.kl_per_dimension(test.fold_in).tolist() if known else None,
            "epochs": [{name: record[name] for name in FOLLOWED} for record in records],
            "noisy": {name: ranked_with(model, rows, hidden, test) for name, (rows, hidden) in self.inputs.items()},
        }

    def probed(self, vectors: np.ndarray) -> dict[str, Any]:
        """Return what a probe of item vectors finds of the genres."""
        assert self.genres is not None
        found = probe(vectors, self.genres)
        low, high = found.interval
        aucs = dict(zip(found.names, found.aucs.tolist(), strict=True))
        return {"mean": found.mean, "low": low, "high": high, "aucs": aucs, "resampled": found.resampled.tolist()}

    def baselines(self) -> dict[str, Any]:
        """Return EASE, tuned on validation, popularity, and the probes of vectors without a network."""
        figures = self.notebook.found["fits"].get("baselines", {})
        if "ease" not in figures:
            ease = best_of([EASE(l2=value).fit(self.dataset.train) for value in L2], self.dataset.validation)
            popular = Popularity().fit(self.dataset.train)
            noisy = {name: ranked_with(ease, *parts, self.dataset.test) for name, parts in self.inputs.items()}
            figures = {"ease": {"ndcg": noisy["dropped 0.0"], "l2": ease.l2, "noisy": noisy}}
            figures["popularity"] = {"ndcg": mean_ndcg(popular, self.dataset.test)}
            self.notebook.keep("baselines", figures)
        if self.genres is not None and "probes" not in figures:
            counts = np.log1p(np.bincount(self.dataset.train.indices, minlength=self.dataset.train.shape[1]))
            weights = EASE(l2=figures["ease"]["l2"]).fit(self.dataset.train).similarity_
            vectors = {
                "EASE, rows by SVD": narrowed(weights, HIDDEN),
                "truncated SVD": narrowed(self.dataset.train.T.tocsr(), HIDDEN),
                "training count alone": counts[:, None],
                "random numbers": np.random.default_rng(0).standard_normal((len(counts), HIDDEN)),
            }
            figures = {**figures, "probes": {name: self.probed(rows) for name, rows in vectors.items()}}
            self.notebook.keep("baselines", figures)
        return figures

    def run(self, parts: Sequence[str], seeds: int) -> dict[str, list[tuple[str, str, list[dict[str, Any]]]]]:
        """Measure parts and return, by part, side, setting and the figures of each seed."""
        best = {side.name: self.chosen(side) for side in SIDES}
        names = ("AE", "DAE", "VAE")
        plain = [side for side in SIDES if side.name in names]
        found: dict[str, list[tuple[str, str, list[dict[str, Any]]]]] = {}

        def note(part: str, side: Side, label: str, n: int, **more: Any) -> None:
            settings: dict[str, Any] = {**best[side.name], **more}
            probed = self.genres is not None and "probes" in parts and part in ("sides", "probes")
            figures = [self.measured(side, seed, probed and seed < FEW, **settings) for seed in range(n)]
            found.setdefault(part, []).append((side.name, label, figures))

        if "sides" in parts:
            for side in SIDES:
                note("sides", side, ", ".join(f"{name} {value:g}" for name, value in best[side.name].items()), seeds)
        if "noise" in parts:
            for setting in NOISES:
                kind, level = setting["noise"], setting.get("dropout", setting.get("noise_level"))
                more = {"dropout": 0.5, **setting}
                note("noise", SIDES[1], f"{kind} {level:g}", min(seeds, FEW), **more)
        for beta in PRICES if "beta" in parts else ():
            note("beta", SIDES[2], f"{beta:g}", min(seeds, FEW), beta=beta, anneal_fraction=0.0)
        for part, name in (("latent", "latent_dim"), ("hidden", "hidden_dims")):
            usual = {"latent": LATENT, "hidden": HIDDEN}[part]
            for width in sorted((*WIDTHS[part], usual)) if part in parts else ():
                for side in plain:
                    more = {} if width == usual else {name: width if part == "latent" else (width,)}
                    note(part, side, str(width), min(seeds, FEW), **more)
        if "probes" in parts and self.genres is not None:
            for side in SIDES:
                note("probes", side, "", min(seeds, FEW))
        return found


def noisy_inputs(held_out: HeldOut) -> Iterator[tuple[str, tuple[sp.csr_matrix, sp.csr_matrix]]]:
    """Yield fold-ins with items dropped or added, and what must not be ranked; always the same ones.

    Parameters
    ----------
    held_out : HeldOut
        Dropped items stay out of the ranking: they are no targets. Each user keeps one at least. Added items are drawn
        alike from all that the user does not have, as many as a share of the fold-in; what is added at most is never
        ranked, so that the lists of all shares are of the same items.
    """
    fold_in = held_out.fold_in
    for share in DROPPED:
        rng, rows = np.random.default_rng(1), fold_in.tolil()
        for user in range(fold_in.shape[0]):
            own = rng.permutation(fold_in[user].indices)
            rows[user, own[: min(round(share * len(own)), len(own) - 1)]] = 0
        yield f"dropped {share}", (sp.csr_matrix(rows, dtype=np.float32), fold_in)
    most = _with_others(held_out, max(ADDED))
    for share in ADDED:
        yield f"added {share}", (_with_others(held_out, share), most)


def _with_others(held_out: HeldOut, share: float) -> sp.csr_matrix:
    """Return the fold-in and random items; a smaller share has a part of the items of a larger one."""
    rng, rows = np.random.default_rng(2), held_out.fold_in.tolil()
    for user in range(rows.shape[0]):
        own = held_out.fold_in[user].indices
        taken = np.union1d(own, held_out.targets[user].indices)
        others = rng.permutation(np.setdiff1d(np.arange(rows.shape[1]), taken))
        rows[user, others[: round(share * len(own))]] = 1
    return sp.csr_matrix(rows, dtype=np.float32)


def ranked_with(model: Model, rows: sp.csr_matrix, hidden: sp.csr_matrix, held_out: HeldOut) -> float:
    """Return NDCG@100 of targets where a model sees `rows`, and `hidden` is not ranked."""
    scores = model.score(rows)  # (U, I)
    scores[hidden.nonzero()] = -np.inf
    ranked = np.argsort(-scores, axis=1, kind="stable")[:, :K]  # (U, k)
    return float(np.nanmean(ndcg_at_k(ranked, held_out.targets, K)))


def best_of(models: Sequence[Any], held_out: HeldOut) -> Any:
    """Return the fitted model with the best NDCG@100."""
    return max(models, key=lambda one: mean_ndcg(one, held_out))


def mean_ndcg(model: Model, held_out: HeldOut) -> float:
    """Return the mean NDCG@100 of users."""
    return float(np.nanmean(evaluate(model, held_out, f"ndcg@{K}")[0][f"ndcg@{K}"]))


def perplexity(model: Any, rows: sp.csr_matrix) -> float:
    """Return the perplexity of whole rows given their own codes, the means where codes are distributions."""
    log_p = log_softmax(model.decode(model.encode(rows).mean).astype(np.float64), axis=1)  # (U, I)
    return float(np.exp(-(rows.multiply(log_p)).sum() / rows.sum()))


def genres_of(path: Path, dataset: Dataset) -> ItemFeatures:
    """Return the genres of MovieLens-100K's u.item (u.genre lies beside it), in the order of the items."""
    names = pd.read_csv(path.with_name("u.genre"), sep="|", header=None)[0].tolist()
    table = pd.read_csv(path, sep="|", header=None, encoding="latin-1", index_col=0)
    flags = table.iloc[:, -len(names) :].loc[[int(item) for item in dataset.item_ids]]
    return ItemFeatures(matrix=flags.to_numpy(np.float32), names=tuple(names))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print it.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the command line.
    """
    parser = argparse.ArgumentParser(description="AE, DAE and VAE side by side.")
    parser.add_argument("--data", type=Path, required=True, help="a prepared data set")
    parser.add_argument("--genres", type=Path, help="u.item of MovieLens-100K, to probe item vectors (extra latent)")
    parser.add_argument("--seeds", type=int, default=5, help="fits of each side; at most three of each width and noise")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part (repeatable)")
    parser.add_argument("--epochs", type=int, default=NETWORK["epochs"], help="of each fit, at most")
    parser.add_argument("--results", type=Path, help="keep figures in this file, and continue from it")
    parser.add_argument("--plots", type=Path, help="draw into this folder (needs matplotlib)")
    given = parser.parse_args(arguments)
    dataset = Dataset.load(given.data)
    genres = None if given.genres is None else genres_of(given.genres, dataset)
    bench = Bench(dataset, genres, Notebook(given.results, dataset.fingerprint), given.epochs)
    parts = given.part or PARTS
    found, baselines = bench.run(parts, given.seeds), bench.baselines()
    print(f"\n{dataset.name}: {dataset.train.shape[0]:,} training users x {dataset.train.shape[1]:,} items")
    print(machine_line())
    for title, text in pages.tables(found, baselines):
        print(f"\n### {title}\n\n{text}")
    if given.plots is not None:
        for path in pages.draw(found, baselines, given.plots):
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
