"""What the deployment does not build, but begins and ends with: the object store, and the API that reads it.

Where `CONTEXT_PLANE_READ_URL` names the service, bundles lead to its explorer (docs/explorer.md).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

import dagster as dg

from assets.partitions import GROUP
from assets.report import NAMED_MAX, Made
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


def explorer_links(made: Mapping[str, Made], spec: str, day: str) -> dict[str, dg.MarkdownMetadataValue]:
    """Metadata of a day's bundles: a link for each tenant that has some, the largest first; none without a service.

    What follows the `#` is not sent to the service, so no access log names a tenant.
    """
    service = os.environ.get(READ_VARIABLE, "").rstrip("/")
    largest = sorted(made, key=lambda name: (-made[name].rows, name))[:NAMED_MAX]
    if not service or not largest:
        return {}
    asked = urlencode({"spec": spec, "as_of": day})
    return {
        "explorer": dg.MetadataValue.md(
            " · ".join(f"[{tenant}]({service}/#/{quote(tenant, safe='')}?{asked})" for tenant in largest)
        )
    }


def without_credentials(url: str) -> str:
    """The URL without user, password, query and fragment. Pure."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    place = f"{host}:{parts.port}" if parts.port else host
    return urlunsplit((parts.scheme, place, parts.path, "", ""))
