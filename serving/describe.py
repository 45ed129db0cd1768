"""The OpenAPI document: request bodies that routes read themselves, what every route answers with, and its headers.

Routes name what is theirs alone; what all of them have is added to the whole document, so that no new route lacks it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, get_args

from fastapi import FastAPI, Response
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from context_plane.cache.tiers import Temperature
from context_plane.recall.values import Freshness
from serving.examples import BUNDLE_DIGEST
from serving.problems import MEDIA_TYPE as PROBLEM
from serving.shapes import Problem
from serving.stream import NDJSON

JSON: Final = "application/json"
TEXT: Final = "text/plain"
_REF: Final = "#/components/schemas/{model}"


def _header(description: str, example: str | int, *, always: bool = False, **schema: Any) -> Mapping[str, Any]:
    """`always`: every answer that names the header has it."""
    kind = "integer" if isinstance(example, int) else "string"
    return {"description": description, "required": always, "schema": {"type": kind, "examples": [example], **schema}}


HEADERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "ETag": _header("names the bundle in its form: send it as `If-None-Match`", f'"{BUNDLE_DIGEST}"', always=True),
    "X-Snapshot": _header("the cut that was read: send it back as `snapshot`", "17.41", always=True),
    "X-Freshness": _header(
        "stale: a day it looks at was published since, or the spec changed; building: writes wait",
        "fresh",
        always=True,
        enum=list(get_args(Freshness)),
    ),
    "X-Cache": _header(
        "the coldest tier that was touched (of a batch: before its first line)",
        "memory",
        always=True,
        enum=list(get_args(Temperature)),
    ),
    "X-Request-Id": _header("yours, if you sent one; names the log's entry", "4c1fd0a2b7e8931f", always=True),
    "RateLimit-Policy": _header("what is allowed in a window, where anything limits the caller", '"requests";q=50;w=1'),
    "RateLimit": _header("what is left of it", '"requests";r=49;t=1'),
    "Retry-After": _header("seconds to wait, where waiting helps", 1, minimum=1),
    "WWW-Authenticate": _header("with 401", "Bearer"),
}
"""Of answers. What HTTP itself needs (lengths, types, caching) is not told."""
LIMITED: Final = ("RateLimit-Policy", "RateLimit")
"""Of what asks for a key."""
REFUSED: Final = ("Retry-After", "WWW-Authenticate")


def takes(model: type[BaseModel], *, ndjson: type[BaseModel] | None = None) -> dict[str, Any]:
    """`openapi_extra` of a route that reads its own body. `ndjson`: the model of one line, where lines are taken."""
    content: dict[str, Any] = {JSON: {"schema": model.model_json_schema(ref_template=_REF)}}
    if ndjson is not None:
        content[NDJSON] = {"schema": ndjson.model_json_schema(ref_template=_REF)}
    return {"requestBody": {"required": True, "content": content}}


def gives(
    status: int,
    model: type[BaseModel] | None,
    description: str,
    *,
    headers: Iterable[str] = (),
    text: str | None = None,
    lines: bool = False,
    links: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[int | str, Any]:
    """`responses` of a route. `text`: an example, where plain text may be asked for or is all there is (no model).
    `lines`: the answer is NDJSON, and `model` its line. `links`: operation -> its parameters, where the answer has what
    another request of the same tenant takes (OpenAPI runtime expressions)."""
    shown: dict[str, Any] = {"description": description, "headers": _named(headers)}
    if links:
        shown["links"] = {
            f"then_{operation}": {
                "operationId": operation,
                "parameters": {"tenant": "$request.path.tenant", **parameters},
            }
            for operation, parameters in links.items()
        }
    if model is not None:
        shown["model"] = model
    if text is not None:
        shown["content"] = {TEXT: {"schema": {"type": "string", "examples": [text]}}}
    if lines:
        shown["content"] = {NDJSON: {}}
    return {status: shown, "default": {"model": Problem, "description": "a problem (RFC 9457)"}}


def unchanged(description: str, *, headers: Iterable[str]) -> dict[int | str, Any]:
    """`responses` of a route that may answer that the caller has it already."""
    return {304: {"description": description, "headers": _named(headers)}}


def describe(app: FastAPI) -> dict[str, Any]:
    """The document, with the definitions of request bodies moved to its components."""
    if app.openapi_schema:
        return app.openapi_schema
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = document.setdefault("components", {})
    components["headers"] = dict(HEADERS)
    schemas = components.setdefault("schemas", {})
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            for status, response in operation["responses"].items():
                _complete(response, status, keyed="security" in operation)
            for media in operation.get("requestBody", {}).get("content", {}).values():
                schemas.update(media["schema"].pop("$defs", {}))
    app.openapi_schema = document
    return document


def _complete(response: dict[str, Any], status: str, *, keyed: bool) -> None:
    """The headers that every answer of its kind has, and each schema under the media type that is sent."""
    headers = ("X-Request-Id", *(LIMITED if keyed else ()), *(REFUSED if status == "default" else ()))
    response["headers"] = response.get("headers", {}) | _named(headers)
    content = response.get("content", {})
    if status == "default":
        response["content"] = {PROBLEM: content[JSON]}
    elif NDJSON in content:
        response["content"] = {NDJSON: content[JSON]}
    elif TEXT in content and not content[JSON]["schema"]:
        del content[JSON]


def _named(headers: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in headers}


class Json(Response):
    """A body that is JSON already."""

    media_type = "application/json"


class Plain(Response):
    """A whole answer, written as `Response` writes it in a third of the time: no defaults to look up, no cookies.

    Header names are given in lower case. `media_type` None: no content type and no length, as a 304 has it.
    """

    def __init__(self, body: bytes, headers: Mapping[str, str], *, media_type: str | None, status_code: int = 200):
        self.status_code = status_code
        self.body = body
        self.background = None
        self.raw_headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        if media_type is not None:
            self.raw_headers += [
                (b"content-length", b"%d" % len(body)), (b"content-type", media_type.encode("latin-1"))
            ]  # fmt: skip
