"""A run's state after an epoch, on disk, so that a killed run continues as if nothing had happened.

One safetensors file: tensors by name, everything else as JSON in its header. Nothing is executed on load.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from recvae.compute.ranks import Ranks
from recvae.errors import BundleError
from recvae.storage.files import write_file
from recvae.storage.streams import NAMES

FILE_NAME = "checkpoint.safetensors"
FORMAT_VERSION = 3
_UNREADABLE = (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError)
_TYPES = {kind: dtype for dtype, kind in NAMES.items()}

Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Everything the next epoch depends on.

    Parameters
    ----------
    weights, best_weights : dict of str to Tensor
        State of the network now, and at its best validation.
    average : dict of str to Tensor
        Running mean of its states, empty without one.
    optimizers : dict of str to dict of int to dict of str to Tensor
        State of each phase's optimiser by parameter.
    generators : dict of str to Tensor
        States of the random generators, uint8.
    progress : dict
        Counters and log records, as JSON has them.
    """

    weights: dict[str, torch.Tensor]
    best_weights: dict[str, torch.Tensor]
    average: dict[str, torch.Tensor]
    optimizers: Mapping[str, Mapping[int, Mapping[str, torch.Tensor]]]
    generators: dict[str, torch.Tensor]
    progress: dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """Where a run keeps its state, and what run it is.

    Parameters
    ----------
    path : Path
        The checkpoint file.
    identity : dict
        What must be the same to continue: model, hyperparameters, data fingerprint.
    resumes : bool
        Whether to start from what the file holds.
    earlier : mapping of str to Any
        What hyperparameters were that the file may not have; see `Model.earlier`.
    """

    path: Path
    identity: dict[str, Any]
    resumes: bool = False
    earlier: Mapping[str, Any] = field(default_factory=dict)

    def save(self, state: TrainingState) -> None:
        """Write the state, whole or not at all.

        Raises
        ------
        StorageError
            If it cannot be written; the checkpoint before it is untouched.
        """
        tensors = tensors_of(state)
        with write_file(self.path) as aside:
            save_file(tensors, aside, metadata=self.header(state))

    def header(self, state: TrainingState) -> dict[str, str]:
        """Return what the file says of a state besides its tensors."""
        return {
            "identity": json.dumps({"format": FORMAT_VERSION, **self.identity}),
            "progress": json.dumps(state.progress),
        }

    def load(self) -> TrainingState:
        """Read the state back.

        Raises
        ------
        BundleError
            If the file is missing, damaged, or belongs to another run.
        """
        return state_from(*self._read(lambda file: {name: file.get_tensor(name) for name in file.keys()}))  # noqa: SIM118

    def described(self) -> tuple[dict[str, tuple[str, list[int]]], dict[str, Any]]:
        """Return types and shapes of the tensors by name, and the progress, without reading the tensors.

        Raises
        ------
        BundleError
            See `load`.
        """

        def shapes(file: Any) -> dict[str, tuple[str, list[int]]]:
            slices = {name: file.get_slice(name) for name in sorted(file.keys())}
            return {name: (_TYPES[one.get_dtype()], list(one.get_shape())) for name, one in slices.items()}

        return self._read(shapes)

    def rows(self, name: str, start: int | None = None, end: int | None = None) -> torch.Tensor:
        """Return some rows of a tensor, or all of it.

        Raises
        ------
        BundleError
            See `load`.
        """
        return self._read(lambda file: file.get_slice(name)[start:end] if end else file.get_tensor(name))[0]

    def _read(self, what: Callable[[Any], Found]) -> tuple[Found, dict[str, Any]]:
        """Return what is asked for of the open file, and the progress."""
        try:
            with safe_open(self.path, framework="pt") as file:
                header = file.metadata()
                identity, progress = json.loads(header["identity"]), json.loads(header["progress"])
                found = what(file)
            wanted = json.loads(json.dumps({"format": FORMAT_VERSION, **self.identity}))
            different = [key for key in wanted if self._known(identity.get(key), wanted[key]) != wanted[key]]
        except FileNotFoundError as error:
            raise BundleError(f"no checkpoint at {self.path}; train without --resume") from error
        except _UNREADABLE as error:
            raise BundleError(f"{self.path} is damaged ({error}); train again without --resume") from error
        if different:
            known = {key: identity.get(key) for key in different}
            expected = {key: wanted[key] for key in different}
            raise BundleError(
                f"{self.path} belongs to another run: it has {known}, this run has {expected}; "
                "resume with the same data and hyperparameters, or train without --resume"
            )
        return found, progress

    def _known(self, found: Any, wanted: Any) -> Any:
        """Return what was found, without hyperparameters of earlier versions only, and with those of later ones."""
        if not (isinstance(found, dict) and isinstance(wanted, dict)):
            return found
        return {name: value for name, value in {**self.earlier, **found}.items() if name in wanted}


def of_first(ranks: Ranks, state: TrainingState | None) -> TrainingState | None:
    """Return the state that the first of several processes has read, in all of them; None where it has none.

    Parameters
    ----------
    ranks : Ranks
        Which of the processes this one is.
    state : TrainingState, optional
        Of the first one; that of any other does not count.
    """
    ranks.check()
    progress = ranks.from_first(None if state is None else state.progress)
    if progress is None:
        return None
    return state_from(ranks.tensors_from_first({} if state is None else tensors_of(state)), progress)


def tensors_of(state: TrainingState) -> dict[str, torch.Tensor]:
    """Return the tensors of a state by the names that a file has for them."""
    tensors = {f"weights/{name}": value for name, value in state.weights.items()}
    tensors |= {f"best/{name}": value for name, value in state.best_weights.items()}
    tensors |= {f"average/{name}": value for name, value in state.average.items()}
    tensors |= {f"generators/{name}": value for name, value in state.generators.items()}
    for phase, parameters in state.optimizers.items():
        for parameter, values in parameters.items():
            tensors |= {f"optimizers/{phase}/{parameter}/{name}": value for name, value in values.items()}
    return {name: value.detach().contiguous() for name, value in tensors.items()}


def state_from(tensors: dict[str, torch.Tensor], progress: dict[str, Any]) -> TrainingState:
    """Return the state whose tensors have these names; see `tensors_of`."""

    def group(prefix: str) -> dict[str, torch.Tensor]:
        found = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        # Version 0.1.0 called the prior of RecVAE by another name.
        return {name.replace("old_encoder.", "prior.", 1): value for name, value in found.items()}

    optimizers: dict[str, dict[int, dict[str, torch.Tensor]]] = {}
    for name, value in group("optimizers/").items():
        phase, parameter, key = name.split("/")
        optimizers.setdefault(phase, {}).setdefault(int(parameter), {})[key] = value
    return TrainingState(
        weights=group("weights/"),
        best_weights=group("best/"),
        average=group("average/"),
        optimizers=optimizers,
        generators=group("generators/"),
        progress=progress,
    )
