"""`recvae plan --ranks`: what each of several processes needs and sends, whether they share users or items."""

from typing import TYPE_CHECKING, Any

from recvae_cli.console import show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recvae.datasets.dataset import Dataset
    from recvae.models.common.base import Model
    from recvae.runs.sharing_plans import SharePlan

    Shares = dict[str, list[SharePlan]]


def planned_shares(
    models: "Sequence[Model]", dataset: "Dataset", ranks: int, device: str, max_memory: int | None
) -> "Shares":
    """Return both ways to share each model, by its name."""
    from recvae.runs.sharing_plans import plan_shares

    return {model.name: plan_shares(model, dataset, ranks, device=device, max_memory=max_memory) for model in models}


def shares_as_json(shares: "Shares") -> list[dict[str, Any]]:
    """Return them as JSON has them."""
    return [
        {
            "model": name,
            "share": found.share,
            "ranks": found.ranks,
            "weights_bytes": found.weights,
            "adam_bytes": found.moments,
            "training_bytes": None if found.needs is None else found.needs.training,
            "host_bytes": None if found.needs is None else found.needs.host,
            "bytes_added_up_per_update": found.added_up,
            "fits": found.fits,
            "obstacle": found.obstacle,
        }
        for name, plans in shares.items()
        for found in plans
    ]


def shares_that_fit(shares: "Shares") -> dict[str, str]:
    """Return how to share each model that can be: the way that sends less, users where that is not known."""
    from recvae.runs.sharing_plans import lightest

    return {name: found.share for name, plans in shares.items() if (found := lightest(plans)) is not None}


def print_shares(shares: "Shares", ranks: int) -> None:
    """Print a table of what can be shared, and for each model which way sends less and which fits."""
    from rich.table import Table

    from recvae.compute.memory import human_bytes
    from recvae.runs.sharing_plans import fewer_bytes

    table = Table()
    for heading in ("model", "share", "weights", "Adam", "at the peak", "added up in an update", "fits"):
        table.add_column(heading, justify="left" if heading in ("model", "share", "fits") else "right")
    able = {name: plans for name, plans in shares.items() if any(found.needs for found in plans)}
    for name, plans in able.items():
        for found in plans:
            if found.needs is not None:
                figures = (found.weights, found.moments, found.needs.training, found.added_up)
                words = ["-" if figure is None else human_bytes(figure) for figure in figures]
                table.add_row(name, found.share, *words, "yes" if found.fits else "no")
    if able:
        show(f"each of {ranks} processes (recvae train --share users, or items)", table)
        show("fits: with the memory that is free here for each process; those of one machine share it")
    for name, plans in shares.items():
        if name in able:
            show(f"{name} with {ranks} processes: {fewer_bytes(plans)}")
        for found in plans:
            if not found.fits and (found.needs is not None or len(shares) == 1):
                show(found.obstacle)
