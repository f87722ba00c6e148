"""Whether what is measured was made of the data it is measured on, and has not been trained on those very users."""

from collections.abc import Mapping
from typing import Any

from recvae.bundles.bundle import Bundle
from recvae.datasets.dataset import Dataset
from recvae.errors import UsageError
from recvae.models.common.base import Model
from recvae.training.refits import Refit


def check_fits(fits: Mapping[str, Model | Bundle], dataset: Dataset, split: str) -> None:
    """Refuse to measure what is known to be of other data, or trained on these users.

    Parameters
    ----------
    fits : mapping of str to Model or Bundle
        By the name that messages have. What a model that was fitted on a plain matrix knows is nothing.
    dataset : Dataset
        What they are measured on.
    split : str
        "validation" or "test".

    Raises
    ------
    UsageError
        If so.
    """
    known = {name: fit.fitted_on_ for name, fit in fits.items() if isinstance(fit, Model) and fit.fitted_on_}
    manifests = {name: data.manifest for name, data in known.items()}
    manifests |= {name: fit.manifest for name, fit in fits.items() if isinstance(fit, Bundle)}
    check_same_data(manifests, dataset)
    for name, data in known.items():  # a manifest that was made by hand may have no fingerprint
        if not data.has_items(dataset.item_ids):
            raise UsageError(f"{name} was fitted on other items than those of {dataset.name}; fit it on {dataset.name}")
    check_unseen({name: fit.training.refit for name, fit in fits.items() if isinstance(fit, Bundle)}, split)


def check_unseen(refits: Mapping[str, Refit | None], split: str, *, is_reference: bool = False) -> None:
    """Refuse to measure what was trained on these very users and their targets.

    Parameters
    ----------
    refits : mapping of str to Refit or None
        By the name of a run, what its card says of being a refit.
    split : str
        "validation" or "test".
    is_reference : bool
        Whether these users are what others are compared with, so that no other split can be measured instead.

    Raises
    ------
    UsageError
        If one of the runs has seen them.
    """
    for name, refit in refits.items():
        if refit is not None and refit.has_seen(split):
            if is_reference:
                raise UsageError(
                    f"{name} was trained on {refit.on}, so it has seen the {split} users, whom others are compared "
                    f"with; name {refit.run}, which has chosen its settings"
                )
            other = "" if refit.has_seen("test") else "use --split test, or "
            raise UsageError(
                f"{name} was trained on {refit.on}, so it has seen the targets of the {split} users, and a measure on "
                f"them would say nothing; {other}measure {refit.run}, which has chosen its settings"
            )


def check_same_data(manifests: Mapping[str, Mapping[str, Any]], dataset: Dataset) -> None:
    """Refuse to compare what was trained on other data than that at hand.

    Parameters
    ----------
    manifests : mapping of str to mapping
        By the name of a run, the manifest of the data it was trained on.
    dataset : Dataset
        What it would be measured on.

    Raises
    ------
    UsageError
        If fingerprints differ, with all of them and their protocols side by side.
    """
    others = [name for name, manifest in manifests.items() if manifest.get("fingerprint") != dataset.fingerprint]
    if not others:
        return
    sides = {**manifests, f"{dataset.name} as it is now": dataset.manifest}
    width = max(map(len, sides))
    lines = [f"  {name:<{width}}  {_identity(manifest)}" for name, manifest in sides.items()]
    fits = [name for name in manifests if name not in others]
    raise UsageError(
        f"{others[0]} was not trained on {dataset.name} as it is now, and numbers on different data or protocols "
        "cannot be compared:\n"
        + "\n".join(lines)
        + "\n"
        + (f"leave out {', '.join(others)}, or " if fits else "")
        + f"train {'it' if len(others) == 1 else 'them'} again on {dataset.name}, or prepare the data as it was"
    )


def _identity(manifest: Mapping[str, Any]) -> str:
    """Say in one line what data these are."""
    protocol = ", ".join(f"{key} {value}" for key, value in manifest.get("protocol", {}).items())
    fingerprint = str(manifest.get("fingerprint", "unknown"))[:12]
    return f"fingerprint {fingerprint:<12}  {manifest.get('name', 'unnamed')}: {protocol or 'unknown protocol'}"
