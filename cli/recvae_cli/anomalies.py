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
    Heading,
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
from recvae_cli.ids import name_of, named

if TYPE_CHECKING:
    from recvae.datasets.dataset import Dataset
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
    k: Annotated[
        int,
        typer.Option("-k", "--k", help="How many of the oddest users the table shows; --json and --output have all."),
    ] = 10,
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
    With --input, the users of a file are looked at; one without a known item has no score. Users whom the model knows
    from training look more usual than they are: how many there are is said.

    \b
    Examples:
      recvae anomalies ml-1m/multvae
      recvae anomalies ml-1m/multvae --contamination 0.01 --output odd.csv
      recvae anomalies ml-1m/multvae --input histories.csv --output odd.csv
    """
    from recvae.display import plural
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
    whose = f"of {opened.dataset.name}" if source is None else f"of {source}"
    many = plural(len(asked.users), f"{split} user" if source is None else "user")
    found = _columns(detector, opened, asked, f"looking for odd ones among {many} {whose}, by {opened.folder}")
    familiar = _say_familiar(opened.dataset, split if source is None else None, asked, found)
    if output is not None:
        write_table(output, found)
        say(f"{output}: {plural(len(asked.users), 'user')}")
    if as_json:
        users = [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]
        where = {"split": split} if source is None else {"input": source}
        facts = {"threshold": detector.threshold_, "known_from_training": familiar}
        show_json({"folder": str(opened.folder), **where, **facts, "users": users})
        return
    show(_table(opened, detector, asked.rows, found, k))
    _say_counts(asked.users, found, detector.threshold_)
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


def _say_familiar(
    dataset: "Dataset", split: str | None, asked: histories.ReadHistories, found: dict[str, list[Any]]
) -> dict[str, int | None]:
    """Say how many users the model knows from training, mark those of a file, and return the numbers."""
    from recvae.display import plural
    from recvae.latent.familiar import familiar_users, in_training

    reference = int(in_training(dataset.validation.user_ids.tolist(), dataset).sum())
    if reference:
        say(
            f"warning: {reference:,} of {plural(dataset.validation.n_users, 'validation user')}, whom others are "
            "compared with, are training users too: users whom the model does not know look odder than they are"
        )
    if split is not None:
        n = len(asked.users) if split == "train" else int(in_training(asked.users, dataset).sum())
        numbers: dict[str, int | None] = {"by_id": n, "by_items": n if split == "train" else None, "any": n}
    else:
        familiar = familiar_users(asked.users, asked.rows, dataset)
        found["in_training"] = familiar.any.tolist()
        numbers = familiar.to_json()
    if numbers["any"] and not reference:
        ids = "ids of training users were not kept" if numbers["by_id"] is None else f"{numbers['by_id']:,} by their id"
        say(
            f"warning: the model knows {numbers['any']:,} of {plural(len(asked.users), 'user')} from training ({ids}"
            + ("" if split is not None else f", {numbers['by_items']:,} by the very same items")
            + "): they look more usual than they are"
        )
    return numbers


def _say_counts(users: list[Any], found: dict[str, list[Any]], threshold: float) -> None:
    """Say who has no score, and how many are odd."""
    from recvae.display import plural

    without = [user for user, score in zip(users, found["score"], strict=True) if score is None]
    if without:
        count = plural(len(without), "user has", "users have")
        say(f"{count} no item that the model knows, and so no score: {named(without)}")
    odd, scored = found["is_odd"].count(True), plural(len(users) - len(without), "user")
    say(f"{odd:,} of {scored} {'has' if odd == 1 else 'have'} a score above {threshold:.2f}, the threshold")


def _columns(
    detector: "AnomalyDetector", opened: "Opened", asked: histories.ReadHistories, heading: str
) -> dict[str, list[Any]]:
    """Fit the detector to usual users, and return what is written of the others; nothing without a known item."""
    from recvae.progress import part_of
    from recvae.training.monitors import ProgressBar

    usual = _users(opened, "validation").rows
    share = usual.shape[0] / (usual.shape[0] + asked.rows.shape[0])
    with ProgressBar("looking for odd users") as bar:
        progress = Heading(heading, bar)
        detector.fit(usual, progress=part_of(progress, 0, share, "users to compare with"))
        scores, shares = detector.scores_and_p_values(asked.rows, progress=part_of(progress, share, 1, "users"))
    lengths = asked.rows.getnnz(axis=1).tolist()

    def known(values: list[Any]) -> list[Any]:
        return [value if length else None for value, length in zip(values, lengths, strict=True)]

    return {
        "user": asked.users,
        "items": lengths,
        **({"unknown": asked.unknown} if asked.is_file else {}),
        "score": known(scores.tolist()),
        "share_as_odd": known(shares.tolist()),
        "is_odd": known((scores > detector.threshold_).tolist()),
    }


def _table(opened: "Opened", detector: "AnomalyDetector", rows: Any, found: dict[str, list[Any]], k: int) -> object:
    import numpy as np
    from rich.table import Table

    from recvae.display import shown_id

    more = ["what stands out"] if detector.has_surprises else []
    table = Table("user", "items", "score", "share as odd", "odd", *more)
    scores = np.array(found["score"], dtype=np.float64)  # NaN, which comes last, for none
    order = np.argsort(-scores, kind="stable")[: min(k, int(np.isfinite(scores).sum()))]
    items = opened.dataset.items
    surprises = detector.surprises(rows[order]) if len(order) and detector.has_surprises else None
    for place, user in enumerate(order.tolist()):
        names = []
        if surprises is not None:
            of_user = surprises[place]
            top = of_user.indices[np.argsort(-of_user.data, kind="stable")[:_STANDING_OUT]]
            names = ["; ".join(name_of(items, int(column)) for column in top)]
        share, is_odd = f"{found['share_as_odd'][user]:.1%}", "yes" if found["is_odd"][user] else ""
        score = f"{found['score'][user]:.1f}"
        table.add_row(shown_id(found["user"][user]), f"{found['items'][user]:,}", score, share, is_odd, *names)
    return table
