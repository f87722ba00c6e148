"""Recommendations for a file of histories, block by block, in memory that does not grow with the file.

    .parquet, .csv   one row per recommendation; a user with no item left to recommend has no row
    .jsonl           one line per user: {"user": 7, "items": [{"id", "title", "score"}], "fallback", "unknown"}

Finished blocks are kept next to the output until all are done, so that an interrupted job continues where it stopped.
"""

import hashlib
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from recvae.datasets.reading.options import LogFormat
from recvae.display import plural
from recvae.errors import DataError, UsageError
from recvae.items import ItemIndex
from recvae.progress import Progress
from recvae.recommenders.answers import BatchRecommendations, Explanation
from recvae.recommenders.histories import HistoryBlock, histories_of
from recvae.recommenders.history_files import BLOCK, HistoryFile, no_item_known, users_of
from recvae.storage.files import storage_errors, write_file, write_json
from recvae.storage.integrity import UNREADABLE

OUTPUTS = (".parquet", ".csv", ".jsonl")
_REASONS = 3  # per item, as `recvae recommend --explain` prints

Explain = Callable[[Mapping[Any, float], list[Any]], list[Explanation]]
"""A history and recommended ids -> an explanation of each."""

# Letters in shape comments: U users, R recommendations of all of them.


@dataclass(frozen=True, kw_only=True)
class AnswerCounts:
    """How many users of a file were answered, and how.

    Parameters
    ----------
    users : int
        Users in the file.
    before : int
        Of these, answered by an earlier call that was interrupted.
    fallback : int
        Users without a known item, who got the most popular items.
    without : int
        Users who got nothing: every item was already seen or excluded.
    unknown : int
        Unknown ids, summed over the users.
    left_out : dict of str to int
        Rows of the file that say nothing, by reason.
    columns : tuple of str
        The columns that were read.
    ratings : str, optional
        The column of ratings, which was not; see `history_files.ratings_among`.
    """

    users: int = 0
    before: int = 0
    fallback: int = 0
    without: int = 0
    unknown: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    ratings: str | None = None


def recommend_file(
    source: Path | str,
    output: Path,
    recommend: Callable[[HistoryBlock], BatchRecommendations],
    identity: dict[str, Any],
    progress: Progress | None = None,
    users: int = BLOCK,
    explain: Explain | None = None,
    options: LogFormat | None = None,
    items: ItemIndex | None = None,
) -> AnswerCounts:
    """Write recommendations for every history of a file.

    Parameters
    ----------
    source : Path or str
        See `history_files.HistoryFile`.
    output : Path
        A name ending in one of `OUTPUTS`: the table of `BatchRecommendations.to_arrow`, or one JSON line per user.
    recommend : callable
        Block -> BatchRecommendations.
    identity : dict
        What the answers depend on apart from the histories; kept blocks with another identity are removed.
    progress : Progress, optional
        Called with the number of users that are done.
    users : int
        Users per block, >= 1.
    explain : callable, optional
        See `Recommender.explain`. Adds `because`: the ids of the history, at most three, that contributed most to each
        item, as a list, or in .csv as a string separated by ";".
    options : LogFormat, optional
        What is known about the file of histories.
    items : ItemIndex, optional
        The items of the model. A file with other items only is refused before anything is answered.

    Returns
    -------
    AnswerCounts
        How many users were answered, and how.

    Raises
    ------
    UsageError
        If the ending of `output` is unknown, it is `source`, or another process has written to it at the same time.
    UsageError, DataError
        See `history_files.HistoryFile`; or what `recommend` raises, with the name of the file; or if none of
        its items is in `items`.
    StorageError
        If something cannot be written.
    """
    if output.suffix not in OUTPUTS:
        raise UsageError(f"got {output.name}, expected a name ending in {', '.join(OUTPUTS)}")
    if output.resolve() == Path(source).resolve():
        raise UsageError(f"got {output} for the input and the output, expected two files")
    with HistoryFile(source, options, progress) as file:
        if items is not None and not file.has_item_of(items):
            raise DataError(
                f"{source}: none of its items is in the model, all {plural(file.counts.users, 'user')} would get the "
                f"most popular items; nothing is written; {no_item_known(file, items)}"
            )
        whose = identity | {
            "options": repr(options),
            "columns": list(file.columns),
            "checksum": file.checksum,
            "users": users,
            "explain": explain is not None,
            "parts": 4,
        }
        parts, job = _parts_folder(output, whose)
        total: Counter[str] = Counter()
        written: list[Path] = []
        try:
            for number, block in enumerate(file.blocks(users)):
                part = parts / f"{number:06d}.parquet"
                counts = _counts_of(part, job)
                if counts is None:
                    counts = _write_part(part, job, source, block, recommend, explain)
                else:
                    total["before"] += counts["users"]
                written.append(part)
                total.update(counts)
                if progress is not None:
                    progress(total["users"], file.counts.users, f"{total['users']:,} users")
        except (DataError, UsageError):  # once the file is corrected, these blocks would not belong to it
            shutil.rmtree(parts, ignore_errors=True)
            raise
        _join(written, job, output)
        with storage_errors(parts):
            shutil.rmtree(parts)
        return AnswerCounts(**total, left_out=file.counts.left_out, columns=file.columns, ratings=file.ratings)


def _parts_folder(output: Path, whose: dict[str, Any]) -> tuple[Path, str]:
    """Return the folder of finished blocks, emptied if they belong to another job, and the name of the job.

    Each block has that name: another process may begin a job of another identity with the same output.
    """
    parts = output.with_name(f".{output.name}.parts")
    state = parts / "job.json"
    with storage_errors(parts):
        if parts.exists() and not (state.is_file() and _is_job(state, whose)):
            shutil.rmtree(parts)
        parts.mkdir(parents=True, exist_ok=True)
    write_json(state, whose)
    return parts, hashlib.sha256(json.dumps(whose, sort_keys=True).encode()).hexdigest()


def _is_job(state: Path, whose: dict[str, Any]) -> bool:
    try:
        return json.loads(state.read_text(encoding="utf-8")) == whose
    except UNREADABLE:  # damaged: it cannot be said to which job these blocks belong
        return False


def _counts_of(part: Path, job: str) -> dict[str, int] | None:
    """Return the counts of a finished block, None if it is missing, damaged or of another job."""
    try:
        metadata = pq.read_schema(part).metadata or {}
        return json.loads(metadata[b"counts"]) if metadata[b"job"] == job.encode() else None
    except (*UNREADABLE, pa.ArrowException):
        return None


def _write_part(
    part: Path,
    job: str,
    source: Path | str,
    block: HistoryBlock,
    recommend: Callable[[HistoryBlock], BatchRecommendations],
    explain: Explain | None,
) -> dict[str, int]:
    """Answer a block and keep it: one row per user, with a list of items. Return counts as in `AnswerCounts`."""
    try:
        answers = recommend(block)
        because = None if explain is None else _because(block, answers, explain)
    except (UsageError, DataError) as error:
        users = users_of(block)
        raise type(error)(f"{source}, users {users[0]!r} to {users[-1]!r}: {error}") from error
    rows = answers.to_arrow()
    found = {name: rows[name].combine_chunks() for name in ("rank", "id", "title", "score")}
    if because is not None:
        found["because"] = pa.array(because, pa.list_(rows["id"].type))
    lengths = (answers.columns >= 0).sum(axis=1)  # (U,)
    offsets = pa.array(np.append(0, lengths.cumsum()), pa.int32())
    items = pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(list(found.values()), names=list(found)))
    unknown = [json.dumps([_plain(item) for item in ids]) for ids in answers.unknown]  # ids may be of any types
    kind = pa.string() if any(isinstance(user, str) for user in answers.users[:1]) else pa.int64()
    table = pa.table(
        {
            "user": pa.array(answers.users, kind),
            "items": items,
            "fallback": pa.array(answers.fallback),
            "unknown": pa.array(unknown, pa.string()),
        }
    )
    counts = {
        "users": len(answers),
        "fallback": int((answers.fallback & (lengths > 0)).sum()),
        "without": int((lengths == 0).sum()),
        "unknown": sum(map(len, answers.unknown)),
    }
    metadata = {"counts": json.dumps(counts), "job": job}
    with write_file(part) as aside:
        pq.write_table(table.replace_schema_metadata(metadata), aside, write_page_checksum=True)
    return counts


def _plain(item: object) -> int | float | str:
    """Return an id as a JSON value."""
    return item if isinstance(item, int | str) or (isinstance(item, float) and math.isfinite(item)) else str(item)


def _because(block: HistoryBlock, answers: BatchRecommendations, explain: Explain) -> list[list[Any]]:
    """Return the items of the histories that contributed most to each recommendation (R,), largest first."""
    read = histories_of(block, answers.items)
    because = []
    for number, found in enumerate(answers):
        own = slice(read.offsets[number], read.offsets[number + 1])
        history = dict(zip(answers.items.ids[read.columns[own]].tolist(), read.weights[own].tolist(), strict=True))
        for one in explain(history, found.ids):
            because.append([item for item, _, value in one.reasons[:_REASONS] if value > 0])
    return because


def _join(parts: list[Path], job: str, output: Path) -> None:
    """Write all blocks into one file, one after the other."""
    with write_file(output) as aside:
        if output.suffix == ".jsonl":
            with aside.open("w", encoding="utf-8") as file:
                for part in parts:
                    file.writelines(_json_lines(_read_part(part, job)))
            return
        is_csv = output.suffix == ".csv"
        schema = _rows(_read_part(parts[0], job), is_csv).schema
        write = pacsv.CSVWriter if is_csv else pq.ParquetWriter
        with write(str(aside), schema) as writer:
            for part in parts:
                writer.write_table(_rows(_read_part(part, job), is_csv))


def _read_part(part: Path, job: str) -> pa.Table:
    try:
        with pq.ParquetFile(part, page_checksum_verification=True) as file:
            found = file.read()
    except FileNotFoundError:
        found = None
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())  # Arrow writes several lines
        raise DataError(f"{part} is damaged: {reason}; remove it and run the same command again") from error
    if found is None or (found.schema.metadata or {}).get(b"job") != job.encode():
        raise UsageError(
            f"{part} is of another job: two processes have written to one output at the same time; nothing is written: "
            "give each an output of its own, or run one after the other"
        )
    return found


def _rows(part: pa.Table, is_csv: bool) -> pa.Table:
    """Return one row per recommendation, with the columns of `BatchRecommendations.to_arrow` and `because`."""
    items = part["items"].combine_chunks()
    users, found = pc.call_function("list_parent_indices", [items]), items.flatten()  # (R,), (R,)
    columns = {"user": part["user"].take(users)}
    columns |= {name: found.field(name) for name in ("rank", "id", "title", "score")}
    columns["fallback"] = part["fallback"].take(users)
    names = [field.name for field in found.type]
    if "because" in names:
        because = found.field("because")
        if is_csv:
            because = pc.call_function("binary_join", [because.cast(pa.list_(pa.string())), pa.scalar(";")])
        columns["because"] = because
    return pa.table(columns)


def _json_lines(part: pa.Table) -> Iterator[str]:
    """Yield one line per user."""
    for line in part.to_pylist():
        for item in line["items"]:
            del item["rank"]  # the place in the list says it
        line["unknown"] = json.loads(line["unknown"])
        yield json.dumps(line, ensure_ascii=False) + "\n"
