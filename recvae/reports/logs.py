"""Reading what training wrote of each epoch, and making sure that runs belong together."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recvae.bundles.card import RUN_LOG, damaged, read_card
from recvae.errors import UsageError


def read_log(folder: Path | str) -> list[dict[str, Any]]:
    """Read the log of a run, one record per epoch.

    Parameters
    ----------
    folder : Path or str
        A finished or interrupted run.

    Returns
    -------
    list of dict
        The fields of `EpochRecord`, and any further that another version wrote.

    Raises
    ------
    UsageError
        If it has no log: its model is fitted without epochs.
    BundleError
        If it is no run, or the log is damaged.
    """
    folder = Path(folder)
    card = read_card(folder)
    path = folder / RUN_LOG
    if not path.is_file() or not path.read_bytes().strip():
        raise UsageError(
            f"{folder} has no training log ({RUN_LOG}), since {card['model']} is fitted without epochs or the log was "
            "removed; name runs of networks such as multvae, or draw another picture"
        )
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise damaged(folder, f"{RUN_LOG}, line {number}: {error}") from error
        epoch = record.get("epoch") if isinstance(record, dict) else None
        if not isinstance(epoch, int) or isinstance(epoch, bool):
            raise damaged(
                folder, f"{RUN_LOG}, line {number}, got {line.strip()[:60]}, expected an epoch and its number"
            )
        records.append(record)
    return records


def check_one_data(manifests: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse runs that were trained on different data: their figures cannot be compared.

    Parameters
    ----------
    manifests : mapping of str to mapping
        By the name of a run, the manifest of its data.

    Raises
    ------
    UsageError
        If fingerprints differ, with the data of each run.
    """
    sides = {name: str(manifest.get("fingerprint")) for name, manifest in manifests.items()}
    if len(set(sides.values())) > 1:
        width = max(map(len, sides))
        lines = [
            f"  {name:<{width}}  {manifests[name].get('name', 'unnamed data')}, fingerprint {fingerprint[:12]}"
            for name, fingerprint in sides.items()
        ]
        raise UsageError(
            "these runs were trained on different data, and cannot be in one picture:\n"
            + "\n".join(lines)
            + "\nname runs on the same data"
        )
