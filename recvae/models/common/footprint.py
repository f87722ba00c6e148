"""What training and scoring a network take in memory, counted from its parameters without allocating any.

Training holds the weights, Adam's two moments, and the best weights so far (on the host, twice while new ones take
their place); an update adds a gradient of each weight that learns and blocks of batch x items. Tests hold the figures
against what is really taken, on the CPU.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from recvae.compute.memory import Needs, allowed_on, check_memory, enough_bytes, rows_within
from recvae.models.common.item_networks import ItemNetwork
from recvae.models.common.networks import TiedLinear
from recvae.training.batches import PIECE, RESIDENT_BYTES, SparseRows

RANKING_BYTES = 22
"""Bytes per item and user while equal scores are ordered by column, without the scores themselves."""

_FLOAT = 4  # bytes
_BLOCKS = {"multinomial": 1.3, "bernoulli": 2.5, "gaussian": 4.5}  # logits, their gradient, what lies between
_OF_WIDTHS = 4  # values of each hidden unit and user: before and after its nonlinearity, with gradients
_BATCH_BYTES = 60  # of an interaction in a batch
_CUTTING_BYTES = 44  # of an interaction of a piece, while the rows are made that batches are cut from


def blocks_of(likelihood: str) -> float:
    """Return how many blocks of batch x items an update has at its peak, by likelihood."""
    return _BLOCKS[likelihood]


def ranking_bytes(n_items: int, blocks: float = 1.0) -> int:
    """Return the bytes that scoring and ranking take for each user.

    Parameters
    ----------
    n_items : int
        Scores of a user.
    blocks : float
        Blocks of users x items that a model has at a time while it scores.
    """
    return int((_FLOAT * blocks + RANKING_BYTES) * n_items)


def scoring_rows(needs: Needs, name: str, limit: int, most: int) -> int:
    """Return how many users to score at a time.

    Parameters
    ----------
    needs : Needs
        Of the model.
    name : str
        Of the model, for messages.
    limit : int
        Bytes that may be taken.
    most : int
        Users at a time where memory is no matter.

    Raises
    ------
    MemoryLimitError
        If not even one user fits.
    """
    least = f"raise it to {enough_bytes(needs.scoring)}, the least it works with"
    check_memory(needs.scoring, limit, f"scoring with {name}, one user at a time,", least)
    return rows_within(limit, needs.weights, needs.per_user, most)


@dataclass(frozen=True, kw_only=True)
class BatchFootprint:
    """What a batch takes in memory, without the weights and widths of the network.

    Parameters
    ----------
    blocks : float
        Blocks of users x items of float32 at the peak of an update.
    scoring_blocks : float
        The same while scoring.
    more : int
        Further bytes that an update takes.
    row_wise : bool
        Whether gradients of the item layers have only the rows of a batch, which `more` counts.
    gradients_again : int
        Gradients of item layers for which a CPU takes new room, beside that of the gradients before: where there is no
        block of users x items to fill that room, small tensors of the loss come to lie in it.
    """

    blocks: float
    scoring_blocks: float = 1.2
    more: int = 0
    row_wise: bool = False
    gradients_again: int = 0


def network_needs(
    network: ItemNetwork,
    prior: nn.Module | None,
    batch: BatchFootprint,
    *,
    n_users: int,
    n_interactions: int,
    batch_size: int,
    averaged: bool,
    on_gpu: bool,
) -> Needs:
    """Return what a network needs.

    Parameters
    ----------
    network : ItemNetwork
        What is trained and kept, on any device, e.g. "meta".
    prior : Module, optional
        What only training has.
    batch : BatchFootprint
        What an update and scoring take.
    n_users, n_interactions : int
        Of the training data.
    batch_size : int
        Users per update.
    averaged : bool
        Whether there is a running mean of the weights.
    on_gpu : bool
        Whether it computes on a GPU.
    """
    n_items = network.n_items
    kept = _bytes_of(network)
    weights = kept + (_bytes_of(prior) if prior is not None else 0)
    learned = kept + (_bytes_of(prior, learned=True) if prior is not None else 0)
    mean = weights if averaged else 0
    rows = SparseRows.bytes_for(n_users, n_interactions)
    resident = not on_gpu or rows <= RESIDENT_BYTES
    users = min(batch_size, n_users)
    of_items = getattr(network.output, "bias", None)
    widths = sum(p.numel() for p in network.parameters() if p.dim() == 1 and p is not of_items)  # one bias per unit
    update = int(_FLOAT * users * (batch.blocks * n_items + _OF_WIDTHS * widths)) + batch.more
    update += _BATCH_BYTES * users * n_interactions // max(n_users, 1)
    if not (on_gpu or batch.row_wise):
        update += _FLOAT * batch.gradients_again * network.output.weight.numel()
    if isinstance(network.output, TiedLinear) and not batch.row_wise:
        update += _FLOAT * network.output.weight.numel()  # two gradients until they are added up
    idle = weights + 2 * learned + mean + (rows if resident else 0)  # after an epoch's updates
    state = idle + (0 if batch.row_wise else learned)
    per_user = ranking_bytes(n_items, batch.scoring_blocks)
    scoring = idle + mean + per_user  # with the mean in their place, the weights are set aside
    cutting = rows + _CUTTING_BYTES * min(n_interactions, PIECE)
    common = {"parameters": kept // _FLOAT, "weights": kept, "per_user": per_user}
    if on_gpu:  # where a checkpoint is written, all that the GPU holds is there once more
        host = max(2 * weights, weights + weights + 2 * learned + mean) + (0 if resident else rows)
        training = max(state + update, scoring)
        return Needs(training=training, held=idle + mean, host=max(host, cutting), **common)
    training = max(state + weights + update, idle + mean + 2 * weights, scoring + weights, weights + cutting)
    return Needs(training=training, held=idle + mean + weights, **common)


def check_batches(
    needs: Callable[[int], Needs],
    batch: int,
    limit: int | None,
    device: torch.device,
    what: str,
    smaller: str,
    others: Mapping[str, Needs],
) -> None:
    """Refuse a network that does not fit, and say with which limit, batches or other settings it would.

    Parameters
    ----------
    needs : callable
        Users per update -> what the network needs.
    batch : int
        Users per update, >= 1.
    limit : int, optional
        Bytes allowed on the host, and on a GPU; None for what is free.
    device : torch.device
        Where it is to be trained.
    what, smaller : str
        For the message: what needs memory, and what could be made smaller if batches cannot.
    others : mapping of str to Needs
        What the network would need with other settings and the same batches, by what to set.

    Raises
    ------
    MemoryLimitError
        With both figures and what would fit.
    """
    host = torch.device("cpu")

    def places(found: Needs) -> list[tuple[int, torch.device]]:
        return [(found.training, device), *([(found.host, host)] if device != host else [])]

    def fits(found: Needs) -> bool:
        return all(n_bytes <= allowed_on(place, limit) for n_bytes, place in places(found))

    if fits(needs(batch)):
        return
    fitting, too_many = 0, batch
    while too_many - fitting > 1:
        middle = (fitting + too_many) // 2
        fitting, too_many = (middle, too_many) if fits(needs(middle)) else (fitting, middle)
    least, with_one = (enough_bytes(max(n_bytes for n_bytes, _ in places(needs(n_users)))) for n_users in (batch, 1))
    ways = [f"raise --max-memory to {least}"] if limit is not None else []
    ways += [f"set {change}" for change, found in others.items() if fits(found)]
    if fitting:
        ways.append(f"set batch_size={fitting}")
    else:
        also = f"even batch_size=1 takes {with_one}: " if with_one != least else ""
        ways.append(also + smaller)
    for n_bytes, place in places(needs(batch)):
        check_memory(n_bytes, limit, f"{what} in batches of {batch:,} users", ", or ".join(ways), place)


def _bytes_of(module: nn.Module, learned: bool = False) -> int:
    """Return the bytes of all parameters, or of those that learn."""
    return sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad or not learned)
