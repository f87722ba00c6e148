"""How a model is fitted, as `fit` hands it on to `_fit`."""

from dataclasses import dataclass

import torch

from recvae.metrics import Metric
from recvae.training.checkpoints import Checkpoint
from recvae.training.records import Monitor
from recvae.training.refits import Course
from recvae.training.validation import OBJECTIVE


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How a model is fitted.

    Parameters
    ----------
    device : torch.device
        Where to compute; the CPU for a model that uses no device.
    monitor : Monitor
        Follows the run.
    checkpoint : Checkpoint or None
        Where to keep the state after each epoch.
    max_memory : int or None
        Bytes that fitting may take, on the host and on a GPU each; None for what is free.
    course : Course or None
        How many epochs to train, where another run has chosen that; None for a model to choose.
    select_by : Metric
        What the validation users choose by: the highest mean of it is the best.
    """

    device: torch.device
    monitor: Monitor
    checkpoint: Checkpoint | None = None
    max_memory: int | None = None
    course: Course | None = None
    select_by: Metric = OBJECTIVE
