"""What verbs on the inside of a model share: a run with its data set, checked to belong together."""

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

    Raises
    ------
    UsageError, DataError, BundleError
        If there is no such run or data set, they do not belong together, or the run has seen these users.
    """
    from recvae.bundles.bundle import read_bundle, training_of
    from recvae.bundles.card import read_card
    from recvae.datasets.dataset import Dataset
    from recvae.datasets.home import find_dataset
    from recvae.evaluation.same_data import check_same_data, check_unseen
    from recvae.runs.finding import find_run

    folder, limit = find_run(runs_dir, run, data), memory_limit(max_memory)
    card = read_card(folder)
    manifest = card.get("dataset", {})
    dataset = Dataset.load(find_dataset(data_dir, data or str(manifest.get("name"))))
    check_same_data({str(folder): manifest}, dataset)
    if split is not None:
        dataset.part(split)  # refuses an unknown one
        check_unseen({str(folder): training_of(folder, card).refit}, split)
    return Opened(folder, read_bundle(folder, device, limit, models=imported_models(own)), dataset, limit)


def train_users(dataset: "Dataset") -> list[Any]:
    """Return the ids of training users; where none were kept, "row 0" and so on, with a remark: a number is no id."""
    if dataset.train_user_ids is not None:
        return dataset.train_user_ids.tolist()
    say(f"{dataset.name} has no ids of its training users; they are called by their rows, from 'row 0'")
    return [f"row {row}" for row in range(dataset.train.shape[0])]
