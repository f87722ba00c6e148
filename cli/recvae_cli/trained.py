"""What `recvae train` says before and after it trains."""

from pathlib import Path
from typing import TYPE_CHECKING

from recvae_cli.console import command, model_words, resuming, say, say_next, say_removed, show, show_json
from recvae_cli.streaming import remark_on_stream

if TYPE_CHECKING:
    from recvae.bundles.bundle import Bundle
    from recvae.datasets.dataset import Dataset
    from recvae.models import Model
    from recvae.runs.run import Run
    from recvae.training.records import TrainingSummary

USUAL = "ndcg@100"
"""What is chosen by where nothing else was asked for."""


def announce(run: "Run", dataset: "Dataset", data_dir: Path, device: str) -> None:
    """Say what is trained, and what is worth a remark."""
    if run.overwrites or run.work != run.folder:
        say_removed(run.folder)
    doing = "resuming" if run.resumes else "training"
    by = f" by {run.select_by.path}" if str(run.select_by) != USUAL else ""
    say(f"{doing} {run.model.name} on {data_dir / dataset.name}{by} -> {run.folder}")
    remark_on_stream(dataset)
    _remark_on_precision(run, device)
    _remark_on_sampling(run, dataset)


def _remark_on_precision(run: "Run", device: str) -> None:
    from recvae.compute.devices import multiplies_bfloat16, resolve_device

    if getattr(run.model, "precision", "auto") == "bfloat16" and not multiplies_bfloat16(resolve_device(device)):
        say("this processor has no instructions for bfloat16: it works, but float32 would be faster")


def _remark_on_sampling(run: "Run", dataset: "Dataset") -> None:
    draws, n_items = getattr(run.model, "sampled_items", 0), len(dataset.item_ids)
    if getattr(run.model, "sampling", "none") != "none" and draws >= n_items:
        say(f"{draws:,} sampled items of {n_items:,}: all items (sampling=none) would need less time and memory")


def _show_parts(training: "TrainingSummary") -> None:
    """Say how a blend is weighed, what was left to the data, or what pruning cost."""
    pruning, weight = training.pruning, training.weight
    if training.from_data:
        found = ", ".join(f"{name} {value:g}" for name, value in training.from_data.items())
        show(f"{found}: from the size of the data; `recvae tune` may find better")
    if weight is not None:
        chosen = f", chosen on validation by {training.select_by}" if training.tried is not None else ""
        show(f"weight {weight:g} for the first run, {1 - weight:.3g} for the second{chosen}")
        if weight in (0, 1):
            say(f"the {'first' if weight else 'second'} run alone ranks the same: the other one adds nothing")
    if pruning is not None and pruning["ndcg@100 before"] is not None:
        before, after = pruning["ndcg@100 before"], pruning["ndcg@100 after"]
        show(f"pruned to {pruning['kept']:.2%} of the weights: validation ndcg@100 {before:.4f} -> {after:.4f}")


def _warn_of_collapse(model: "Model") -> None:
    """Say so where the weights that were kept use next to nothing of their latent space."""
    from recvae.models.common.autoencoder import Autoencoder
    from recvae.training.latents import collapse

    if isinstance(model, Autoencoder) and model.history_.best_epoch:
        record = model.log_[model.history_.best_epoch - 1]
        kl = None if record.kl_per_dimension is None else sum(record.kl_per_dimension)
        warning = collapse(record.active_units, len(record.kl_per_dimension or []), kl)
        if warning is not None:
            say(f"warning: {warning}")


def report(bundle: "Bundle", folder: Path, as_json: bool) -> None:
    """Say how training went, and what may come next."""
    training, metrics = bundle.training, bundle.metrics.get("validation", {})
    if as_json:
        content = {"folder": str(folder), "model": bundle.model.name, "interrupted": bundle.interrupted}
        show_json({**content, "training": training.to_json(), "metrics": bundle.metrics})
    else:
        if bundle.interrupted:
            resume = resuming(*model_words(type(bundle.model)))
            show(f"interrupted: the best weights so far are kept; run `{resume}` to continue")
        if training.refit is not None:
            show(training.refit.describe())
        elif training.best_epoch is not None:
            end = ", stopped early" if training.stopped_early else ""
            by = f" by validation {training.select_by}" if training.select_by else ""
            show(f"best epoch {training.best_epoch} of {training.epochs}{by}{end}, on {training.device}")
        _show_parts(training)
        reached = ", ".join(f"{metric} {value:.4f}" for metric, value in metrics.items())
        if training.refit is None:
            show(f"validation: {reached or 'no user has a target'}")
        show(f"saved to {folder} after {training.seconds or 0.0:.1f} s of training")
        whole = training.refit is None and not bundle.interrupted and bool(metrics)
        is_steady = getattr(bundle.model, "decay", "none") == "none"  # else the last epochs are the best by plan
        if training.epochs and training.epochs == training.best_epoch and whole and is_steady:
            say(f"the last epoch was the best: training longer may help: --set epochs={2 * training.epochs}")
        _warn_of_collapse(bundle.model)
    verb = "serve" if training.refit is not None and training.refit.has_seen("test") else "evaluate"
    say_next(command(verb, folder, *model_words(type(bundle.model))))
