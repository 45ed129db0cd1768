"""Fields that many requests share: one name, one meaning, one example. For query and body models."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from context_plane.model import VECTOR_DIM_MAX
from context_plane.recall.values import LIMIT_MAX
from context_plane.retrieval.snapshots import Consistency
from serving import examples

DEFAULT_SPEC: Final = "customer_context_v0"
Format: TypeAlias = Literal["json", "text"]

Spec = Annotated[str, Field(description="name of the bundle spec", examples=[DEFAULT_SPEC])]
AsOf = Annotated[
    str | None,
    Field(description="a UTC day; default: the newest built", examples=["2026-03-04"], pattern=r"^\d{4}-\d{2}-\d{2}$"),
]
Form = Annotated[Format, Field(description="`json`: canonical; `text`: what a prompt takes", examples=["text"])]
Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Since = Annotated[
    Moment | None, Field(description="RFC 3339 with an offset; included", examples=["2026-01-01T00:00:00Z"])
]
Until = Annotated[
    Moment | None, Field(description="RFC 3339 with an offset; excluded", examples=["2026-04-01T00:00:00Z"])
]
Snapshot = Annotated[
    str | None,
    Field(description="`X-Snapshot` of an earlier answer: read at that cut again, for 24 hours", examples=["17.41"]),
]
Cursor = Annotated[
    str | None,
    Field(description="`cursor` of the page before; opaque", examples=[examples.CURSOR]),
]


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE: Final = BeforeValidator(_whole)
"""Of integers in bodies: 10.0 is one (JSON Schema), and some writers have no other numbers."""
Limit = Annotated[int, Field(ge=1, le=LIMIT_MAX, description="how many at most", examples=[20]), WHOLE]
Consistent = Annotated[
    Consistency,
    Field(
        description="`strong`: everything acknowledged before; `eventual`: at most a second old, and no round trip to "
        "the store for it. Without effect on a pinned snapshot",
        examples=["eventual"],
    ),
]
Where = Annotated[
    dict[str, object] | None,
    Field(
        description="a filter, applied before ranking: and or not eq ne in nin lt lte gt gte contains contains_any "
        "prefix glob exists, over source kind id entity ts attrs.*",
        examples=[{"and": [{"eq": ["source", "zendesk"]}, {"gte": ["attrs.seats", 10]}]}],
    ),
]
QueryVector = Annotated[
    Annotated[list[float], Field(max_length=VECTOR_DIM_MAX, fail_fast=True)] | None,
    Field(description="of the tenant's dimension; default: made of the text", examples=[None]),
]
