"""Models made of other runs: finding those, and making sure they know the same data."""

from collections.abc import Sequence
from pathlib import Path

from recvae.bundles.bundle import Bundle, read_bundle
from recvae.datasets.dataset import Dataset
from recvae.errors import UsageError
from recvae.models.common.base import Model
from recvae.runs.finding import find_run
from recvae.training.refits import Refit


def load_parts(
    model: Model,
    runs_dir: Path,
    dataset: Dataset,
    device: str = "auto",
    models: Sequence[type[Model]] = (),
    refit: Refit | None = None,
) -> list[Path]:
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
    models : sequence of type of Model
        Models of your own that the runs may hold.
    refit : Refit, optional
        Where the model is one of a refit; the runs must then be trained on the same parts.

    Returns
    -------
    list of Path
        The runs among them that were interrupted.

    Raises
    ------
    UsageError
        If a run is not named or not there, or was trained on other data or other parts of it.
    BundleError
        If one is damaged or unfinished.
    """
    interrupted = []
    for role in model.roles:
        name = getattr(model, role)
        if not name:
            raise UsageError(f"got no {role} run for {model.name}, expected the name of one; say --set {role}=RUN")
        folder = find_run(runs_dir, name, dataset.name)
        bundle = read_bundle(folder, device, models=models)
        found = str(bundle.manifest.get("fingerprint"))
        if found != dataset.fingerprint:
            raise UsageError(
                f"{folder} was not trained on {dataset.name} as it is now: fingerprints {found[:12]} and "
                f"{dataset.fingerprint[:12]}; name a run on the same data, say --data {bundle.manifest.get('name')} to "
                "take the data it was trained on, or train it again"
            )
        _check_parts_of_data(role, folder, bundle, refit)
        model.parts[role] = bundle.model
        if bundle.interrupted:
            interrupted.append(folder)
    return interrupted


def _check_parts_of_data(role: str, folder: Path, bundle: Bundle, refit: Refit | None) -> None:
    """Refuse a run that was trained on other parts of the data than the model that is made of it."""
    found, wanted = (None if one is None else one.on for one in (bundle.training.refit, refit))
    if found == wanted:
        return
    if refit is None and bundle.training.refit is not None:
        raise UsageError(
            f"got {role}={folder}, which was trained on {found}: validation users cannot choose or measure anything "
            f"with it; blend {bundle.training.refit.run}, then refit the blend with `recvae train --refit`"
        )
    raise UsageError(
        f"got {role}={folder}, which was trained on {found or 'train'}, expected a run that was trained on {wanted}; "
        "start the refit of the blend again"
    )
