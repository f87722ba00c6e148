"""A running mean of weights over epochs: steadier than the weights of any one epoch, and often better.

    mean_t = d_t mean_(t-1) + (1 - d_t) weights_t,  d_t = min(d, (t - 1) / (t + 2))

Polyak and Juditsky 1992; over epochs, Izmailov et al., UAI 2018. The growing share d_t forgets the first epochs, which
are far from anything good.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class WeightAverage:
    """The running mean of a network's weights.

    Parameters
    ----------
    network : Module
        Whose weights; its device does not change any more.
    share : float
        d, what the epochs before keep of the mean in the long run, in [0, 1); 0: the mean is the weights themselves.
    """

    def __init__(self, network: nn.Module, share: float) -> None:
        self.network, self.share = network, share
        self.mean: dict[str, torch.Tensor] = {}
        """By name; empty before the first epoch, and where there is nothing to average."""

    @torch.no_grad()
    def add(self, epoch: int) -> None:
        """Take in the weights of an epoch, counted from 1."""
        if not self.share:
            return
        if not self.mean:
            self.mean = {name: torch.empty_like(value) for name, value in self.network.state_dict().items()}
        kept = min(self.share, (epoch - 1) / (epoch + 2))
        for name, value in self.network.state_dict().items():
            if kept and value.is_floating_point():
                self.mean[name].lerp_(value, 1 - kept)
            else:
                self.mean[name].copy_(value)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Have the mean in the network within the block, and the weights as they were afterwards."""
        if not self.mean:
            yield
            return
        weights = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.mean)
        try:
            yield
        finally:
            self.network.load_state_dict(weights)
