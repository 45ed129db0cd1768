"""Request bodies of the HTTP contract, checked: no conversions, no unknown fields, a limit on everything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, TypeVar

import numpy as np
import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from context_plane.errors import Invalid
from context_plane.model import Vector, check_entity, parse_time
from context_plane.recall.values import (
    DEADLINE_MS_DEFAULT,
    DEADLINE_MS_MAX,
    ENTITIES_MAX,
    LIMIT_MAX,
    QUERY_TEXT_BYTES_MAX,
    Include,
    OnDemandRequest,
    SearchRequest,
)
from context_plane.retrieval.fuse import FUSION_K, FusionMethod
from context_plane.retrieval.where import Where
from context_plane.retrieval.where import parse as parse_where
from context_plane.tenants import LegWeights, TenantSettings
from serving.limits import BATCH_ENTITIES_MAX
from serving.problems import of_validation

DEFAULT_SPEC: Final = "customer_context_v0"
PER_GROUP_MAX: Final = 100
FLOAT32_MAX: Final = float(np.finfo(np.float32).max)
FUSION_K_MAX: Final = 10_000.0
BUDGET_TOKENS_MIN: Final = 50
BUDGET_TOKENS_MAX: Final = 8_000

Format = Literal["json", "text"]
M = TypeVar("M", bound=BaseModel)


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def read(model: type[M], raw: bytes) -> M:
    """A JSON body as its model. Raises `Invalid(malformed_json | query_invalid)` with JSON pointers."""
    try:
        return model.model_validate(loads(raw))
    except ValidationError as error:
        raise of_validation(error.errors(include_url=False, include_context=False), where="the body") from error


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
    """One event. Documentation only: bodies are validated by `context_plane.wire`."""

    entity: str = Field(examples=["acct-0042"])
    ts: str = Field(examples=["2026-03-04T09:15:00Z"])
    source: str = Field(examples=["zendesk"])
    kind: str = Field(examples=["ticket"])
    id: str | None = Field(default=None, description="default: a digest of the event")
    thread: str | None = None
    text: str | None = Field(default=None, examples=["Export fails for large reports since the upgrade"])
    attrs: dict[str, str | float | bool | list[str] | None] | None = Field(
        default=None, examples=[{"priority": "high"}]
    )
    vector: list[float] | None = None
    op: Literal["put", "delete"] = "put"


class EventsBody(_Request):
    events: list[EventBody]


class EventIdBody(_Request):
    entity: str
    ts: str
    id: str


class DeleteEventsBody(_Request):
    events: list[EventIdBody]


class TenantBody(_Request):
    settings: TenantSettings = TenantSettings()


class FusionBody(_Request):
    method: FusionMethod | None = Field(
        default=None, description="default relative_score, or reciprocal_rank when k is given"
    )
    k: float | None = Field(default=None, ge=0, le=FUSION_K_MAX, description="of reciprocal_rank; default 10")
    weights: LegWeights = LegWeights()

    def chosen(self) -> FusionMethod:
        """Raises `Invalid(query_invalid)` for a `k` that the method would ignore."""
        if self.k is not None and self.method == "relative_score":
            raise Invalid("query_invalid", "k belongs to reciprocal_rank; leave one of the two out", field="fusion.k")
        return self.method or ("relative_score" if self.k is None else "reciprocal_rank")


class SearchBody(_Request):
    """A search over one entity, some, or the whole tenant."""

    text: str | None = Field(default=None, examples=["export fails after upgrade"])
    vector: list[float] | None = None
    mode: Literal["hybrid", "text", "vector"] = "hybrid"
    entities: Annotated[list[str], Field(min_length=1, max_length=ENTITIES_MAX)] | None = Field(
        default=None, description="absent: the whole tenant", examples=[["acct-0042"]]
    )
    where: dict[str, Any] | None = Field(default=None, examples=[{"eq": ["source", "zendesk"]}])
    since: str | None = Field(default=None, examples=["2026-01-01T00:00:00Z"])
    until: str | None = None
    limit: int = Field(default=10, ge=1, le=LIMIT_MAX)
    group_by: Literal["entity"] | None = None
    per_group: int = Field(default=3, ge=1, le=PER_GROUP_MAX)
    fusion: FusionBody = FusionBody()
    consistency: Literal["strong", "eventual"] = "strong"
    resolve_time: Literal[False] = False
    now: str | None = None
    snapshot: str | None = None
    deadline_ms: int = Field(default=DEADLINE_MS_DEFAULT, ge=1, le=DEADLINE_MS_MAX)
    include: list[Include] = Field(default=["text", "attrs"], max_length=8)
    explain: bool = False

    def to_request(self, *, dim: int, weights: LegWeights) -> SearchRequest:
        """`weights`: the tenant's, where the request has none. Raises `Invalid`."""
        if self.text is None and self.vector is None:
            raise Invalid("query_invalid", "a search has text, a vector, or both")
        if self.mode == "text" and self.text is None:
            raise Invalid("query_invalid", "a search of mode text has text")
        own = self.fusion.weights
        return SearchRequest(
            text=_query_text(self.text),
            vector=_query_vector(self.vector, dim),
            mode=self.mode,
            entities=None if self.entities is None else tuple(check_entity(entity) for entity in self.entities),
            where=_where(self.where),
            since_us=time_of(self.since, "since"),
            until_us=time_of(self.until, "until"),
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

    spec: str = DEFAULT_SPEC
    text: str | None = Field(default=None, examples=["why might they leave?"])
    vector: list[float] | None = None
    where: dict[str, Any] | None = None
    since: str | None = None
    until: str | None = None
    snapshot: str | None = None
    budget_tokens: int | None = Field(default=None, ge=BUDGET_TOKENS_MIN, le=BUDGET_TOKENS_MAX)
    format: Format = "json"

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
        )


class BatchBody(_Request):
    """Bundles of many entities at one cut."""

    entities: Annotated[list[str], Field(min_length=1, max_length=BATCH_ENTITIES_MAX)] | Literal["*"]
    spec: str = DEFAULT_SPEC
    as_of: str | None = Field(default=None, examples=["2026-03-04"])
    format: Format = "json"
    snapshot: str | None = None


def time_of(text: str | None, field: str) -> int | None:
    """Raises `Invalid(ts_invalid)` naming the field."""
    if text is None:
        return None
    try:
        return parse_time(text)
    except Invalid as error:
        raise Invalid(error.code, f"{field}: {error.detail}") from error


def _where(value: dict[str, Any] | None) -> Where | None:
    return None if value is None else parse_where(value)


def _query_text(text: str | None) -> str | None:
    if text is not None and not 1 <= len(text.encode()) <= QUERY_TEXT_BYTES_MAX:
        raise Invalid("query_invalid", f"text is 1-{QUERY_TEXT_BYTES_MAX} bytes of UTF-8", field="text")
    return text


def _query_vector(values: Sequence[float] | None, dim: int) -> Vector | None:
    """float32 [dim]. Raises `Invalid(vector_invalid | number_not_finite)`."""
    if values is None:
        return None
    if len(values) != dim:
        raise Invalid("vector_invalid", "a vector has the tenant's dimension", got=len(values), dimension=dim)
    wide = np.array(values, np.float64)
    if not np.maximum.reduce(np.abs(wide)) <= FLOAT32_MAX:
        raise Invalid("number_not_finite", "vector components are finite float32", field="vector")
    return wide.astype(np.float32)
