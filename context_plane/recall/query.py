"""What a request asks of the ranking: its terms, its vector, its filters and how its legs are fused."""

from __future__ import annotations

from context_plane.errors import Invalid
from context_plane.index.analyzer import term_counts
from context_plane.index.rows import F32
from context_plane.model import unit
from context_plane.recall.values import SearchRequest
from context_plane.retrieval.fuse import WEIGHT_TEXT, WEIGHT_VECTOR, Fusion
from context_plane.retrieval.rank import RankQuery


def embeds(request: SearchRequest) -> bool:
    """Whether the query's vector is to be made of its text. Raises `Invalid(query_invalid)` for a query of nothing."""
    if request.text is None and request.vector is None:
        raise Invalid("query_invalid", "a search has text, a vector, or both", field="text")
    if request.mode == "text" and request.text is None:
        raise Invalid("query_invalid", "mode text needs text", field="text")
    return request.vector is None and wants_vector(request)


def wants_vector(request: SearchRequest) -> bool:
    """Whether the vector leg will run, as far as the request alone tells."""
    return request.mode == "vector" or (request.mode == "hybrid" and request.weight_vector != 0)


def given_vector(request: SearchRequest, dim: int) -> F32 | None:
    """The request's own vector in unit length. Raises `Invalid(vector_invalid)` for one of another dimension."""
    if request.vector is None or not wants_vector(request):
        return None
    if len(request.vector) != dim:
        detail = "a query vector has the dimension of the tenant's model"
        raise Invalid("vector_invalid", detail, got=len(request.vector), dimension=dim)
    return unit(request.vector)


def rank_query(request: SearchRequest) -> RankQuery:
    """All of it but the vector, which may have to be made first."""
    text_leg = request.mode != "vector"
    return RankQuery(
        terms=tuple(term_counts(request.text).items()) if text_leg and request.text else (),
        entities=None if request.entities is None else frozenset(request.entities),
        since_us=request.since_us,
        until_us=request.until_us,
        where=request.where,
        limit=request.limit,
        fusion=Fusion(
            mode=request.mode,
            method=request.fusion_method,
            k=request.fusion_k,
            weight_text=WEIGHT_TEXT if request.weight_text is None else request.weight_text,
            weight_vector=WEIGHT_VECTOR if request.weight_vector is None else request.weight_vector,
        ),
        group_by_entity=request.group_by_entity,
        per_group=request.per_group,
    )
