"""Free bits and KL annealing compared: what does a schedule do to ranking, codes and likelihood?

    recvae preprocess ml-100k --heldout-users 200
    python benchmarks/schedules.py --data data/ml-100k --results schedules.json

A model with the defaults of the package, and other schedules, weights of the KL term and free bits: one thing at a
time, or with --full each with each. The epoch of each fit is chosen on validation users; test users are only measured.
Figures are kept as those of `ae_dae_vae.py` are: an interrupted run continues.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import scipy.sparse as sp

from ae_dae_vae import Notebook, mean_ndcg
from ae_dae_vae_pages import cell, table
from measuring import machine_line
from recvae import Dataset, MultVAE, RecVAE
from recvae.latent.likelihood import likelihood
from recvae.training.schedules import NAMES

MODELS: dict[str, type[MultVAE] | type[RecVAE]] = {"multvae": MultVAE, "recvae": RecVAE}
WEIGHTS = {"multvae": (0.2, 1.0, 5.0), "recvae": (0.005, 0.05)}  # of the KL term: the default, and higher ones
FREE_BITS = (0.0, 0.1, 0.5)
RISES = {"linear": 0.85, "cosine": 0.85, "cyclical": 0.5}  # the package's default; of cycles, that of Fu et al.
MAIN = "linear"  # with which free bits are tried
TOLD = 0.01  # nats above which a unit says something
DRAWS = 100
FOLLOWED = ("ndcg", "beta", "active_units", "mutual_information")  # of each epoch
Cell = tuple[float, str, float]
"""Weight of the KL term, schedule, free bits."""


def cells(model: str, full: bool) -> Iterator[Cell]:
    """Yield what is compared."""
    free = FREE_BITS if model == "multvae" else (0.0,)
    for weight in WEIGHTS[model]:
        for name in NAMES:
            for bits in free if full or name == MAIN else (0.0,):
                yield weight, name, bits


def settings_of(model: str, one: Cell, seed: int, more: dict[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters of a fit that are not the defaults."""
    weight, name, bits = one
    found: dict[str, Any] = {MODELS[model].kl_weight: weight, "anneal": name, "seed": seed, **more}
    if name in RISES:
        found["anneal_fraction"] = RISES[name]
    if bits:
        found["free_bits"] = bits
    return found


def measured(dataset: Dataset, model: str, settings: dict[str, Any], notebook: Notebook) -> dict[str, Any]:
    """Return the figures of a fit, taken before or now."""
    key = json.dumps([model, {name: settings[name] for name in sorted(settings)}])
    if key in notebook.found["fits"]:
        return notebook.found["fits"][key]
    started = time.perf_counter()
    fitted = MODELS[model](**settings).fit(dataset.train, dataset.validation, device="cpu")
    seconds = time.perf_counter() - started
    found = likelihood(fitted, dataset, "test", n_samples=DRAWS)
    best = fitted.log_[fitted.history_.best_epoch - 1]
    whole = sp.csr_matrix(dataset.test.fold_in + dataset.test.targets)
    figures = {
        "validation": best.ndcg,
        "ndcg": mean_ndcg(fitted, dataset.test),
        "best_epoch": best.epoch,
        "weight": best.beta,
        "active_units": found.active_units,
        "told": int((fitted.kl_per_dimension(whole) > TOLD).sum()),
        "latent_dim": found.latent_dim,
        "kl": found.kl,
        "information": found.mutual_information,
        "most_information": found.most_information,
        "targets": found.targets["model"].value,
        "elbo": found.rows["ELBO"].value,
        "bound": found.rows[f"bound of {DRAWS:,} draws"].value,
        "popularity": {"targets": found.targets["popularity"].value, "rows": found.rows["popularity"].value},
        "epochs": [{name: asdict(record)[name] for name in FOLLOWED} for record in fitted.log_],
        "seconds": seconds,
    }
    print(f"{key}: validation {best.ndcg:.4f}, {seconds:.0f} s", flush=True)
    return notebook.keep(key, figures)


def page(found: dict[Cell, list[dict[str, Any]]], kl_weight: str) -> str:
    """Return the table of all figures, and what to compare them with."""
    columns = {
        "NDCG@100, validation": ("validation", 4),
        "NDCG@100, test": ("ndcg", 4),
        f"{kl_weight} at the epoch kept": ("weight", 3),
        "KL, nats": ("kl", 1),
        "mutual information, nats": ("information", 2),
        "active units": ("active_units", 0),
        f"KL above {TOLD:g}".replace("0.", "."): ("told", 0),
        "targets": ("targets", 0),
        "rows, ELBO": ("elbo", 0),
        f"rows, {DRAWS} draws": ("bound", 0),
    }
    body = [
        [f"{weight:g}", name, f"{bits:g}", *(cell([one[key] for one in figures], n) for key, n in columns.values())]
        for (weight, name, bits), figures in found.items()
    ]
    first = next(iter(found.values()))[0]
    note = (
        f"Popularity: targets {first['popularity']['targets']:,.0f}, rows {first['popularity']['rows']:,.0f}. At most "
        f"{first['most_information']:.2f} nats of mutual information, {first['latent_dim']} units."
    )
    return f"{table([kl_weight, 'anneal', 'free_bits', *columns], body)}\n\n{note}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print it.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the command line.
    """
    parser = argparse.ArgumentParser(description="Free bits and KL annealing compared.")
    parser.add_argument("--data", type=Path, required=True, help="a prepared data set")
    parser.add_argument("--model", choices=tuple(MODELS), default="multvae")
    parser.add_argument("--seeds", type=int, default=3, help="fits of each setting")
    parser.add_argument("--epochs", type=int, help="of each fit (by default the model's)")
    parser.add_argument("--full", action="store_true", help="free bits with every schedule, not with one only")
    parser.add_argument("--results", type=Path, help="keep figures in this file, and continue from it")
    given = parser.parse_args(arguments)
    if given.seeds < 1:
        parser.error("--seeds must be 1 or more")
    dataset = Dataset.load(given.data)
    notebook = Notebook(given.results, dataset.fingerprint)
    more = {} if given.epochs is None else {"epochs": given.epochs}
    found: dict[Cell, list[dict[str, Any]]] = {one: [] for one in cells(given.model, given.full)}
    for seed in range(given.seeds):
        for one, figures in found.items():
            settings = settings_of(given.model, one, seed, more)
            figures.append(measured(dataset, given.model, settings, notebook))
    kind = MODELS[given.model]
    print(
        f"\n{dataset.name}: {dataset.train.shape[0]:,} training users x {dataset.train.shape[1]:,} items, {kind.name}"
    )
    print(f"{machine_line()}\n\n{page(found, kind.kl_weight)}")


if __name__ == "__main__":
    main()
