"""Request bodies of the HTTP contract, checked: no conversions, no unknown fields, a limit on everything."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

import numpy as np
import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from context_plane.errors import Invalid
from context_plane.model import (
    ATTR_BYTES_MAX,
    ATTRS_MAX,
    ENTITY_BYTES_MAX,
    TEXT_BYTES_MAX,
    Vector,
    check_each,
    check_entity,
    day_start_us,
    parse_time,
)
from context_plane.recall.values import (
    DEADLINE_MS_DEFAULT,
    DEADLINE_MS_MAX,
    ENTITIES_MAX,
    QUERY_TEXT_BYTES_MAX,
    Include,
    OnDemandRequest,
    SearchRequest,
)
from context_plane.retrieval.fuse import FUSION_K, FusionMethod
from context_plane.retrieval.when import Window, window_of
from context_plane.retrieval.where import Where
from context_plane.retrieval.where import parse as parse_where
from context_plane.tenants import LegWeights, TenantSettings
from context_plane.wire import NAME_BYTES_MAX, THREAD_BYTES_MAX
from serving import fields
from serving.limits import BATCH_ENTITIES_MAX, EVENTS_MAX
from serving.problems import of_validation

FIELDS_MAX: Final = 64
"""Of one object: three times what the widest model has."""
PER_GROUP_MAX: Final = 100
FLOAT32_MAX: Final = float(np.finfo(np.float32).max)
FUSION_K_MAX: Final = 10_000.0
BUDGET_TOKENS_MIN: Final = 50
BUDGET_TOKENS_MAX: Final = 8_000

M = TypeVar("M", bound=BaseModel)


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def read(model: type[M], raw: bytes) -> M:
    """A JSON body as its model. Raises `Invalid(malformed_json | query_invalid)` with JSON pointers."""
    value = loads(raw)
    _check_fields(value)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise of_validation(error.errors(include_url=False, include_context=False), where="the body") from error


def _check_fields(value: Any) -> None:
    """Each unknown field would be a finding: a small compressed body may hold millions. Raises `Invalid`."""
    waiting = [value]
    while waiting:
        held = waiting.pop()
        if isinstance(held, dict):
            if len(held) > FIELDS_MAX:
                raise Invalid("query_invalid", "an object of a request has few fields; remove unknown ones").located()
            waiting += [each for each in held.values() if isinstance(each, dict)]


def loads(raw: bytes) -> Any:
    """Raises `Invalid(number_not_finite | malformed_json)`."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if b"NaN" in raw or b"Infinity" in raw:
            raise Invalid("number_not_finite", f"NaN and Infinity are not JSON; send null: {error}") from error
        raise Invalid("malformed_json", f"the body is not JSON: {error}") from error


# --- requests -----------------------------------------------------------------------------------


class EventBody(_Request):
    """One event: a fact about an entity, with its time and its source."""

    # For the document alone: `context_plane.wire` validates bodies.

    entity: str = Field(description=f"whom the event is about: 1-{ENTITY_BYTES_MAX} bytes", examples=["acct-0042"])
    ts: fields.Moment = Field(
        description="when the fact came to be: RFC 3339 with an offset, from 1970 to two days ahead",
        examples=["2026-03-04T09:15:00Z"],
    )
    source: str = Field(description=f"the system it comes from: 1-{NAME_BYTES_MAX} bytes", examples=["zendesk"])
    kind: str = Field(description=f"what sort of fact: 1-{NAME_BYTES_MAX} bytes", examples=["ticket"])
    id: str | None = Field(
        default=None,
        description=f"with entity and UTC day its identity: 1-{ENTITY_BYTES_MAX} bytes; default: a digest of the event",
        examples=["zd-8812"],
    )
    thread: str | None = Field(
        default=None,
        description=f"a conversation within the entity: up to {THREAD_BYTES_MAX} bytes",
        examples=["zd-8812"],
    )
    text: str | None = Field(
        default=None,
        description=f"up to {TEXT_BYTES_MAX // 1024} KiB",
        examples=["Export fails for large reports since the upgrade"],
    )
    attrs: dict[str, str | float | bool | list[str] | None] | None = Field(
        default=None,
        description=f"flat; up to {ATTRS_MAX}, with names of 1-{NAME_BYTES_MAX} bytes, "
        f"and {ATTR_BYTES_MAX // 1024} KiB of JSON together",
        examples=[{"priority": "high", "seats": 40, "tags": ["export"]}],
    )
    vector: list[float] | None = Field(
        default=None, description="of the tenant's dimension; default: made of the text", examples=[None]
    )
    op: Literal["put", "delete"] = Field(default="put", description="delete: the identity goes", examples=["put"])


class EventsBody(_Request):
    events: list[EventBody] = Field(
        description=f"1 to {EVENTS_MAX:,}; one invalid event refuses all",
        examples=[[{"entity": "acct-0042", "ts": "2026-03-04T09:15:00Z", "source": "zendesk", "kind": "ticket"}]],
    )


class EventIdBody(_Request):
    entity: str = Field(description="whose event", examples=["acct-0042"])
    ts: fields.Moment = Field(description="any time of its UTC day", examples=["2026-03-04T00:00:00Z"])
    id: str = Field(description="its id", examples=["zd-8812"])


class DeleteEventsBody(_Request):
    events: list[EventIdBody] = Field(
        description=f"1 to {EVENTS_MAX:,}",
        examples=[[{"entity": "acct-0042", "ts": "2026-03-04T00:00:00Z", "id": "zd-8812"}]],
    )


class TenantBody(_Request):
    settings: TenantSettings = Field(
        default=TenantSettings(),
        description="all of them: what is left out has its default",
        examples=[{"requests_per_s": 500}],
    )


class FusionBody(_Request):
    method: FusionMethod | None = Field(
        default=None,
        description="default relative_score, or reciprocal_rank when k is given",
        examples=["reciprocal_rank"],
    )
    k: float | None = Field(
        default=None, ge=0, le=FUSION_K_MAX, description="of reciprocal_rank; default 10", examples=[10]
    )
    weights: LegWeights = Field(
        default=LegWeights(), description="of the legs; default: the tenant's", examples=[{"text": 1, "vector": 1}]
    )

    def chosen(self) -> FusionMethod:
        """Raises `Invalid(query_invalid)` for a `k` that the method would ignore."""
        if self.k is not None and self.method == "relative_score":
            detail = "k belongs to reciprocal_rank; leave one of the two out"
            raise Invalid("query_invalid", detail, field="fusion.k").located("fusion", "k")
        return self.method or ("relative_score" if self.k is None else "reciprocal_rank")


class SearchBody(_Request):
    """A search over one entity, some, or the whole tenant."""

    text: str | None = Field(
        default=None,
        description=f"the question, up to {QUERY_TEXT_BYTES_MAX // 1024} KiB",
        examples=["export fails after upgrade"],
    )
    vector: fields.QueryVector = None
    mode: Literal["hybrid", "text", "vector"] = Field(
        default="hybrid", description="which legs rank", examples=["hybrid"]
    )
    entities: Annotated[list[str], Field(min_length=1, max_length=ENTITIES_MAX, fail_fast=True)] | None = Field(
        default=None, description="absent: the whole tenant", examples=[["acct-0042"]]
    )
    where: fields.Where = None
    since: fields.Since = None
    until: fields.Until = None
    limit: fields.Limit = 10
    group_by: Literal["entity"] | None = Field(
        default=None, description="entity: the best of each entity, for questions across them", examples=["entity"]
    )
    per_group: Annotated[int, fields.WHOLE] = Field(
        default=3, ge=1, le=PER_GROUP_MAX, description="hits of one entity with group_by", examples=[3]
    )
    fusion: FusionBody = Field(
        default=FusionBody(), description="how the legs of a hybrid search are joined", examples=[{"k": 10}]
    )
    consistency: fields.Consistent = "strong"
    resolve_time: bool = Field(
        default=False,
        description="read the dates of the text (last week, in May 2023) as a window; the answer says which",
        examples=[True],
    )
    now: fields.Moment | None = Field(
        default=None,
        description="what dates are read from, RFC 3339; default: the clock of the service",
        examples=["2026-03-04T12:00:00Z"],
    )
    snapshot: fields.Snapshot = None
    deadline_ms: Annotated[int, fields.WHOLE] = Field(
        default=DEADLINE_MS_DEFAULT,
        ge=1,
        le=DEADLINE_MS_MAX,
        description="what arrives by then is ranked; the answer names the days that are missing",
        examples=[2000],
    )
    include: list[Include] = Field(
        default=["text", "attrs"], max_length=8, description="what of a hit is shown", examples=[["text", "snippet"]]
    )
    explain: bool = Field(default=False, description="add the plan and what it came to", examples=[False])

    def window(self, now_us: int) -> Window | None:
        """The window that the dates of the text name, where they are to be read. `now_us`: what is now otherwise."""
        asked_us = time_of(self.now, "now")
        text = _query_text(self.text)
        if not self.resolve_time or text is None:
            return None
        return window_of(text, now_us if asked_us is None else asked_us)

    def to_request(self, *, dim: int, weights: LegWeights, window: Window | None = None) -> SearchRequest:
        """`weights`: the tenant's, where the request has none. `window`: besides the request's. Raises `Invalid`."""
        if self.text is None and self.vector is None:
            raise Invalid("query_invalid", "a search has text, a vector, or both").located("text")
        if self.mode == "text" and self.text is None:
            raise Invalid("query_invalid", "a search of mode text has text").located("text")
        own = self.fusion.weights
        return SearchRequest(
            text=_query_text(self.text),
            vector=_query_vector(self.vector, dim),
            mode=self.mode,
            entities=None if self.entities is None else _entities(self.entities),
            where=_where(self.where),
            since_us=_both(max, time_of(self.since, "since"), None if window is None else window.since_us),
            until_us=_both(min, time_of(self.until, "until"), None if window is None else window.until_us),
            limit=self.limit,
            group_by_entity=self.group_by == "entity",
            per_group=self.per_group,
            fusion_method=self.fusion.chosen(),
            fusion_k=FUSION_K if self.fusion.k is None else self.fusion.k,
            weight_text=weights.text if own.text is None else own.text,
            weight_vector=weights.vector if own.vector is None else own.vector,
            consistency=self.consistency,
            snapshot=self.snapshot,
            deadline_ms=self.deadline_ms,
            include=frozenset(self.include),
            explain=self.explain,
        )


class OnDemandBody(_Request):
    """A bundle for a question, the newest events included."""

    spec: fields.Spec = fields.DEFAULT_SPEC
    text: str | None = Field(
        default=None,
        description=f"the question, up to {QUERY_TEXT_BYTES_MAX // 1024} KiB: its evidence comes first",
        examples=["why might they leave?"],
    )
    vector: fields.QueryVector = None
    where: fields.Where = None
    since: fields.Since = None
    until: fields.Until = None
    snapshot: fields.Snapshot = None
    consistency: fields.Consistent = "strong"
    budget_tokens: Annotated[int, Field(ge=BUDGET_TOKENS_MIN, le=BUDGET_TOKENS_MAX), fields.WHOLE] | None = Field(
        default=None, description="default: the spec's", examples=[200]
    )
    format: fields.Form = "json"

    def to_request(self, entity: str, *, dim: int) -> OnDemandRequest:
        _where(self.where)
        return OnDemandRequest(
            entity=entity,
            spec=self.spec,
            text=_query_text(self.text),
            vector=_query_vector(self.vector, dim),
            where=self.where,
            since_us=time_of(self.since, "since"),
            until_us=time_of(self.until, "until"),
            snapshot=self.snapshot,
            budget_tokens=self.budget_tokens,
            consistency=self.consistency,
        )


FleetNames: TypeAlias = Annotated[list[str], Field(min_length=1, max_length=BATCH_ENTITIES_MAX, fail_fast=True)]


class BatchBody(_Request):
    """Bundles of many entities at one cut."""

    entities: FleetNames | Literal["*"] = Field(
        description="ids, repeats allowed; `*`: every entity, in key order", examples=[["acct-0042", "acct-0043"]]
    )
    spec: fields.Spec = fields.DEFAULT_SPEC
    as_of: fields.AsOf = None
    format: fields.Form = "json"
    snapshot: fields.Snapshot = None
    consistency: fields.Consistent = "eventual"

    def day(self) -> str | None:
        """`as_of`. Raises `Invalid(query_invalid)` where it is no day."""
        return check_day(self.as_of, "as_of")


def check_day(day: str | None, *place: str) -> str | None:
    """`place`: where the request has it. Raises `Invalid(query_invalid)` that names it."""
    if day is not None:
        try:
            day_start_us(day)
        except Invalid as error:
            error.located(*place)
            raise
    return day


def time_of(text: str | None, *place: str) -> int | None:
    """`place`: where the request has it, the field last. Raises `Invalid(ts_invalid)` that names it."""
    if text is None:
        return None
    try:
        return parse_time(text)
    except Invalid as error:
        raise Invalid(error.code, f"{place[-1]}: {error.detail}").located(*place) from error


def _both(narrower: Callable[[int, int], int], asked: int | None, named: int | None) -> int | None:
    """One side of a window that is given twice."""
    return asked if named is None else named if asked is None else narrower(asked, named)


def _where(value: dict[str, Any] | None) -> Where | None:
    return None if value is None else parse_where(value)


def _entities(names: Sequence[str]) -> tuple[str, ...]:
    """Raises `Invalid(entity_invalid)`."""
    check_each("entities", names, check_entity)
    return tuple(names)


def _query_text(text: str | None) -> str | None:
    if text is not None and not 1 <= len(text.encode()) <= QUERY_TEXT_BYTES_MAX:
        detail = f"text is 1-{QUERY_TEXT_BYTES_MAX} bytes of UTF-8"
        raise Invalid("query_invalid", detail, field="text").located("text")
    return text


def _query_vector(values: Sequence[float] | None, dim: int) -> Vector | None:
    """float32 [dim] of finite numbers. Raises `Invalid(vector_invalid | number_not_finite)`."""
    if values is None:
        return None
    if len(values) != dim:
        detail = "a vector has the tenant's dimension"
        raise Invalid("vector_invalid", detail, got=len(values), dimension=dim).located("vector")
    try:
        packed = struct.pack(f"<{dim}f", *values)
    except OverflowError as error:
        odd = next(n for n, value in enumerate(values) if abs(value) > FLOAT32_MAX)
        detail = "vector components are finite float32"
        raise Invalid("number_not_finite", detail, field="vector").located("vector", odd) from error
    return np.frombuffer(packed, "<f4")
