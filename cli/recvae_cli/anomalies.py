"""`recvae anomalies`: held-out users whose history a run finds odd."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recvae_cli.console import (
    DATA_DIR,
    DEVICE,
    RUNS_DIR,
    DataDir,
    Device,
    ItsData,
    Json,
    MaxMemory,
    OneRun,
    OwnModels,
    RunsDir,
    command,
    model_words,
    say,
    say_next,
    show,
    show_json,
)

if TYPE_CHECKING:
    import numpy as np

    from recvae.latent.anomalies import AnomalyDetector
    from recvae_cli.opening import Opened

_STANDING_OUT = 3  # items named of a user


def anomalies(
    run: OneRun = None,
    split: Annotated[str, typer.Option("--split", help="Whose users: test, validation or train.")] = "test",
    k: Annotated[int, typer.Option("-k", "--k", help="How many of the oddest users to show.")] = 10,
    contamination: Annotated[
        float, typer.Option("--contamination", help="Share of users taken for odd, above 0 and at most 0.5.")
    ] = 0.1,
    score: Annotated[
        str, typer.Option("--score", help="What is odd: reconstruction, prediction or likelihood.")
    ] = "reconstruction",
    samples: Annotated[int, typer.Option("--samples", help="Draws of each user's code.")] = 10,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the draws.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", help="Table with a row for each user: .csv or .parquet.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    data: ItsData = None,
    own: OwnModels = None,
    max_memory: MaxMemory = None,
    device: Device = DEVICE,
    data_dir: DataDir = DATA_DIR,
    runs_dir: RunsDir = RUNS_DIR,
    as_json: Json = False,
) -> None:
    """List users whose history the model finds odd, compared with validation users of similar length.

    The score counts standard deviations: 0 is usual. The share says how many ordinary users look as odd or odder.

    \b
    Examples:
      recvae anomalies ml-1m/multvae
      recvae anomalies ml-1m/multvae --contamination 0.01 --output odd.csv
    """
    from recvae.latent.anomalies import AnomalyDetector
    from recvae_cli.opening import open_run
    from recvae_cli.tables_out import check_table, write_table

    if output is not None:
        check_table(output, overwrite)
    opened = open_run(
        run,
        data=data,
        own=own,
        max_memory=max_memory,
        device=device,
        data_dir=data_dir,
        runs_dir=runs_dir,
        split="validation",  # whom all are compared with
    )
    detector = AnomalyDetector(
        opened.bundle.model, contamination=contamination, score=score, n_samples=samples, seed=seed
    )
    ids, rows = _users(opened, split)
    say(f"looking for odd ones among {len(ids):,} {split} users of {opened.dataset.name}, by {opened.folder}")
    found = _columns(detector, _users(opened, "validation")[1], ids, rows)
    if output is not None:
        write_table(output, found)
        say(f"{output}: {len(ids):,} users")
    odd = int(sum(found["is_odd"]))
    if as_json:
        users = [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]
        show_json({"folder": str(opened.folder), "split": split, "threshold": detector.threshold_, "users": users})
        return
    show(_table(opened, detector, rows, found, k))
    say(f"{odd:,} of {len(ids):,} users have a score above {detector.threshold_:.2f}, the threshold")
    say_next(command("likelihood", opened.folder, *model_words(type(opened.bundle.model))))


def _users(opened: "Opened", split: str) -> "tuple[np.ndarray, Any]":
    """Return ids and whole rows of the users of a part."""
    import numpy as np

    dataset = opened.dataset
    if split == "train":
        ids = dataset.train_user_ids
        return np.arange(dataset.train.shape[0]) if ids is None else ids, dataset.train
    part = dataset.part(split)
    return part.user_ids, part.fold_in + part.targets


def _columns(detector: "AnomalyDetector", usual: Any, ids: "np.ndarray", rows: Any) -> dict[str, list[Any]]:
    """Fit the detector to the usual users, and return the columns of the table of the others."""
    from recvae.progress import part_of
    from recvae.training.monitors import ProgressBar

    share = usual.shape[0] / (usual.shape[0] + rows.shape[0])
    with ProgressBar("looking for odd users") as bar:
        detector.fit(usual, progress=part_of(bar, 0, share, "users to compare with"))
        scores, shares = detector.scores_and_p_values(rows, progress=part_of(bar, share, 1, "users"))
    return {
        "user": ids.tolist(),
        "items": rows.getnnz(axis=1).tolist(),
        "score": scores.tolist(),
        "share_as_odd": shares.tolist(),
        "is_odd": (scores > detector.threshold_).tolist(),
    }


def _table(opened: "Opened", detector: "AnomalyDetector", rows: Any, found: dict[str, list[Any]], k: int) -> object:
    import numpy as np
    from rich.table import Table

    table = Table("user", "items", "score", "share as odd", "odd", "what stands out")
    order = np.argsort(-np.array(found["score"]), kind="stable")[: max(k, 0)]
    items, surprises = opened.dataset.items, detector.surprises(rows[order])
    for place, user in enumerate(order.tolist()):
        of_user = surprises[place]
        top = of_user.indices[np.argsort(-of_user.data, kind="stable")[:_STANDING_OUT]]
        names = "; ".join(items.title_of(int(column)) or str(items.ids[column]) for column in top)
        share, is_odd = f"{found['share_as_odd'][user]:.1%}", "yes" if found["is_odd"][user] else ""
        score = f"{found['score'][user]:.1f}"
        table.add_row(str(found["user"][user]), f"{found['items'][user]:,}", score, share, is_odd, names)
    return table
