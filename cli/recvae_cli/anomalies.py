"""`recvae anomalies`: users whose history a run finds odd: held-out ones, those of training, or those of a file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recvae_cli import histories
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
    from recvae.latent.anomalies import AnomalyDetector
    from recvae_cli.opening import Opened

_SPLITS = ("test", "validation", "train")
_STANDING_OUT = 3  # items named of a user


def anomalies(
    run: OneRun = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Whose users: test, validation or train.", show_default="test")
    ] = None,
    source: histories.Source = None,
    user_col: histories.UserCol = None,
    item_col: histories.ItemCol = None,
    header: histories.Header = None,
    sep: histories.Sep = None,
    quote: histories.Quote = None,
    encoding: histories.Encoding = None,
    null: histories.Null = None,
    on_bad_row: histories.OnBadRow = None,
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
    With --input, the users of a file are looked at; one without a known item has no score.

    \b
    Examples:
      recvae anomalies ml-1m/multvae
      recvae anomalies ml-1m/multvae --contamination 0.01 --output odd.csv
      recvae anomalies ml-1m/multvae --input histories.csv --output odd.csv
    """
    from recvae.latent.anomalies import AnomalyDetector
    from recvae_cli.opening import open_run
    from recvae_cli.tables_out import write_table

    known = histories.known_options(source, user_col, item_col, sep, header, quote, encoding, null, on_bad_row)
    _check(split, source, k, output, overwrite)
    opened = open_run(
        run,
        data=data,
        own=own,
        max_memory=max_memory,
        device=device,
        data_dir=data_dir,
        runs_dir=runs_dir,
        split="validation",
        is_reference=True,
    )
    detector = AnomalyDetector(
        opened.bundle.model,
        contamination=contamination,
        score=score,
        n_samples=samples,
        seed=seed,
        max_memory=opened.max_memory,
    )
    split = split or "test"
    asked = _users(opened, split) if source is None else _of_file(opened, Path(source), known)
    whose = f"{split} users of {opened.dataset.name}" if source is None else f"users of {source}"
    say(f"looking for odd ones among {len(asked.users):,} {whose}, by {opened.folder}")
    found = _columns(detector, _users(opened, "validation").rows, asked, source is not None)
    if output is not None:
        write_table(output, found)
        say(f"{output}: {len(asked.users):,} users")
    if as_json:
        users = [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]
        where = {"split": split} if source is None else {"input": source}
        show_json({"folder": str(opened.folder), **where, "threshold": detector.threshold_, "users": users})
        return
    show(_table(opened, detector, asked.rows, found, k))
    odd, without = found["is_odd"].count(True), found["score"].count(None)
    if without:
        say(f"{without:,} users have no item that the model knows, and so no score")
    say(f"{odd:,} of {len(asked.users) - without:,} users have a score above {detector.threshold_:.2f}, the threshold")
    say_next(command("likelihood", opened.folder, *model_words(type(opened.bundle.model))))


def _check(split: str | None, source: str | None, k: int, output: Path | None, overwrite: bool) -> None:
    """Refuse what is wrong in itself, before anything is looked for."""
    from recvae.errors import UsageError
    from recvae.items import check_k
    from recvae_cli.tables_out import check_table

    check_k(k)
    if output is not None:
        check_table(output, overwrite)
    if split is not None and source is not None:
        raise UsageError(f"got --split {split} with --input {source}, expected one of the two; leave one out")
    if split not in (None, *_SPLITS):
        raise UsageError(f"got --split {split}, expected one of {', '.join(_SPLITS)}")


def _users(opened: "Opened", split: str) -> histories.ReadHistories:
    """Return ids and whole rows of the users of a part."""
    from recvae_cli.opening import train_users

    dataset = opened.dataset
    if split == "train":
        return histories.ReadHistories(train_users(dataset), dataset.train, [0] * dataset.train.shape[0])
    part = dataset.part(split)
    return histories.ReadHistories(part.user_ids.tolist(), part.fold_in + part.targets, [0] * part.n_users)


def _of_file(opened: "Opened", source: Path, known: dict[str, Any]) -> histories.ReadHistories:
    return histories.read_histories(source, known, opened.dataset.items, opened.dataset.manifest)


def _columns(
    detector: "AnomalyDetector", usual: Any, asked: histories.ReadHistories, of_file: bool
) -> dict[str, list[Any]]:
    """Fit the detector to the usual users, and return what is written of the others; nothing without a known item."""
    from recvae.progress import part_of
    from recvae.training.monitors import ProgressBar

    share = usual.shape[0] / (usual.shape[0] + asked.rows.shape[0])
    with ProgressBar("looking for odd users") as bar:
        detector.fit(usual, progress=part_of(bar, 0, share, "users to compare with"))
        scores, shares = detector.scores_and_p_values(asked.rows, progress=part_of(bar, share, 1, "users"))
    lengths = asked.rows.getnnz(axis=1).tolist()

    def known(values: list[Any]) -> list[Any]:
        return [value if length else None for value, length in zip(values, lengths, strict=True)]

    return {
        "user": asked.users,
        "items": lengths,
        **({"unknown": asked.unknown} if of_file else {}),
        "score": known(scores.tolist()),
        "share_as_odd": known(shares.tolist()),
        "is_odd": known((scores > detector.threshold_).tolist()),
    }


def _table(opened: "Opened", detector: "AnomalyDetector", rows: Any, found: dict[str, list[Any]], k: int) -> object:
    import numpy as np
    from rich.table import Table

    table = Table("user", "items", "score", "share as odd", "odd", "what stands out")
    scores = np.array(found["score"], dtype=np.float64)  # NaN, which comes last, for none
    order = np.argsort(-scores, kind="stable")[: min(k, int(np.isfinite(scores).sum()))]
    items = opened.dataset.items
    surprises = detector.surprises(rows[order]) if len(order) else rows[:0]
    for place, user in enumerate(order.tolist()):
        of_user = surprises[place]
        top = of_user.indices[np.argsort(-of_user.data, kind="stable")[:_STANDING_OUT]]
        names = "; ".join(items.title_of(int(column)) or str(items.ids[column]) for column in top)
        share, is_odd = f"{found['share_as_odd'][user]:.1%}", "yes" if found["is_odd"][user] else ""
        score = f"{found['score'][user]:.1f}"
        table.add_row(str(found["user"][user]), f"{found['items'][user]:,}", score, share, is_odd, names)
    return table
