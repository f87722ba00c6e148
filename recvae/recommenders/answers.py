"""Requests, recommendations and explanations, by external ids, with tables and JSON.

Importing this needs only numpy, for a service without pandas and Arrow.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from recvae.display import html_table, one_line, plural
from recvae.errors import UsageError
from recvae.items import DEFAULT_K, ItemIndex, check_k, ids_to_arrow, json_id
from recvae.recommenders.histories import History

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_TITLE, _SHOWN, _USERS = 30, 3, 10  # characters of a title, items in one line, users in a notebook

# Letters in shape comments: U users, R recommendations of all of them, k ranks.


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request for recommendations; see the parameters of `BaseRecommender.recommend`."""

    items: History
    k: int = DEFAULT_K
    exclude: Iterable[int | str] = ()
    allow: Iterable[int | str] | None = None
    filter_seen: bool = True
    diversify: float = 0.0


def check_request(request: Request) -> None:
    """Refuse an invalid k or `diversify`.

    Raises
    ------
    UsageError
        If k is not a whole number >= 1, or `diversify` is not in [0, 1].
    """
    check_k(request.k)
    diversify = request.diversify
    if isinstance(diversify, bool) or not isinstance(diversify, int | float) or not 0 <= diversify <= 1:
        raise UsageError(f"got diversify={diversify!r}, expected a number in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class Recommendations:
    """Recommendations for one user, best first.

    Parameters
    ----------
    ids : list of int or str
        External ids, of the type that they have in the data.
    titles : list of str or None
        Their titles; None if unknown.
    scores : list of float
        The model's scores, descending unless the list was diversified; with `fallback`, the number of training
        users.
    unknown : list
        Ids of the history that are not in the model, as they were given.
    fallback : bool
        Whether no item of the history was known, so that these are the most popular items.
    """

    ids: list[Any]
    titles: list[str | None]
    scores: list[float]
    unknown: list[Any]
    fallback: bool

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.ids)

    def to_json(self, reasons: "Sequence[Explanation] | None" = None) -> dict[str, Any]:
        """Return the recommendations as JSON values.

        Parameters
        ----------
        reasons : sequence of Explanation, optional
            One for each item; they become `reasons` of the item.
        """
        items: list[dict[str, Any]] = [
            {"id": json_id(item), "title": title, "score": score}
            for item, title, score in zip(self.ids, self.titles, self.scores, strict=True)
        ]
        for item, explained in zip(items, reasons or [], strict=False):
            item["reasons"] = [
                {"id": json_id(key), "title": name, "contribution": part} for key, name, part in explained.reasons
            ]
        return {"items": items, "unknown": [json_id(item) for item in self.unknown], "fallback": self.fallback}

    def to_pandas(self) -> "pd.DataFrame":
        """Return a table with the columns id, title and score."""
        import pandas as pd

        return pd.DataFrame({"id": self.ids, "title": self.titles, "score": self.scores})

    def __repr__(self) -> str:
        """Return them in one line: how many, and the first."""
        first = ", ".join(map(_named, self.ids[:_SHOWN], self.titles[:_SHOWN]))
        more = ", ..." if len(self) > _SHOWN else ""
        what = "; the most popular items, as no item of the history is known" if self.fallback else ""
        return f"<Recommendations: {plural(len(self), 'item')}{': ' if first else ''}{first}{more}{what}>"

    def _repr_html_(self) -> str:
        rows = [
            (rank + 1, str(item), title, score)
            for rank, (item, title, score) in enumerate(zip(self.ids, self.titles, self.scores, strict=True))
        ]
        remarks = ["no item of the history is known: these are the most popular items"] if self.fallback else []
        if self.unknown:
            remarks.append(f"not in the model: {', '.join(map(str, self.unknown))}")
        return html_table(plural(len(self), "recommendation"), ["rank", "id", "title", "score"], rows, remarks)


def _named(item: Any, title: str | None) -> str:
    """Return an item for people: its id, and its title if that is known."""
    return one_line(item, _TITLE) + (f" ({one_line(title, _TITLE)})" if title else "")


@dataclass(frozen=True, kw_only=True)
class BatchRecommendations(Sequence[Recommendations]):
    """Recommendations for many users: a sequence of `Recommendations`.

    Parameters
    ----------
    users : list
        Their ids, in the order of the histories; positions if they have none.
    columns : ndarray of shape (n_users, k), int64
        Item columns, best first; -1 after the last item of a shorter list.
    scores : ndarray of shape (n_users, k), float32
        Their scores; -inf after the last item.
    fallback : ndarray of shape (n_users,), bool
        Whether these are the most popular items, because no item of the history was known.
    unknown : list of list
        Ids of each history that are not in the model, as they were given.
    items : ItemIndex
        The items of the columns.
    """

    users: list[Any]
    columns: np.ndarray
    scores: np.ndarray
    fallback: np.ndarray
    unknown: list[list[Any]]
    items: ItemIndex

    def __len__(self) -> int:
        """Return the number of users."""
        return len(self.users)

    @overload
    def __getitem__(self, user: int) -> Recommendations: ...
    @overload
    def __getitem__(self, user: slice) -> list[Recommendations]: ...
    def __getitem__(self, user: int | slice) -> Recommendations | list[Recommendations]:
        """Return the recommendations for the user at a position."""
        if isinstance(user, slice):
            return [self[number] for number in range(*user.indices(len(self)))]
        columns = self.columns[user]
        found = columns[columns >= 0]
        return Recommendations(
            ids=self.items.ids[found].tolist(),
            titles=[self.items.title_of(column) for column in found.tolist()],
            scores=self.scores[user, : len(found)].tolist(),
            unknown=self.unknown[user],
            fallback=bool(self.fallback[user]),
        )

    def __iter__(self) -> Iterator[Recommendations]:
        """Yield the recommendations for each user."""
        return (self[user] for user in range(len(self)))

    def to_arrow(self) -> "pa.Table":
        """Return a table with the columns user, rank (from 1), id, title, score and fallback, user by user.

        Raises
        ------
        UsageError
            If the users have several types, or a type that Arrow has no column for.
        """
        import pyarrow as pa

        try:
            users = pa.array(self.users) if self.users else pa.array([], pa.int64())
        except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
            raise UsageError(f"got users of several types ({error}), expected one type; use strings") from error
        rows, ranks = np.nonzero(self.columns >= 0)  # (R,)
        columns = self.columns[rows, ranks]  # (R,)
        titles = pa.nulls(len(rows), pa.string())
        if self.items.titles is not None:
            titles = pa.array(self.items.titles, pa.string()).take(pa.array(columns))
        return pa.table(
            {
                "user": users.take(pa.array(rows)),
                "rank": pa.array((ranks + 1).astype(np.int32)),
                "id": ids_to_arrow(self.items.ids[columns]),
                "title": titles,
                "score": pa.array(self.scores[rows, ranks]),
                "fallback": pa.array(self.fallback[rows]),
            }
        )

    def to_pandas(self) -> "pd.DataFrame":
        """Return the table of `to_arrow` as a data frame."""
        return self.to_arrow().to_pandas()

    def __repr__(self) -> str:
        """Return them in one line: how many users and items, and how many got the most popular items."""
        popular = int(np.count_nonzero(self.fallback))
        what = f"; the most popular items for {popular:,} of them" if popular else ""
        most = plural(self.columns.shape[1], "item")
        return f"<BatchRecommendations: {plural(len(self), 'user')}, up to {most} each{what}>"

    def _repr_html_(self) -> str:
        shown = [(str(user), found) for user, found in zip(self.users[:_USERS], self[:_USERS], strict=True)]
        rows = [(user, "; ".join(map(_named, found.ids, found.titles))) for user, found in shown]
        remarks = [f"the first {_USERS} of {plural(len(self), 'user')}"] if len(self) > _USERS else []
        return html_table(f"Recommendations for {plural(len(self), 'user')}", ["user", "items"], rows, remarks)


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Which items of a history led to a recommendation, and how much each contributed.

    Parameters
    ----------
    id : int or str
        External id of the item.
    title : str or None
        Its title, if known.
    reasons : list of tuple of (id, title, float)
        Items of the history and the contribution of each to the score, largest first.
    """

    id: Any
    title: str | None
    reasons: list[tuple[Any, str | None, float]]

    def to_pandas(self) -> "pd.DataFrame":
        """Return a table with the columns id, title and contribution."""
        import pandas as pd

        return pd.DataFrame(self.reasons, columns=["id", "title", "contribution"])


def explanations_of(
    columns: np.ndarray,
    history: np.ndarray,
    contributions: np.ndarray,
    items: ItemIndex,
    most: int | None = None,
) -> list[Explanation]:
    """Return the explanations of some items, by their external ids.

    Parameters
    ----------
    columns : ndarray of shape (n_columns,), int
        The items to explain.
    history : ndarray of shape (n_history,), int
        Items of the history.
    contributions : ndarray of shape (n_history, n_columns)
        Contribution of each item of the history to the score of each item.
    items : ItemIndex
        The items of the columns.
    most : int, optional
        Number of reasons per item, the largest; by default all.

    Returns
    -------
    list of Explanation
        One for each of `columns`.
    """

    def named(column: int) -> tuple[Any, str | None]:
        return items.id_of(column), items.title_of(column)

    explanations = []
    for column, of_column in zip(columns.tolist(), contributions.T, strict=True):
        order = np.argsort(-of_column, kind="stable")[:most]
        reasons = [(*named(int(history[row])), float(of_column[row])) for row in order]
        item, title = named(column)
        explanations.append(Explanation(id=item, title=title, reasons=reasons))
    return explanations
