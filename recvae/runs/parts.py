"""Models made of other runs: finding those, and making sure they know the same data."""

from pathlib import Path

from recvae.bundles.bundle import read_bundle
from recvae.datasets.dataset import Dataset
from recvae.errors import UsageError
from recvae.models.common.base import Model
from recvae.runs.finding import find_run


def load_parts(model: Model, runs_dir: Path, dataset: Dataset, device: str = "auto") -> list[Path]:
    """Load the runs that a model is made of; most models are made of none.

    Parameters
    ----------
    model : Model
        Its hyperparameters in `roles` name the runs, as in `find_run`; those of the same data set come first.
    runs_dir : Path
        Where runs are kept.
    dataset : Dataset
        What all of them must have been trained on.
    device : str
        Where their networks score.

    Returns
    -------
    list of Path
        The runs among them that were interrupted.

    Raises
    ------
    UsageError
        If a run is not named or not there, or was trained on other data.
    BundleError
        If one is damaged or unfinished.
    """
    interrupted = []
    for role in model.roles:
        name = getattr(model, role)
        if not name:
            raise UsageError(f"got no {role} run for {model.name}, expected the name of one; say --set {role}=RUN")
        folder = find_run(runs_dir, name, dataset.name)
        bundle = read_bundle(folder, device)
        found = str(bundle.manifest.get("fingerprint"))
        if found != dataset.fingerprint:
            raise UsageError(
                f"{folder} was not trained on {dataset.name} as it is now: fingerprints {found[:12]} and "
                f"{dataset.fingerprint[:12]}; name a run on the same data, say --data {bundle.manifest.get('name')} to "
                "take the data it was trained on, or train it again"
            )
        model.parts[role] = bundle.model
        if bundle.interrupted:
            interrupted.append(folder)
    return interrupted
