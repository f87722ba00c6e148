"""How to make runs again: commands, versions and seeds, from what data sets and runs say of themselves."""

import shlex
from collections.abc import Mapping
from typing import Any

from recvae.bundles.bundle import Bundle
from recvae.datasets.catalog.known import CATALOG
from recvae.datasets.splits.protocols import PROTOCOLS
from recvae.models import import_path, is_own
from recvae.models.common.hyperparameters import values_of
from recvae.reports.markup import commands, paragraph, text_table
from recvae.training.validation import OBJECTIVE
from recvae.tuning.search import settings_of


def preprocess_command(manifest: Mapping[str, Any]) -> str | None:
    """Return the command that prepares a data set like this one; None where the split was made elsewhere.

    Of a log of your own, it names the file without its folder, and none of the options that say how it is read.
    """
    source, filters, protocol = (manifest.get(key) or {} for key in ("source", "filters", "protocol"))
    if protocol.get("split") not in PROTOCOLS:
        return None
    name = str(source.get("name", ""))
    if name == "synthetic" and "n_users" in source:
        words = [name, *_options(users=source["n_users"], items=source["n_items"], events=source["n_events"])]
    elif _is_known(name):
        words = [name]
    elif source.get("file"):
        words = [str(source["file"])]
    else:
        return None
    rating = filters.get("min_rating")
    columns = source.get("columns") or (source.get("reading") or {}).get("columns") or {}
    if rating is None and columns.get("rating"):
        rating = 0
    words += _options(
        name=manifest.get("name"),
        min_rating=None if rating is None else f"{rating:g}",
        min_user_items=filters.get("min_user_items"),
        min_item_users=filters.get("min_item_users"),
        **{key: protocol.get(key) for key in ("split", "heldout_users", "target_share", "seed")},
    )
    return shlex.join(["recvae", "preprocess", *words])


def _is_known(name: object) -> bool:
    """Whether `recvae preprocess` knows a data set by this name, or by NAME:PART."""
    return str(name).partition(":")[0] in CATALOG


def _options(**values: Any) -> list[str]:
    """Return options with their values, without those that are None."""
    given = {key: value for key, value in values.items() if value is not None}
    return [word for key, value in given.items() for word in (f"--{key.replace('_', '-')}", str(value))]


def train_command(name: str, bundle: Bundle) -> str:
    """Return the command that trains a run again, with all that decides what it becomes and is no default."""
    model, training = bundle.model, bundle.training
    refit, device = training.refit, training.device
    own = ["--model", import_path(type(model))] if is_own(type(model)) else []
    words = ["--refit", refit.run, *(["--on", "all"] if refit.on == "all" else []), *own] if refit else []
    if not refit:
        words = own or ["--model", model.name]
        words += ["--data", str(bundle.manifest.get("name"))]
        words += [word for setting in settings_of(model) for word in ("--set", setting)]
        words += ["--select-by", training.select_by] if training.select_by not in (None, str(OBJECTIVE)) else []
        buffer = (training.stream or {}).get("buffer")
        words += ["--stream", "--buffer", f"{buffer}B"] if buffer else []
    words += ["--name", name.rpartition("/")[2]]
    return shlex.join(["recvae", "train", *words, *(["--device", device.partition(":")[0]] if device else [])])


def again(
    manifest: Mapping[str, Any], runs: Mapping[str, Bundle], cards: Mapping[str, Mapping[str, Any]], command: str
) -> str:
    """Return how to make a report again, as HTML.

    Parameters
    ----------
    manifest : mapping
        Of the data set.
    runs : mapping of str to Bundle
        By name.
    cards : mapping of str to mapping
        Their cards.
    command : str
        The command that wrote the report.
    """
    prepare = preprocess_command(manifest)
    remarks = []
    if prepare is None:
        remarks.append(
            "The split was made elsewhere, or its source is not known; the manifest of the data has what is known."
        )
    elif not prepare.startswith("recvae preprocess synthetic") and not _is_known(manifest["source"].get("name")):
        remarks.append("The log is your own: add the options that say how it is read, if it needed any.")
    if manifest.get("features"):
        remarks.append("The data have features of items: add --features with the file they came from.")
    if stopped := [name for name, bundle in runs.items() if bundle.interrupted]:
        remarks.append(f"Interrupted, and another run once it is trained to its end, as here: {', '.join(stopped)}.")
    if any(bundle.model.parts for bundle in runs.values()):
        remarks.append("A blend is made of other runs, which have to be trained first.")
    lines = [*([prepare] if prepare else []), *(train_command(name, one) for name, one in runs.items()), command]
    versions = sorted(
        {key for card in cards.values() for key in card["versions"]}, key=lambda name: (name != "recvae", name)
    )
    rows = [
        [
            name,
            card["created"],
            values_of(runs[name].model).get("seed", "has none"),
            " ".join(filter(None, (runs[name].training.device, runs[name].training.precision))) or "cpu",
            *(card["versions"].get(key, "-") for key in versions),
        ]
        for name, card in cards.items()
    ]
    return "\n".join(
        [
            paragraph(
                "With the same versions, the same machine and the same seeds, these commands give the same runs."
            ),
            commands(lines),
            *(paragraph(remark) for remark in remarks),
            text_table(["run", "made", "seed", "trained on", *versions], rows),
        ]
    )
