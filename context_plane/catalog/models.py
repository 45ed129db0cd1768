"""The embedding model of a tenant: vectors of two models do not compare, so mixing them is refused. Pure."""

from __future__ import annotations

from context_plane.catalog.manifest import Manifest
from context_plane.embed.base import Embedder
from context_plane.errors import Invalid


def same_model(manifest: Manifest, embedder: Embedder) -> bool:
    """Whether what is built comes from this model, or nothing is."""
    built = manifest.model
    return built is None or (built.name, built.dim) == (embedder.model, embedder.dim)


def check_model(manifest: Manifest, embedder: Embedder) -> None:
    """Raises `Invalid(model_mismatch)` when what is built comes from another model or dimension."""
    built = manifest.model
    if built is None or same_model(manifest, embedder):
        return
    raise Invalid(
        "model_mismatch",
        "the tenant's vectors come from another model than this process has; configure that one, or search by text",
        built=built.name,
        configured=embedder.model,
    )
