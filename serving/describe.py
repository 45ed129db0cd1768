"""The OpenAPI document: request bodies that routes read themselves, and problems that every route may answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI, Response
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from serving.shapes import Problem

_REF: Final = "#/components/schemas/{model}"


def takes(model: type[BaseModel], *, ndjson: type[BaseModel] | None = None) -> dict[str, Any]:
    """`openapi_extra` of a route that reads its own body. `ndjson`: the model of one line, where lines are taken."""
    content: dict[str, Any] = {"application/json": {"schema": model.model_json_schema(ref_template=_REF)}}
    if ndjson is not None:
        content["application/x-ndjson"] = {"schema": ndjson.model_json_schema(ref_template=_REF)}
    return {"requestBody": {"required": True, "content": content}}


def gives(
    status: int,
    model: type[BaseModel] | None,
    description: str,
    *,
    media: str | None = None,
    links: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[int | str, Any]:
    """`responses` of a route. `media`: a further media type of the success. `links`: operation -> its parameters, where
    the answer has what another request of the same tenant takes (OpenAPI runtime expressions)."""
    shown: dict[str, Any] = {"description": description}
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
    if media is not None:
        shown["content"] = {media: {}}
    return {status: shown, "default": {"model": Problem, "description": "a problem (RFC 9457)"}}


def describe(app: FastAPI) -> dict[str, Any]:
    """The document, with the definitions of request bodies moved to its components."""
    if app.openapi_schema:
        return app.openapi_schema
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            default = operation["responses"].get("default", {}).get("content", {})
            if "application/json" in default:
                default["application/problem+json"] = default.pop("application/json")
            for media in operation.get("requestBody", {}).get("content", {}).values():
                schemas.update(media["schema"].pop("$defs", {}))
    app.openapi_schema = document
    return document


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
