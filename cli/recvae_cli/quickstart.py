"""`recvae quickstart`: every step on generated data, in under two minutes and without a download."""

import shlex
from pathlib import Path

import typer

from recvae_cli.console import DATA_DIR, RUNS_DIR, DataDir, RunsDir, command, say, say_next, show

_NAME = "quickstart"
_SMALL = "--set hidden_dims=300 --set latent_dim=100 --set batch_size=250 --set epochs=60 --set patience=15"


def quickstart(context: typer.Context, data_dir: DataDir = DATA_DIR, runs_dir: RunsDir = RUNS_DIR) -> None:
    """Run everything on generated data: preprocess, train, evaluate, recommend. No download.

    Example: recvae quickstart
    """
    import torch

    torch.set_num_threads(1)  # for a network this small, more threads mostly wait for each other
    _run(context, "preprocess", "synthetic", "--name", _NAME, "--overwrite")
    _run(context, "train", "--model", "multvae", "--data", _NAME, *_SMALL.split(), "--overwrite")
    _run(context, "evaluate", f"{_NAME}/multvae")
    _recommend(data_dir / _NAME, runs_dir / _NAME / "multvae")
    remarks = {
        command("preprocess", "ml-1m", "--heldout-users", 500): "real data, downloaded; or --source PATH",
        command("train", "--model", "multvae"): "on the newest data set; `recvae models` lists the models",
        command("evaluate"): "against tuned ALS and popularity, with intervals",
    }
    width = max(map(len, remarks)) + 4
    say_next(*(f"{words:<{width}} # {remark}" for words, remark in remarks.items()))


def _run(context: typer.Context, verb: str, *words: str) -> None:
    """Show a command and run it, as if the user had typed it."""
    line = command(verb, *words)
    say(f"\n$ {line}")
    context.find_root().command.main(shlex.split(line)[1:], prog_name="recvae", standalone_mode=False)


def _recommend(data: Path, run: Path) -> None:
    """Recommend to three test users from their fold-in history, as a serving process would."""
    from rich.table import Table

    from recvae.datasets.dataset import Dataset
    from recvae.recommenders.recommender import Recommender

    say(f"\n>>> recommender = Recommender.load({str(run)!r})\n>>> recommender.recommend(history, k=5)")
    recommender = Recommender.load(run)
    dataset = Dataset.load(data)
    titles = dataset.titles
    for user in range(3):
        history = dataset.test.fold_in[user].indices
        found = recommender.recommend(dataset.item_ids[history], k=5)
        liked = [str(titles[column]) for column in history[:5]] if titles is not None else []
        table = Table()
        table.add_column("liked (some)")
        table.add_column("recommended")
        for left, right in zip([*liked, *[""] * 5][:5], found.titles, strict=True):
            table.add_row(left, right)
        show(f"A user never seen in training, {len(history)} films liked", table)
