"""The explorer: a page of static files, read once, that shows over the API what agents read. It holds no data.

Public, as the API's description is: whatever the page shows, it asks for with the key that its reader typed in. The
policy lets it run and load these files alone, talk to this service alone, stand in no frame, and make no markup out of
text. Links into the page are a contract (docs/explorer.md): Dagster's metadata holds them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import PurePath
from typing import Annotated, Final

from fastapi import APIRouter, Header, Request, Response

from context_plane.errors import NotFound, Unavailable
from serving.describe import Plain
from serving.read import names

router = APIRouter(include_in_schema=False)
"""A page, no part of the contract."""

PAGE: Final = "index.html"
MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
TAG_CHARS: Final = 32
POLICY: Final = "; ".join(
    (
        "default-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""CSP level 3, and Trusted Types: a browser that knows them refuses every sink that would parse text as markup."""
HEADERS: Final = {
    "cache-control": "no-cache",
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is sent. `tag`: its ETag, quotes included."""

    body: bytes
    media_type: str
    tag: str


def load() -> Mapping[str, Asset]:
    """Every file of the page, by name. What an editor leaves beside them is not of the page."""
    files = (resources.files("serving") / "static").iterdir()
    return {file.name: _asset(file.name, file.read_bytes()) for file in files if _suffix(file.name) in MEDIA_TYPES}


def _asset(name: str, body: bytes) -> Asset:
    tag = f'"{hashlib.sha256(body).hexdigest()[:TAG_CHARS]}"'
    return Asset(body, MEDIA_TYPES[_suffix(name)], tag)


def _suffix(name: str) -> str:
    return PurePath(name).suffix


@router.get("/", summary="The explorer", responses={200: {"content": {"text/html": {}}}})
async def get_page(request: Request, if_none_match: Annotated[str, Header()] = "") -> Response:
    """A page that shows what agents read. Needs no key itself; asks for one where the API does."""
    return _answer(request, PAGE, if_none_match)


@router.get("/explorer/{name}", summary="A file of the explorer", responses={200: {"content": {"text/javascript": {}}}})
async def get_file(request: Request, name: str, if_none_match: Annotated[str, Header()] = "") -> Response:
    """Its styles, scripts and icon."""
    return _answer(request, name, if_none_match)


def _answer(request: Request, name: str, if_none_match: str) -> Response:
    assets: Mapping[str, Asset] | None = getattr(request.app.state, "explorer", None)
    if assets is None:
        raise Unavailable("not_ready", "the service is starting; retry", retry_after_s=1.0)
    asset = assets.get(name)
    if asset is None:
        raise NotFound("route_not_found", "the explorer has no such file; it begins at /")
    headers = {**HEADERS, "etag": asset.tag}
    if names(if_none_match, asset.tag):
        return Plain(b"", headers, status_code=304, media_type=None)
    return Plain(asset.body, headers, media_type=asset.media_type)
