"""What verbs on trained runs share: runs with their data set, checked to belong together."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recvae_cli.console import imported_models, memory_limit, say

if TYPE_CHECKING:
    from recvae.bundles.bundle import Bundle
    from recvae.datasets.dataset import Dataset


@dataclass(frozen=True)
class Opened:
    """A run and its data set.

    Parameters
    ----------
    folder : Path
        The run.
    bundle : Bundle
        What it holds.
    dataset : Dataset
        What it was trained on.
    max_memory : int or None
        Bytes that scoring may take.
    """

    folder: Path
    bundle: "Bundle"
    dataset: "Dataset"
    max_memory: int | None


@dataclass(frozen=True)
class OpenedRuns:
    """Runs on one data set.

    Parameters
    ----------
    bundles : dict of str to Bundle
        What they hold, by name.
    dataset : Dataset
        What all were trained on.
    home : Path
        Where it is.
    max_memory : int or None
        Bytes that scoring may take.
    """

    bundles: "dict[str, Bundle]"
    dataset: "Dataset"
    home: Path
    max_memory: int | None


def names_of(folders: list[Path]) -> list[str]:
    """Name runs by their folder, by the path where two folders have the same name."""
    names = [folder.name for folder in folders]
    return [name if names.count(name) == 1 else str(folder) for name, folder in zip(names, folders, strict=True)]


def open_runs(
    folders: Mapping[str, Path],
    *,
    data: str | None,
    own: list[str] | None,
    max_memory: str | None,
    device: str,
    data_dir: Path,
    split: str | None,
    is_reference: bool = False,
) -> OpenedRuns:
    """Load runs and their data set.

    Parameters
    ----------
    folders : mapping of str to Path
        The runs, by the name that messages have.
    data, own, max_memory, device, data_dir
        See `open_run`.
    split : str, optional
        Held-out users who must not be among those the runs were trained on.
    is_reference : bool
        Whether these users are what others are compared with, so that no other split can be asked for.

    Raises
    ------
    UsageError, DataError, BundleError
        See `open_run`.
    """
    from recvae.bundles.bundle import read_bundle, training_of
    from recvae.bundles.card import read_card
    from recvae.datasets.dataset import Dataset
    from recvae.datasets.home import find_dataset
    from recvae.evaluation.same_data import check_same_data, check_unseen

    limit, cards = memory_limit(max_memory), {name: read_card(folder) for name, folder in folders.items()}
    manifests = {name: card.get("dataset", {}) for name, card in cards.items()}
    home = find_dataset(data_dir, data or str(next(iter(manifests.values())).get("name")))
    dataset, models = Dataset.load(home), imported_models(own)
    check_same_data(manifests, dataset)
    if split is not None:
        dataset.part(split)  # refuses an unknown one
        refits = {name: training_of(folders[name], card).refit for name, card in cards.items()}
        check_unseen(refits, split, is_reference=is_reference)
    bundles = {name: read_bundle(folder, device, limit, models=models) for name, folder in folders.items()}
    return OpenedRuns(bundles, dataset, home, limit)


def open_run(
    run: str | None,
    *,
    data: str | None,
    own: list[str] | None,
    max_memory: str | None,
    device: str,
    data_dir: Path,
    runs_dir: Path,
    split: str | None = None,
    is_reference: bool = False,
) -> Opened:
    """Find and load a run and its data set.

    Parameters
    ----------
    run : str, optional
        A folder, DATA/NAME or NAME; by default the newest.
    data : str, optional
        Another data set than the run names, such as a copy of it.
    own, max_memory, device, data_dir, runs_dir
        The options of these names.
    split : str, optional
        Held-out users who must not be among those the run was trained on.
    is_reference : bool
        Whether these users are what others are compared with, so that no other split can be asked for.

    Raises
    ------
    UsageError, DataError, BundleError
        If there is no such run or data set, they do not belong together, or the run has seen these users.
    """
    from recvae.runs.finding import find_run

    folder = find_run(runs_dir, run, data)
    name = str(folder)
    found = open_runs(
        {name: folder},
        data=data,
        own=own,
        max_memory=max_memory,
        device=device,
        data_dir=data_dir,
        split=split,
        is_reference=is_reference,
    )
    return Opened(folder, found.bundles[name], found.dataset, found.max_memory)


def train_users(dataset: "Dataset") -> list[Any]:
    """Return the ids of training users; where none were kept, "row 0" and so on, with a remark: a number is no id."""
    if dataset.train_user_ids is not None:
        return dataset.train_user_ids.tolist()
    say(f"{dataset.name} has no ids of its training users; they are called by their rows, from 'row 0'")
    return [f"row {row}" for row in range(dataset.train.shape[0])]
