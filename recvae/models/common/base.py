"""What every model is: hyperparameters in, fitted on sparse rows, scores and ranked items out.

A model of your own states a name, a paper, `_fit` and `_score_block`; what it learns are fields made by `learned`.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp
import torch

from recvae.compute.devices import resolve_device
from recvae.compute.forks import compute_on_after_forks
from recvae.compute.memory import Needs, check_memory
from recvae.errors import UsageError
from recvae.interactions import HeldOut
from recvae.metrics import Metric
from recvae.models.common.described import Described
from recvae.models.common.fit_options import FitOptions
from recvae.models.common.fitted_on import FittedOn, check_parts_data, training_data
from recvae.models.common.footprint import ranking_bytes
from recvae.models.common.hyperparameters import Space, check_hyperparameters
from recvae.models.common.learned import check_fields, check_learned, learned_arrays, load_learned_arrays, parameters_in
from recvae.models.common.scoring import ScoringModel, refuse_own_code
from recvae.models.common.sharing import check_alike, check_can_share
from recvae.models.common.streaming import check_fits, checked_rows
from recvae.training.checkpoints import Checkpoint
from recvae.training.details import watched
from recvae.training.records import Monitor, NullMonitor, StopTraining, TrainingSummary
from recvae.training.refits import Course
from recvae.training.validation import OBJECTIVE, check_objective, objective

if TYPE_CHECKING:  # a service loads models without what prepares data
    from recvae.datasets.dataset import Dataset

compute_on_after_forks()  # models are what computes on several threads

FEWER_ITEMS = "or leave out rare items (recvae preprocess --min-item-users)"


@dataclass(kw_only=True)
class Model(Described, ScoringModel):
    """A recommender on integer columns: fields are hyperparameters, learned state ends in an underscore.

    The constructor only stores; `fit` checks. No model knows user ids: a user is a row of interactions.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    space: ClassVar[Space] = {}
    """Where to look for good hyperparameters."""

    grid: ClassVar[Space] = {}
    """What is tried, whole, when the model is a baseline; empty: `space`, where that has values alone."""

    roles: ClassVar[tuple[str, ...]] = ()
    """Hyperparameters that name other runs, whose models become `parts`."""

    retired: ClassVar[tuple[str, ...]] = ()
    """Hyperparameters of earlier versions that had no effect; in bundles they are ignored."""

    earlier: ClassVar[Mapping[str, Any]] = {}
    """What models of earlier versions did that had not these hyperparameters yet; bundles and runs are read so."""

    grows_with: ClassVar[str] = "users"
    """What to take a part of, users or items, to see how long a closed form takes on all of them."""

    grows_as: ClassVar[tuple[int, int]] = (0, 1)
    """Powers of that part which the time of a closed form is a sum of."""

    shares_users: ClassVar[bool] = False
    """Whether several processes can train it, each with a part of the users; each class says so itself. A network has a
    part of every batch: its loss must be a mean over users, with the noise of `recvae.training.draws`."""

    shares_items: ClassVar[bool] = False
    """The same, each with the weights of a part of the items, for networks that no process holds."""

    streams: ClassVar[bool] = False
    """Whether it can be fitted to a `StreamedMatrix`, whose rows are never all in memory."""

    parts: dict[str, "Model"] = field(default_factory=dict, repr=False, compare=False)
    """The models this one is made of, by role; none for most."""

    stop_: StopTraining | None = field(default=None, init=False, repr=False, compare=False)
    """What its monitor ended the last fit with before there was anything to keep."""

    fitted_on_: FittedOn | None = field(default=None, init=False, repr=False, compare=False)
    """What it keeps of the data set it was fitted on; None of a plain matrix, and of a bundle, which has it."""

    def check_together(self) -> None:
        """Refuse hyperparameters that are each allowed, but not with one another; nothing to refuse for most models.

        Raises
        ------
        UsageError
            For the first that does not fit, with what to set instead.
        """

    @classmethod
    def check_libraries(cls) -> None:
        """Refuse to continue without a library that only this model needs; most need none.

        Raises
        ------
        UsageError
            If it cannot be imported, with the command that installs it.
        """

    @property
    def needs_all_items(self) -> str | None:
        """Which of its settings needs all items in one process, so that several cannot share them; None: no setting."""
        return None

    @property
    def uses_device(self) -> bool:
        """Whether it computes on the device that `fit` is given; if not, it uses the CPU."""
        return False

    @abstractmethod
    def _fit(self, train: sp.csr_matrix, validation: HeldOut | None, options: FitOptions) -> StopTraining | None:
        """Learn from checked interactions, forgetting earlier fits; what is kept goes into fields made by `learned`.

        Parameters
        ----------
        train : csr_matrix of shape (n_users, n_items), float32
            Training interactions.
        validation : HeldOut, optional
            Users to choose the best epoch by.
        options : FitOptions
            Where, followed by which monitor, within which memory.

        Returns
        -------
        StopTraining or None
            What the monitor returned, if that ended it before there was anything to keep; None once it is fitted.
        """

    def fit(
        self,
        train: "sp.csr_matrix | Dataset",
        validation: HeldOut | tuple[Any, Any] | None = None,
        *,
        device: str | torch.device = "auto",
        monitor: Monitor | None = None,
        checkpoint: Checkpoint | None = None,
        max_memory: int | None = None,
        course: Course | None = None,
        select_by: str | Metric = OBJECTIVE,
    ) -> Self:
        """Learn from training interactions, forgetting earlier fits.

        Parameters
        ----------
        train : Dataset, or sparse matrix of shape (n_users, n_items)
            Of a data set, its training rows and its validation users; the model keeps the ids and titles of the items.
            Rows that stay on disk (`Dataset.load(..., stream=True)`) are for models with `streams`.
            Stored entries of a matrix are interactions, values are weights > 0 (1 for implicit feedback).
        validation : HeldOut or tuple of two sparse matrices, optional
            With a matrix: users with fold-in and targets, to choose the best epoch by.
        device : str or torch.device
            "auto", "cpu" or "cuda"; models without a network always use the CPU.
        monitor : Monitor, optional
            Follows the run, and may stop it.
        checkpoint : Checkpoint, optional
            Where to keep the state after each epoch; models without epochs do not need one.
        max_memory : int, optional
            Bytes that fitting may take, on the host and on a GPU each; by default what is free. It decides whether the
            model is fitted and how many users are scored at a time, not what it learns.
        course : Course, optional
            How many epochs to train, where another run has chosen that; models without epochs do not need it.
        select_by : str or Metric
            What the validation users choose by, written `name@k`: the epoch of a network, the weight of a blend. See
            `recvae.metrics`; your own as a `Metric`, or MODULE:FUNCTION@K.

        Returns
        -------
        Model
            Itself; not fitted where its monitor stopped it before there was anything to keep.

        Raises
        ------
        UsageError
            If a hyperparameter has the wrong type or is out of range, there is no such device, nothing can be chosen
            by the metric, validation users were given with a data set, or a path or table in its place.
        DataError
            If the interactions are not a sparse matrix of finite weights, or a part was fitted on other data.
        MemoryLimitError
            If it does not fit into memory; see `check_memory`.
        TrainingError
            If training failed; a network then has the weights of its best epoch, if one was finished.
        """
        check_fields(self)
        check_hyperparameters(self)
        check_can_share(self)
        self.check_libraries()
        train, validation, data = training_data(train, validation)
        train = checked_rows(type(self), train)
        held_out = None if validation is None else HeldOut.of(validation, train.shape[1])
        place = resolve_device(device) if self.uses_device else torch.device("cpu")
        options = FitOptions(
            device=place,
            monitor=monitor or NullMonitor(),
            checkpoint=checkpoint,
            max_memory=max_memory,
            course=course,
            select_by=objective(select_by),
        )
        check_objective(options.select_by, held_out, train)
        self._check_parts(train, held_out)
        check_parts_data(self.parts, data)
        check_fits(self, train, place, max_memory)
        check_alike(self, train, held_out, options.select_by, place)
        self.n_items_, self.fitted_on_ = 0, data  # not fitted until it has ended well
        try:
            with watched(options.monitor, self):
                self.stop_ = self._fit(train, held_out, options)
        except Exception as error:
            refuse_own_code(self, "_fit", error)
            raise
        if not isinstance(self.stop_, StopTraining | None):
            found, self.stop_, self.n_items_ = type(self.stop_).__name__, None, 0
            raise UsageError(f"got {found} from {type(self).__name__}._fit, expected None; let it return nothing")
        if self.stop_ is None:
            if type(self).weights is Model.weights:
                check_learned(self, train.shape[1])
            self.n_items_ = train.shape[1]
        return self

    def _check_parts(self, train: sp.csr_matrix, validation: HeldOut | None) -> None:
        """Refuse to fit what is made of other models and misses some."""

    def weights(self) -> dict[str, np.ndarray]:
        """Return everything learned as named arrays, enough for `load_weights`.

        Returns
        -------
        dict of str to ndarray
            By default the fields made by `learned`, without the last underscore of their names; a sparse matrix as its
            parts `NAME.data`, `NAME.indices` and `NAME.indptr`.

        Raises
        ------
        NotFittedError
            Before `fit`.
        """
        self.check_fitted()
        return learned_arrays(self)

    def count_parameters(self) -> int:
        """Return how many numbers were learned, as tables of results have it.

        Raises
        ------
        NotFittedError
            Before `fit`.
        """
        return parameters_in(self, self.weights())

    def load_weights(self, weights: Mapping[str, np.ndarray], device: str | torch.device = "cpu") -> Self:  # noqa: ARG002
        """Load what `weights` returned, instead of fitting.

        Parameters
        ----------
        weights : mapping of str to ndarray
            Arrays by name.
        device : str or torch.device
            Where to score.

        Returns
        -------
        Model
            Itself, fitted.

        Raises
        ------
        KeyError, ValueError, RuntimeError
            If arrays are missing or have the wrong shape.
        """
        self.n_items_ = load_learned_arrays(self, weights)
        return self

    def needs(self, n_users: int, n_items: int, n_interactions: int, *, on_gpu: bool = False) -> Needs:  # noqa: ARG002
        """Return what the model takes with its present hyperparameters, without allocating it.

        Parameters
        ----------
        n_users, n_items, n_interactions : int
            Of the training data.
        on_gpu : bool
            Whether a network computes on a GPU.

        Returns
        -------
        Needs
            Bytes, without the program and the data set.
        """
        return Needs(parameters=0, training=0, held=0, weights=0, per_user=ranking_bytes(n_items))

    def scoring_needs(self, n_items: int) -> Needs:
        """Return what scoring takes with so many items; of `Needs`, only what concerns scoring counts.

        Parameters
        ----------
        n_items : int
            Columns of a user's row.
        """
        return self.needs(0, n_items, 0)

    def check_memory(
        self,
        n_users: int,
        n_items: int,
        n_interactions: int,
        device: str | torch.device = "cpu",
        *,
        max_memory: int | None = None,
    ) -> None:
        """Refuse to fit what does not fit into memory, before anything is allocated.

        Parameters
        ----------
        n_users, n_items, n_interactions : int
            Of the training data.
        device : str or torch.device
            Where a network is trained.
        max_memory : int, optional
            Bytes allowed, on the host and on a GPU each; by default what is free.

        Raises
        ------
        MemoryLimitError
            If it needs more than that; with both figures and what to do instead.
        """
        device = torch.device(device)
        needs = self.needs(n_users, n_items, n_interactions, on_gpu=device.type == "cuda")
        check_memory(
            needs.training, max_memory, f"{self.name} on {n_items:,} items", f"raise --max-memory, {FEWER_ITEMS}"
        )

    def gather(self, path: Path | None = None, file_bytes: int | None = None) -> bool:  # noqa: ARG002  (of networks whose items are shared)
        """Whether this process has the whole model, as it does of most; see `NetworkWeights.gather`."""
        return True

    def training_summary(self) -> TrainingSummary:
        """Return how the last fit went, for the bundle; nothing is set for a model without epochs."""
        return TrainingSummary()
