"""The client of a service: `Client` for blocking code, `AsyncClient` for asyncio, the same methods on both.

    with Client("http://127.0.0.1:8080", "acme", key) as plane:
        print(plane.context("acct-0042").content)

Errors are those of `context_plane.errors`. Nothing of the store is imported here.
"""

from context_plane.client.faces import AsyncClient, Client
from context_plane.client.retries import Retries
from context_plane.client.values import (
    Accepted,
    AuditedCall,
    Bundle,
    BundleInputs,
    Change,
    Citation,
    EntityInfo,
    ErasureState,
    Event,
    FoundEvent,
    Hit,
    Ingested,
    NoBundle,
    SearchAnswer,
    Snapshot,
    TenantInfo,
)

__all__ = [
    "Accepted",
    "AsyncClient",
    "AuditedCall",
    "Bundle",
    "BundleInputs",
    "Change",
    "Citation",
    "Client",
    "EntityInfo",
    "ErasureState",
    "Event",
    "FoundEvent",
    "Hit",
    "Ingested",
    "NoBundle",
    "Retries",
    "SearchAnswer",
    "Snapshot",
    "TenantInfo",
]
