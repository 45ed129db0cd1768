"""What the deployment does not build, but begins and ends with: the object store, and the API that reads it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import dagster as dg

from assets.partitions import GROUP
from assets.step import OWNERS
from context_plane.settings import Settings

OBJECT_STORE: Final = dg.AssetKey("object_store")
READ_API: Final = dg.AssetKey("read_api")
READ_VARIABLE: Final = "CONTEXT_PLANE_READ_URL"
READ_DEFAULT: Final = "http://127.0.0.1:8080"


def external_assets(settings: Settings, built: Sequence[dg.AssetKey]) -> list[dg.AssetSpec]:
    """The store above `landing`, and the read API below what is `built`. URLs without credentials."""
    store, api = without_credentials(settings.store_url), os.environ.get(READ_VARIABLE, READ_DEFAULT).rstrip("/")
    return [
        dg.AssetSpec(
            OBJECT_STORE,
            group_name=GROUP,
            owners=OWNERS,
            kinds={"objectstorage"},
            tags={"layer": "store"},
            description=(
                "The only truth: logs, segments, shards, bundles and manifests of every tenant. Exporters drop files "
                "below `tenants/{tenant}/landing/`; everything else is written by the API and by these assets."
            ),
            metadata={"dagster/uri": store},
        ),
        dg.AssetSpec(
            READ_API,
            deps=list(built),
            group_name=GROUP,
            owners=OWNERS,
            kinds={"fastapi"},
            tags={"layer": "serving"},
            description=(
                "The service that agents read: bundles, timelines and search. It sees a day from the moment that "
                "`published` commits it, and bundles as they are made. Its events are read before they are built."
            ),
            metadata={
                "url": dg.MetadataValue.url(api),
                "documentation": dg.MetadataValue.url(f"{api}/docs"),
                "metrics": dg.MetadataValue.url(f"{api}/metrics"),
            },
        ),
    ]


def without_credentials(url: str) -> str:
    """The URL without user, password, query and fragment. Pure."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    place = f"{host}:{parts.port}" if parts.port else host
    return urlunsplit((parts.scheme, place, parts.path, "", ""))
