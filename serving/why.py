"""Why a bundle says what it says: from its digest to the stored lines it was made from."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from context_plane.cache.tiers import track_lookups
from context_plane.model import check_entity
from context_plane.recall.why import DIRECTORIES_MAX
from serving import answers, fields, shapes
from serving.auth import Reads
from serving.describe import Json, gives
from serving.service import answer_headers

router = APIRouter(prefix="/v1/tenants/{tenant}", tags=["read"])

Digest = Annotated[
    str,
    Path(
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of a built bundle's JSON: its ETag, and `digest` in a batch",
        examples=["6b5e1d9b6f3f5f0e0c6a2d9a1c7f8d3e4b5a69788f7e6d5c4b3a291807f6e5d4"],
    ),
]


class WhyQuery(BaseModel):
    """What is known beside the digest makes the search short."""

    model_config = ConfigDict(extra="forbid")

    entity: str | None = Field(default=None, description="whose bundle it is", examples=["acct-0042"])
    spec: str | None = Field(default=None, description="its spec", examples=["customer_context_v0"])
    as_of: fields.AsOf = None
    snapshot: str | None = Field(
        default=None, description="the snapshot it was read at: finds bundles that were replaced", examples=["17.41"]
    )


@router.get(
    "/why/{bundle_digest}",
    summary="The inputs of a bundle",
    description="Of bundles built ahead of time. Without `entity`, `spec` or `as_of` the newest "
    f"{DIRECTORIES_MAX} directories of bundle days are looked through. A citation whose event changed since has no "
    "segment; the bundle's own snapshot still has it.",
    responses=gives(
        200,
        shapes.WhyOut,
        "spec, cut, segments, and each citation's line and digest",
        headers=("X-Snapshot", "X-Cache"),
    ),
)
async def get_why(caller: Reads, bundle_digest: Digest, query: Annotated[WhyQuery, Query()]) -> Response:
    """Raises `NotFound(bundle_not_found)` for a digest that no built bundle of the cut has."""
    if query.entity is not None:
        check_entity(query.entity)
    lookups = track_lookups()
    inputs = await caller.service.plane.why(
        caller.name, bundle_digest, entity=query.entity, spec=query.spec, as_of=query.as_of, snapshot=query.snapshot
    )
    headers = answer_headers(snapshot=inputs.snapshot, cache=lookups.temperature)
    return Json(orjson.dumps(answers.why(inputs)), headers=headers)
