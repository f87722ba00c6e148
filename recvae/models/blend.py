"""A weighted sum of two fitted models' scores, each standardised per user, the weight chosen on validation.

    s_u = weight z(a_u) + (1 - weight) z(b_u),  z(a)_i = (a_i - mean(a)) / std(a) over all items

Scores of different models have different scales, and different ones for each user; after standardising, a weight
means the same for everyone. A blend may itself be part of a blend.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn

from recvae.compute.memory import Needs, in_blocks, rows_within
from recvae.errors import DataError, UsageError
from recvae.interactions import HeldOut
from recvae.models.common.base import Model
from recvae.models.common.fit_options import FitOptions
from recvae.models.common.footprint import ranking_bytes
from recvae.models.common.hyperparameters import hyperparameter
from recvae.ranking import block_rows, rank
from recvae.training.records import StopTraining, TrainingSummary
from recvae.training.validation import background_for

# Letters in shape comments: I items, B users of a block.

WEIGHTS = tuple(round(0.05 * step, 2) for step in range(21))
"""The weights tried on validation."""


@dataclass(kw_only=True)
class Blend(Model):
    """A weighted sum of the scores of two models.

    Examples
    --------
    >>> from recvae.models.ease import EASE
    >>> from recvae.models.popularity import Popularity
    >>> train = sp.csr_matrix(np.kron(np.eye(2), np.ones((20, 5))))
    >>> model = Blend.of(EASE(l2=1.0), Popularity(), weight=0.8).fit(train)
    >>> sorted(model.recommend(sp.csr_matrix([[1, 1, 1, 0, 0, 0, 0, 0, 0, 0]]), k=2)[0][0].tolist())
    [3, 4]
    """

    name: ClassVar[str] = "blend"
    streams: ClassVar[bool] = True
    paper: ClassVar[str] = "A weighted sum of two runs' scores, standardised per user"
    roles: ClassVar[tuple[str, ...]] = ("first", "second")

    first: str = hyperparameter("", "the first run, weighted by `weight`")
    second: str = hyperparameter("", "the second run, weighted by 1 - `weight`")
    weight: float | None = hyperparameter(None, "weight of the first run; none: chosen on validation", low=0, high=1)

    parts_: dict[str, Model] = field(default_factory=dict, init=False, repr=False, compare=False)
    weight_: float = field(default=0.5, init=False, repr=False, compare=False)
    summary_: TrainingSummary = field(default_factory=TrainingSummary, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, first: Model, second: Model, weight: float | None = None) -> Self:
        """Blend two models; those not fitted yet are fitted first, on the same training users.

        Parameters
        ----------
        first, second : Model
            Fitted on the same items, or still to be fitted.
        weight : float, optional
            Share of the first, in [0, 1]; None chooses it on validation.

        Returns
        -------
        Blend
            To be fitted.
        """
        return cls(first=first.name, second=second.name, weight=weight, parts={"first": first, "second": second})

    @property
    def uses_device(self) -> bool:
        """Whether it computes on the device that `fit` is given: if a part does."""
        return any(part.uses_device for part in self.parts.values())

    def _check_parts(self, train: sp.csr_matrix, validation: HeldOut | None) -> None:  # noqa: ARG002
        """Refuse a blend that has not two parts, or nothing to choose its weight by."""
        if set(self.parts) != set(self.roles):
            raise UsageError(
                "got a blend without two runs, expected both; use --set first=RUN --set second=RUN, "
                "or Blend.of(model, model)"
            )
        if self.weight is None and (validation is None or not validation.has_targets):
            raise UsageError(
                "got weight=None and no validation user with a target to choose it by; set a weight in [0, 1]"
            )

    def _fit(self, train: sp.csr_matrix, validation: HeldOut | None, options: FitOptions) -> StopTraining | None:
        """Fit the parts that are not fitted yet, and choose the weight.

        Raises
        ------
        DataError
            If a part was fitted on another number of items.
        """
        self.parts_ = {}
        for name, part in self.parts.items():
            fitted = part
            if not part.n_items_:
                fitted = replace(part).fit(
                    train,
                    validation,
                    device=options.device,
                    max_memory=options.max_memory,
                    select_by=options.select_by,
                )
            if fitted.n_items_ != train.shape[1]:
                raise DataError(
                    f"the {name} part of the blend has {fitted.n_items_:,} items, the training data have "
                    f"{train.shape[1]:,}; blend models of the same data set"
                )
            self.parts_[name] = fitted
        return self._choose_weight(train, validation, options)

    def _choose_weight(
        self, train: sp.csr_matrix, held_out: HeldOut | None, options: FitOptions
    ) -> StopTraining | None:
        """Use the weight as given, or the best of `WEIGHTS` on validation, unless the monitor stops that."""
        tried: dict[float, float] | StopTraining = {}
        if self.weight is not None:
            options.monitor.start(1, [])
            self.weight_ = self.weight
            options.monitor.advance(1, None)
        else:
            assert held_out is not None  # `_check_parts` has refused it
            tried = self._means_by_weight(train, held_out, options)
            if isinstance(tried, StopTraining):
                return tried
            self.weight_ = max(tried, key=tried.__getitem__)
        by_weight = {str(weight): mean for weight, mean in tried.items()}
        select_by = options.select_by.path if by_weight else None
        self.summary_ = TrainingSummary(weight=self.weight_, tried=by_weight or None, select_by=select_by)
        return None

    def _means_by_weight(
        self, train: sp.csr_matrix, held_out: HeldOut, options: FitOptions
    ) -> dict[float, float] | StopTraining:
        """Return what the validation users choose by, for each weight; each part scores each user once."""
        metric = options.select_by
        known = background_for([metric], held_out, train)
        options.monitor.start(held_out.n_users, [])
        values: dict[float, list[np.ndarray]] = {weight: [] for weight in WEIGHTS}
        n_items = held_out.fold_in.shape[1]
        needs = self.scoring_needs(n_items)
        rows = rows_within(options.max_memory, needs.held, needs.per_user, block_rows(n_items))

        stop: StopTraining | None = None

        def work(start: int, end: int) -> None:
            nonlocal stop
            if stop is not None:
                return
            fold_in, targets = held_out.fold_in[start:end], held_out.targets[start:end]
            background = None if known is None else known.of_users(start, end)
            first, second = self._standardised(fold_in)  # (B, I), (B, I)
            found = [rank(_mix(first.clone(), second, w), metric.k, seen=fold_in)[0] for w in values]
            for of_users, ranked in zip(values.values(), found, strict=True):  # all of a block, or none
                of_users.append(metric.per_user(ranked, targets, background))
            stop = options.monitor.advance(end, None)

        in_blocks(held_out.n_users, rows, work)
        if stop is not None:
            return stop
        return {weight: float(np.nanmean(np.concatenate(of_users))) for weight, of_users in values.items()}

    def _standardised(self, user_items: sp.csr_matrix) -> tuple[torch.Tensor, torch.Tensor]:
        first, second = (standardise(self.parts_[role].scores_of(user_items)) for role in self.roles)
        return first, second.to(first.device)

    @property
    def has_similarities(self) -> bool:
        """Whether `similarities` works: if both parts have similarities."""
        return self._all_parts(lambda part: part.has_similarities)

    @property
    def is_exportable(self) -> bool:
        """Whether `scorer` works: if both parts can be exported."""
        return self._all_parts(lambda part: part.is_exportable)

    def _all_parts(self, can: Callable[[Model], bool]) -> bool:
        parts = self.parts_ or self.parts
        return set(parts) == set(self.roles) and all(map(can, parts.values()))

    def similarities(self, columns: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
        """Return those of the parts, standardised and weighted as scores are; see `Model.similarities`."""
        self.check_fitted()
        first, second = (standardise(torch.tensor(self.parts_[r].similarities(columns))) for r in self.roles)
        mixed = _mix(first, second, self.weight_).numpy()  # (C, I)
        return mixed if others is None else mixed[:, others]

    def _score_block(self, user_items: sp.csr_matrix) -> torch.Tensor:
        return _mix(*self._standardised(user_items), self.weight_)  # (B, I)

    def scorer(self) -> nn.Module:
        """Return those of the parts, standardised and mixed; see `Model.scorer`."""
        self.check_fitted()
        return _BlendScorer(self.parts_["first"].scorer(), self.parts_["second"].scorer(), self.weight_)

    def needs(self, n_users: int, n_items: int, n_interactions: int, *, on_gpu: bool = False) -> Needs:
        """Add up the parts: those fitted already are only used, the others are fitted first; see `Model.needs`."""
        size = (n_users, n_items, n_interactions)
        parts = [(part, part.needs(*size, on_gpu=on_gpu)) for part in (self.parts_ or self.parts).values()]
        weights = sum(needs.weights for _, needs in parts)
        per_user = sum(needs.per_user for _, needs in parts) + ranking_bytes(n_items)
        at_work = [needs.weights if part.n_items_ else max(needs.training, needs.weights) for part, needs in parts]
        return Needs(
            parameters=sum(needs.parameters for _, needs in parts),
            training=sum(at_work) + per_user,
            held=weights,
            host=sum(needs.host for part, needs in parts if not part.n_items_),
            weights=weights,
            per_user=per_user,
        )

    def training_summary(self) -> TrainingSummary:
        """Return which weight was chosen, and what each reached; see `Model.training_summary`."""
        return self.summary_

    def weights(self) -> dict[str, np.ndarray]:
        """Return the weight and the arrays of both parts, with the part's name before theirs; see `Model.weights`."""
        self.check_fitted()
        arrays = {f"{part}/{name}": a for part, model in self.parts_.items() for name, a in model.weights().items()}
        return {"weight": np.array([self.weight_], dtype=np.float64), **arrays}

    def count_parameters(self) -> int:
        """Return those of both parts; see `Model.count_parameters`."""
        self.check_fitted()
        return sum(part.count_parameters() for part in self.parts_.values())

    def load_weights(self, weights: Mapping[str, np.ndarray], device: str | torch.device = "cpu") -> Self:
        """Load the arrays of both parts; see `Model.load_weights`."""
        if weights["weight"].shape != (1,):
            raise ValueError(f"a weight of shape {weights['weight'].shape} is not one number")
        self.weight_ = float(weights["weight"][0])
        if set(self.parts) != set(self.roles):
            raise KeyError(f"a blend of {', '.join(self.parts) or 'nothing'}, not of {' and '.join(self.roles)}")
        self.parts_ = {}
        for part, model in self.parts.items():
            prefix = f"{part}/"
            arrays = {name.removeprefix(prefix): a for name, a in weights.items() if name.startswith(prefix)}
            self.parts_[part] = replace(model).load_weights(arrays, device)
        self.n_items_ = self.parts_["first"].n_items_
        return self


class _BlendScorer(nn.Module):
    """The standardised scores of two scorers, mixed."""

    def __init__(self, first: nn.Module, second: nn.Module, weight: float) -> None:
        super().__init__()
        self.first, self.second, self.weight = first, second, weight

    def forward(self, items: torch.Tensor, offsets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        first, second = (standardise(part(items, offsets, weights)) for part in (self.first, self.second))  # (B, I)
        return _mix(first, second, self.weight)


def _mix(first: torch.Tensor, second: torch.Tensor, weight: float) -> torch.Tensor:
    """Return the weighted sum, in the memory of the first."""
    return first.mul_(weight).add_(second, alpha=1 - weight)


def standardise(scores: torch.Tensor) -> torch.Tensor:
    """Return the scores of each user with mean 0 and standard deviation 1 over all items.

    Parameters
    ----------
    scores : Tensor of shape (n_users, n_items)
        Of one model; may be overwritten.
    """
    scores = scores.sub_(scores.mean(dim=1, keepdim=True))
    deviation = scores.square().mean(dim=1, keepdim=True).sqrt()  # (B, 1)
    return scores.div_(torch.where(deviation > 0, deviation, 1.0))
