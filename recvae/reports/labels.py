"""Labels of users from a file, to colour a map with."""

import csv
from pathlib import Path

import numpy as np

from recvae.errors import DataError, UsageError
from recvae.ids import spellings


def read_labels(path: Path, user_ids: np.ndarray) -> list[str | None]:
    """Read a label for each user from a CSV file with the columns `user` and `label`.

    Parameters
    ----------
    path : Path
        UTF-8, comma-separated, with a header; further columns and further users are ignored.
    user_ids : ndarray of shape (n_users,)
        External ids of the users to label; 12, "12" and 12.0 are one id.

    Returns
    -------
    list of str or None
        One per user, None for one that is not in the file.

    Raises
    ------
    UsageError
        If there is no such file.
    DataError
        If it is not of this form, a user has two labels, or it has none of the users.
    """
    if not path.is_file():
        raise UsageError(f"got labels {path}, which is no file; expected a CSV file with the columns user and label")
    known: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if not {"user", "label"} <= set(rows.fieldnames or ()):
                found = ", ".join(rows.fieldnames or ()) or "no header"
                raise DataError(
                    f"got labels {path} with {found}, expected a first line with the columns user and label"
                )
            for number, row in enumerate(rows, 2):
                user, label = (row["user"] or "").strip(), (row["label"] or "").strip()
                if label and known.setdefault(user, label) != label:
                    raise DataError(
                        f"got labels {path} with '{known[user]}' and '{label}' for user {user} (row {number}), "
                        "expected one label for each user; remove one"
                    )
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"got labels {path}, which cannot be read ({error}); expected CSV in UTF-8") from error
    labels = [
        next((known[one] for one in (str(user), *spellings(user)) if one in known), None) for user in user_ids.tolist()
    ]
    if not any(labels):
        raise DataError(
            f"got labels {path} with none of the {len(user_ids):,} users to draw, whose ids are like {user_ids[0]}; "
            "expected labels of held-out users"
        )
    return labels
