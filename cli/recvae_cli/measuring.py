"""What `recvae evaluate` and `recvae compare` do alike: name runs, tune baselines, measure with a progress bar."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recvae.bundles.bundle import Bundle
    from recvae.datasets.dataset import Dataset
    from recvae.evaluation.contenders import Contender
    from recvae.interactions import HeldOut
    from recvae.metrics import Metric


def labels_of(folders: list[Path]) -> list[str]:
    """Name runs by their folder, by the path where two folders have the same name."""
    names = [folder.name for folder in folders]
    return [name if names.count(name) == 1 else str(folder) for name, folder in zip(names, folders, strict=True)]


def dataset_of(home: Path, manifests: Mapping[str, Mapping[str, Any]]) -> "Dataset":
    """Load a data set; all runs, whose manifests these are, must have been trained on it as it is now."""
    from recvae.datasets.dataset import Dataset
    from recvae.evaluation.contenders import check_same_data

    dataset = Dataset.load(home)
    check_same_data(manifests, dataset)
    return dataset


def measured(
    label: str,
    bundle: "Bundle",
    held_out: "HeldOut",
    metrics: "list[Metric]",
    folder: Path,
    is_baseline: bool = False,
) -> "Contender":
    """Measure the bundle of a folder."""
    from recvae.evaluation.contenders import measure
    from recvae.training.monitors import ProgressBar

    with ProgressBar(f"ranking for {label}") as bar:
        return measure(
            label,
            bundle,
            held_out,
            metrics,
            folder=folder,
            is_baseline=is_baseline,
            progress=lambda done, total: bar(done, total, "users"),
        )


def label_of_baseline(name: str, labels: list[str]) -> str:
    """Name a tuned baseline by its model, with a remark where a run has that name."""
    return f"{name} (baseline)" if name in labels else name


def measured_baseline(
    name: str,
    labels: list[str],
    dataset: "Dataset",
    held_out: "HeldOut",
    metrics: "list[Metric]",
    home: Path,
    device: str,
    max_memory: int | None,
) -> "Contender":
    """Take a tuned baseline from the cache beside the data set, or fit it, and measure it."""
    from recvae.evaluation.baselines import cached_baseline
    from recvae.training.monitors import ProgressBar

    kept = home / "baselines"
    with ProgressBar(f"tuning {name} on validation") as bar:

        def tell(done: int, total: int, note: str) -> None:
            bar(done, total, note)

        bundle = cached_baseline(name, dataset, kept, tell, device=device, max_memory=max_memory)
    return measured(label_of_baseline(name, labels), bundle, held_out, metrics, kept / name, is_baseline=True)
