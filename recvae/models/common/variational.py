"""What the variational autoencoders share: a KL term whose weight follows a schedule."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import scipy.sparse as sp
import torch

from recvae.errors import TrainingError, UsageError
from recvae.interactions import HeldOut
from recvae.metrics import Metric
from recvae.models.common.autoencoder import Autoencoder, NetworkT
from recvae.models.common.base import Model
from recvae.models.common.hyperparameters import hyperparameter
from recvae.models.common.streaming import checked_rows
from recvae.training.records import Monitor
from recvae.training.schedules import NAMES, Schedule, schedule, steps_of_rise
from recvae.training.validation import OBJECTIVE

_CYCLES = 4  # of a cyclical schedule, by default


@dataclass(kw_only=True)
class VariationalAutoencoder(Autoencoder[NetworkT]):
    """An autoencoder with a distribution of latent variables, held near a prior by a weighted KL term."""

    kl_weight: ClassVar[str] = "beta"
    """Name of the hyperparameter that is the highest weight of the KL term."""

    anneal: str = hyperparameter("linear", "how the weight of the KL term grows", choices=NAMES)
    anneal_fraction: float = hyperparameter(
        0.85, "part of the run (or cycle) after which the KL weight is at its maximum", low=0, high=1
    )
    anneal_steps: int | None = hyperparameter(
        None, "updates until the KL weight is at its maximum, in place of anneal_fraction", low=0
    )
    anneal_cycles: int = hyperparameter(
        _CYCLES, "number of rises of a cyclical schedule", low=1, only_with=("anneal", "cyclical")
    )

    def _schedule(self, total_updates: int) -> Schedule:
        return schedule(
            self.anneal,
            getattr(self, self.kl_weight),
            total_updates,
            self.anneal_steps,
            self.anneal_fraction,
            self.anneal_cycles,
        )


def check_has_beta(model: Model) -> None:
    """Refuse a model without a KL term weighted by beta.

    Raises
    ------
    UsageError
        If it has none.
    """
    if not isinstance(model, VariationalAutoencoder) or model.kl_weight != "beta":
        raise UsageError(f"got {model.name}, which has no beta to find; use a model that has: multvae, hvamp or vasp")


def find_beta(
    model: Model,
    train: sp.csr_matrix,
    validation: HeldOut | tuple[Any, Any],
    device: str | torch.device = "auto",
    monitor: Monitor | None = None,
    max_memory: int | None = None,
    select_by: str | Metric = OBJECTIVE,
) -> dict[str, Any]:
    """Find the cap of beta as Liang et al. 2018, section 2.2.2: anneal to 1, and note where validation is best.

    Parameters
    ----------
    model : Model
        With a hyperparameter `beta`; it is left as it is, a copy is trained.
    train : sparse matrix of shape (n_users, n_items)
        Training interactions.
    validation : HeldOut or tuple of two sparse matrices
        Users that choose.
    device : str or torch.device
        "auto", "cpu" or "cuda".
    monitor : Monitor, optional
        Follows the pilot.
    max_memory : int, optional
        Bytes that the pilot may take; see `Model.fit`.
    select_by : str or Metric
        What the best epoch is chosen by; see `Model.fit`.

    Returns
    -------
    dict
        `beta`, `anneal` and `anneal_steps` to train again with: the same slope, stopped at the best beta.

    Raises
    ------
    UsageError
        If the model has no beta, or no validation user has a target.
    TrainingError
        If validation was best while beta was still 0.
    """
    check_has_beta(model)
    assert isinstance(model, VariationalAutoencoder)
    held_out = HeldOut.of(validation, checked_rows(type(model), train).shape[1])
    if not held_out.has_targets:
        raise UsageError("got no validation user with a target to choose beta by; hold out more users")
    pilot = replace(model, beta=1.0, anneal="linear", anneal_cycles=_CYCLES, decay="none").fit(
        train, validation, device=device, monitor=monitor, max_memory=max_memory, select_by=select_by
    )
    if pilot.history_.stop is not None:
        raise TrainingError(f"the pilot was stopped ({pilot.history_.stop.reason}), so there is no beta to use")
    if pilot.history_.interrupted:
        raise KeyboardInterrupt  # half a pilot has not seen what a higher beta does
    best = pilot.log_[pilot.history_.best_epoch - 1]
    if not best.beta:
        raise TrainingError(
            "the pilot was best before beta began to grow, so there is no cap to find; "
            "train with --set beta=0, or set a smaller batch_size for more updates in an epoch"
        )
    updates = pilot.epochs * -(-train.shape[0] // pilot.users_per_update(train.shape[0]))
    steps = steps_of_rise(updates, pilot.anneal_steps, pilot.anneal_fraction)
    found = {"beta": best.beta, "anneal": "linear", "anneal_steps": round(best.beta * steps)}
    return found if model.anneal_cycles == _CYCLES else {**found, "anneal_cycles": _CYCLES}
