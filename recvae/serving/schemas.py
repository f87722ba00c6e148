"""Requests and responses in JSON; errors name the fields of the request."""

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainValidator

from recvae.ids import MOST_EXACT
from recvae.items import DEFAULT_K
from recvae.recommenders.weights import EXPECTED_WEIGHT, HEAVIEST, LIGHTEST, is_weight
from recvae.serving.settings import Settings

_SHOWN = 60  # characters of a sent value in a message


def shown(value: object) -> str:
    """Return a value as JSON for a message, cut if it is long."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "something deeply nested"
    text = text.encode("utf-8", "replace").decode()  # JSON allows half of a surrogate pair, UTF-8 does not
    return cut(text)


def cut(text: str) -> str:
    """Return a text for a message, cut if it is long."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _number(value: object) -> object:
    """Return 331 for 331.0, which is the same number in JSON; not where it may have been another one."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < MOST_EXACT else value


def _id(value: object) -> int | str:
    value = _number(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"got {shown(value)} for an id, expected an integer or a string")
    if isinstance(value, str) and _has_surrogates(value):
        raise ValueError(f"got {shown(value)} for an id, which is not valid Unicode, expected an integer or a string")
    return value


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)


def _ids(value: object) -> list[int | str]:
    if not isinstance(value, list):
        raise ValueError(f"got {shown(value)}, expected a list of ids, e.g. [318, 296]")
    return [_id(item) for item in value]


def _ids_or_none(value: object) -> list[int | str] | None:
    return None if value is None else _ids(value)


def _history(value: object) -> list[int | str] | dict[str, float]:
    if isinstance(value, list):
        return _ids(value)
    if not isinstance(value, dict):
        raise ValueError(f"got {shown(value)}, expected a list of ids, e.g. [318, 296], or an object of weights by id")
    for item, weight in value.items():
        _id(item)
        if not is_weight(weight):
            raise ValueError(f"got weight {shown(weight)} for item {shown(item)}, {EXPECTED_WEIGHT}")
    return value


def _histories(value: object) -> list[list[int | str] | dict[str, float]]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"got {shown(value)}, expected a list of histories, e.g. [[318, 296], [50]]")
    return [_history(history) for history in value]


def _whole(value: object) -> int:
    value = _number(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"got {shown(value)}, expected a whole number of items, 1 or more")
    return value


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"got {shown(value)}, expected a number from 0 to 1")
    return float(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"got {shown(value)}, expected true or false")
    return value


_Id = int | str
_Weight = Annotated[float, Field(ge=LIGHTEST, le=HEAVIEST)]
_HistorySchema = list[_Id] | dict[str, _Weight]
Ids = Annotated[list[_Id], PlainValidator(_ids, json_schema_input_type=list[_Id])]
OptionalIds = Annotated[list[_Id] | None, PlainValidator(_ids_or_none, json_schema_input_type=list[_Id] | None)]
History = Annotated[Any, PlainValidator(_history, json_schema_input_type=_HistorySchema)]
Histories = Annotated[
    list[Any],
    PlainValidator(_histories, json_schema_input_type=Annotated[list[_HistorySchema], Field(min_length=1)]),
]
Whole = Annotated[int, PlainValidator(_whole, json_schema_input_type=Annotated[int, Field(ge=1)])]
Share = Annotated[float, PlainValidator(_share, json_schema_input_type=Annotated[float, Field(ge=0, le=1)])]
Flag = Annotated[bool, PlainValidator(_flag, json_schema_input_type=bool)]


class Question(BaseModel):
    """A request for recommendations: `items` for one user, or `histories` for many."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"items": [318, 296], "k": 5, "explain": True}],
            "oneOf": [{"required": ["items"]}, {"required": ["histories"]}],
        },
    )

    items: History = Field(None, description="A user's history: ids, or weights by id.")
    histories: Histories = Field([], description="Histories of many users.")
    k: Whole = Field(DEFAULT_K, description="Number of items.")
    exclude: Ids = Field([], description="Ids never to recommend.")
    allow: OptionalIds = Field(None, description="Recommend only these ids; by default all.")
    filter_seen: Flag = Field(True, description="Whether to leave out items already seen.")
    diversify: Share = Field(0.0, description="Variety, from 0 (off) to 1 (maximum).")
    explain: Flag = Field(False, description="Whether to return the history items that led to each recommendation.")
    model: str | None = Field(None, description="Name of the model; by default the first.")


def with_limits(interface: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Add the limits of a server to its OpenAPI description."""
    question = interface["components"]["schemas"]["Question"]["properties"]
    question["k"]["maximum"] = settings.k
    question["histories"]["maxItems"] = settings.histories
    lists = (question["items"], question["histories"]["items"], question["exclude"], question["allow"])
    for part in (part for listed in lists for part in (listed, *listed.get("anyOf", ()))):
        if part.get("type") in ("array", "object"):
            part["maxItems" if part["type"] == "array" else "maxProperties"] = settings.history_items
    return interface


class Reason(BaseModel):
    """An item of the history, and its contribution to a score."""

    id: _Id
    title: str | None
    contribution: float


class RecommendedItem(BaseModel):
    """An item and its score; with reasons if the request asks for them."""

    id: _Id
    title: str | None
    score: float
    reasons: list[Reason] | None = None


class NamedItem(BaseModel):
    """An item and its title."""

    id: _Id
    title: str | None


class Answer(BaseModel):
    """Recommendations for one user."""

    items: list[RecommendedItem]
    unknown: list[_Id] = Field(description="Ids of the history that are not in the model.")
    fallback: bool = Field(description="Whether these are the most popular items: no item of the history is known.")
    history: list[NamedItem] | None = Field(None, description="The known items of the history; only with reasons.")


class OneAnswer(Answer):
    """Recommendations for one history, and the model that made them."""

    model: str
    version: str


class ManyAnswers(BaseModel):
    """Recommendations for many histories, in their order, and the model that made them."""

    model: str
    version: str
    results: list[Answer]


class SimilarItems(BaseModel):
    """Items similar to an item, most similar first."""

    model: str
    version: str
    items: list[RecommendedItem]


class FoundItem(BaseModel):
    """An item found by a search."""

    id: _Id
    title: str | None
    users: int = Field(description="Number of its training users.")


class FoundItems(BaseModel):
    """Items found by a search, best first."""

    items: list[FoundItem]


class ModelInfo(BaseModel):
    """A model that is served: its type, data and metrics."""

    name: str
    version: str = Field(description="Changes with the bundle.")
    model: str
    format: str
    n_items: int
    data: str | None
    fingerprint: str | None
    metrics: dict[str, dict[str, float]]
    diversifies: bool = Field(description="Whether `diversify` may be above 0.")


class ServerInfo(BaseModel):
    """The models that are served (the first is the default) and the limits."""

    models: list[ModelInfo]
    limits: dict[str, float]


class Status(BaseModel):
    """State of the server."""

    status: str


class Error(BaseModel):
    """What is wrong, and what was expected."""

    error: str
