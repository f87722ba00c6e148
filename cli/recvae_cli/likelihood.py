"""`recvae likelihood`: how probable a run finds held-out users, and how much of its latent space it uses."""

from math import isnan
from typing import TYPE_CHECKING, Annotated

import typer

from recvae_cli.console import (
    DATA_DIR,
    DEVICE,
    RUNS_DIR,
    DataDir,
    Device,
    Heading,
    ItsData,
    Json,
    MaxMemory,
    OneRun,
    OwnModels,
    RunsDir,
    command,
    model_words,
    say,
    say_next,
    show,
    show_json,
)

if TYPE_CHECKING:
    from recvae.latent.likelihood import Likelihood


def likelihood(
    run: OneRun = None,
    split: Annotated[str, typer.Option("--split", help="Held-out users: test or validation.")] = "test",
    samples: Annotated[
        int | None,
        typer.Option("--samples", help="Draws of each user's code, for a tighter bound.", show_default="100"),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the draws.")] = 0,
    data: ItsData = None,
    own: OwnModels = None,
    max_memory: MaxMemory = None,
    device: Device = DEVICE,
    data_dir: DataDir = DATA_DIR,
    runs_dir: RunsDir = RUNS_DIR,
    as_json: Json = False,
) -> None:
    """Print the perplexity of held-out users: how many equally likely items one interaction is chosen from.

    Of whole rows (multvae, recvae, hvamp) and of targets given the fold-in (ae, multdae too), next to guessing by
    popularity. Lower is better.

    \b
    Example:
      recvae likelihood ml-1m/multvae
    """
    from recvae.latent.likelihood import N_SAMPLES
    from recvae.latent.likelihood import likelihood as measure
    from recvae.training.monitors import ProgressBar
    from recvae_cli.opening import open_run

    opened = open_run(
        run,
        data=data,
        own=own,
        max_memory=max_memory,
        device=device,
        data_dir=data_dir,
        runs_dir=runs_dir,
        split=split,
    )
    model = opened.bundle.model
    with ProgressBar("likelihood") as bar:
        heading = Heading(f"likelihood of the {split} users of {opened.dataset.name} under {opened.folder}", bar)
        found = measure(
            model,
            opened.dataset,
            split,
            n_samples=N_SAMPLES if samples is None else samples,
            seed=seed,
            max_memory=opened.max_memory,
            progress=heading,
        )
    if samples is not None and found.kl is None:
        say(f"codes of {model.name} are points: --samples {samples} had no effect")
    if as_json:
        show_json({"folder": str(opened.folder), "split": split, "seed": seed, **found.to_json()})
        return
    show(_table(found), _space(found))
    say_next(command("evaluate", opened.folder, *model_words(type(model))))


def _table(found: "Likelihood") -> object:
    from rich.table import Table

    table = Table("interactions", "by", "perplexity", "95 % interval", "nats per user")
    for part, of_part in (("whole rows", found.rows), ("targets given the fold-in", found.targets)):
        for name, one in of_part.items():
            between = "-" if isnan(one.low) else f"{one.low:,.1f} to {one.high:,.1f}"  # one user has no interval
            value, nats = ("-" if isnan(number) else f"{number:,.1f}" for number in (one.value, one.nats))
            table.add_row(part, name, value, between, nats)
    return table


def _space(found: "Likelihood") -> str:
    from recvae.display import plural

    text = f"{plural(found.n_users, 'user')}; active units: {found.active_units} of {found.latent_dim}"
    if found.kl is None or found.mutual_information is None:
        return f"{text}; codes are points, so whole rows have no probability"
    if not found.rows:
        text += (
            "; whole rows have no probability, since this run does not hold its prior (one of an earlier version must "
            "be trained again)"
        )
    return (
        f"{text}; KL from N(0, I): {found.kl:.1f} nats; codes tell {found.mutual_information:.2f} of at most "
        f"{found.most_information:.2f} nats of who the user is"
    )
