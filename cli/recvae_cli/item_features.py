"""The options of `recvae preprocess` about items' features."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recvae_cli.console import say, show

if TYPE_CHECKING:
    from recvae.datasets.dataset import Dataset
    from recvae.datasets.preparation import PreparedDataset


def check_features(given: dict[str, Any]) -> None:
    """Refuse options without the file that they are about, before a long log is read."""
    from recvae.datasets.feature_arrays import is_array
    from recvae.errors import UsageError

    if "feature_col" in given and "features" not in given:
        raise UsageError("got --feature-col without --features, where it has no effect; add --features FILE")
    if "id_col" in given and not {"titles", "features"} & given.keys():
        raise UsageError("got --id-col without --titles and --features, where it has no effect; add one of them")
    path: Path | None = given.get("features")
    if path is None:
        return
    if not path.exists() and not any(letter in str(path) for letter in "*?["):
        raise UsageError(f"no file at {path}; check the path")
    if "id_col" in given and "titles" not in given and is_array(path):
        raise UsageError(f"got --id-col with {path}, which has no columns; leave it out")


def add_features(prepared: "PreparedDataset", given: dict[str, Any]) -> "PreparedDataset":
    """Return what was prepared with the features of --features, and with the remarks on them as warnings."""
    from dataclasses import replace

    if "features" not in given:
        return prepared
    say(f"reading {given['features']}")
    dataset = prepared.dataset.with_features(
        given["features"], item=given.get("id_col"), columns=given.get("feature_col")
    )
    return replace(prepared, dataset=dataset, warnings=[*prepared.warnings, *dataset.manifest["features"]["warnings"]])


def show_features(dataset: "Dataset") -> None:
    """Print what each column of the features is, if there are any."""
    from rich.table import Table

    features = dataset.features
    if features is None:
        return
    table = Table()
    for heading in ("column", "kind", "features", "items without"):
        table.add_column(heading, justify="left" if heading in ("column", "kind") else "right")
    for column in features.columns:
        table.add_row(column.name, column.kind, f"{column.n_features:,}", f"{column.n_without:,}")
    form = "sparse" if features.is_sparse else "dense"
    table.add_row("all", form, f"{len(features.names):,}", f"{features.n_without:,}", end_section=True)
    show("Items' features", table)
