"""Options on a file of histories, and its users as rows of a model's items."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recvae_cli.console import say
from recvae_cli.ids import named

if TYPE_CHECKING:
    import scipy.sparse as sp

    from recvae.items import ItemIndex
    from recvae.recommenders.answer_files import AnswerCounts

Source = Annotated[
    str | None,  # a path here, or an address that only Spark can read
    typer.Option(
        "--input", metavar="PATH", help="File with the histories of many users, in any form that `preprocess` reads."
    ),
]
UserCol = Annotated[str | None, typer.Option(help="Column of user ids in --input; by default as in the training data.")]
ItemCol = Annotated[str | None, typer.Option(help="Column of item ids in --input; by default as in the training data.")]
Header = Annotated[
    bool | None, typer.Option("--header/--no-header", help="Whether the first line of --input names columns.")
]
Sep = Annotated[str | None, typer.Option(help="Separator of --input: any character, ::, tab or space.")]
Quote = Annotated[str | None, typer.Option(help="Character around values of --input, or none.")]
Encoding = Annotated[str | None, typer.Option(help="Encoding of --input.", show_default="utf-8")]
Null = Annotated[list[str] | None, typer.Option(help="A word that means a missing id in --input (repeatable).")]
OnBadRow = Annotated[str | None, typer.Option(help="A bad row of --input: stop or skip.", show_default="stop")]

_OPTIONS = ("user_col", "item_col", "sep", "header", "quote", "encoding", "null", "on_bad_row")


def known_options(source: str | None, *values: Any) -> dict[str, Any]:
    """Return what is known about the file; refuse options on it where there is none.

    Parameters
    ----------
    source : str, optional
        The file.
    values : object
        Of the options in `_OPTIONS`, None or empty where they were not given.

    Raises
    ------
    UsageError
        If so.
    """
    from recvae.errors import UsageError

    given = zip(_OPTIONS, values, strict=True)
    known = {key: value for key, value in given if value is not None and value != []}
    if source is None and known:
        named = ", ".join("--" + key.replace("_", "-") for key in known)
        raise UsageError(f"got {named} without --input, expected it with a file; add --input")
    return known


@dataclass(frozen=True)
class ReadHistories:
    """The users of a file.

    Parameters
    ----------
    users : list
        Their ids, in the order in which they first appear.
    rows : csr_matrix of shape (n_users, n_items)
        Their histories.
    unknown : list of int
        How many items of each are not in the model.
    is_file : bool
        Whether a file has them, and no data set.
    """

    users: list[Any]
    rows: "sp.csr_matrix"
    unknown: list[int]
    is_file: bool = False


def read_histories(source: Path, known: dict[str, Any], items: "ItemIndex", manifest: Any) -> ReadHistories:
    """Read a file of histories, and say what was left out and which items are unknown.

    Parameters
    ----------
    source : Path
        The file.
    known : dict
        See `known_options`.
    items : ItemIndex
        The items of the model.
    manifest : mapping
        Of its training data.

    Raises
    ------
    UsageError, DataError
        See `HistoryFile`; or if none of its items is in the model.
    """
    from recvae.display import plural, shown_id
    from recvae.errors import DataError
    from recvae.recommenders.histories import Histories, histories_of
    from recvae.recommenders.history_files import HistoryFile, no_item_known, options_like
    from recvae.training.monitors import ProgressBar
    from recvae_cli.preparing import log_format

    with (
        ProgressBar("reading histories") as bar,
        HistoryFile(source, options_like(manifest, log_format(known), items), bar) as file,
    ):
        if not file.has_item_of(items):
            raise DataError(
                f"{source}: none of its items is in the model, so nothing can be said of its "
                f"{plural(file.counts.users, 'user')}; {no_item_known(file, items)}"
            )
        parts = [histories_of(block, items) for block in file.blocks()]
        columns, left_out, ratings = file.columns, file.counts.left_out, file.ratings
    say(f"read {', '.join(columns)}")
    _say_left_out(left_out)
    _say_ratings(ratings)
    found = Histories.joined(parts)
    unknown = list(dict.fromkeys(item for of_user in found.unknown for item in of_user))
    if unknown:
        count = plural(len(unknown), "unknown item does", "unknown items do")
        say(f"{count} not count: {named(unknown)}; the model's ids look like {shown_id(items.id_of(0))}")
    users = [user for part in parts for user in part.users]
    return ReadHistories(users, found.matrix, [len(of_user) for of_user in found.unknown], is_file=True)


def say_answers(output: str, done: "AnswerCounts", example: Any = None) -> None:
    """Say how the users of a file were answered, on one machine or by Spark.

    Parameters
    ----------
    output : str
        What was written.
    done : AnswerCounts
        The users.
    example : int or str, optional
        An id of the model, for users whose ids are unknown.
    """
    from recvae.display import plural, shown_id

    again = f", {done.before:,} of them before the interruption" if done.before else ""
    say(f"{output}: {plural(done.users, 'user')}{again}; read {', '.join(done.columns)}")
    _say_left_out(done.left_out)
    _say_ratings(done.ratings)
    if done.fallback:
        say(f"{plural(done.fallback, 'user')} got the most popular items: none of the history is in the model")
    if done.unknown:
        count = plural(done.unknown, "id in the histories is", "ids in the histories are")
        say(f"{count} unknown; the model's ids look like {shown_id(example)}")
    if done.without:
        where = "an empty list" if output.endswith(".jsonl") else "no row"
        why = "every item was already seen or excluded, or is not among the items of --allow"
        say(f"{plural(done.without, 'user')} got nothing ({where}): {why}")


def _say_ratings(column: str | None) -> None:
    if column is not None:
        say(
            f"column '{column}' is not read: every row counts as an interaction, but low ratings were left out of "
            "the training data; leave them out of the file, too"
        )


def _say_left_out(left_out: dict[str, int]) -> None:
    from recvae.datasets.reading.report import counted

    for reason, count in left_out.items():
        say(f"left out: {counted(count, reason)}")
