"""The OpenAPI document by itself: every field, header and answer is explained, and its examples are what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs

from context_plane.bundle import tokens
from context_plane.bundle.render import render_text, section_text
from context_plane.settings import Settings
from serving import examples
from serving.app import create_app
from serving.describe import HEADERS
from serving.stream import NDJSON

DOCUMENT: dict[str, Any] = create_app(Settings(store="memory://document")).openapi()
OPERATIONS = [
    (path, method, operation)
    for path, by_method in DOCUMENT["paths"].items()
    for method, operation in by_method.items()
]
SHOWS_NOTHING = {"vector", "missing_days"}
"""Whose honest example is empty: a query's vector, whose length is the tenant's, and what a whole answer lacks."""


def parts_of(schema: Any, at: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every property below a schema that is written out in place."""
    if isinstance(schema, dict):
        for name, held in schema.get("properties", {}).items():
            yield f"{at}.{name}", held
        for key, value in schema.items():
            yield from parts_of(value, f"{at}.{key}")
    elif isinstance(schema, list):
        for number, value in enumerate(schema):
            yield from parts_of(value, f"{at}[{number}]")


def described() -> Iterator[tuple[str, dict[str, Any], str | None]]:
    """Where, schema and description of every property of models and bodies, every parameter and every header."""
    found = list(DOCUMENT["components"]["schemas"].items())
    for path, method, operation in OPERATIONS:
        bodies = operation.get("requestBody", {}).get("content", {}).values()
        found += [(f"{method} {path}", media["schema"]) for media in bodies]
        for each in operation.get("parameters", []):
            yield f"{method} {path} {each['name']}", each["schema"], each.get("description")
    for name, schema in found:
        yield from ((at, held, held.get("description")) for at, held in parts_of(schema, name))
    for name, each in DOCUMENT["components"]["headers"].items():
        yield name, each["schema"], each["description"]


def test_everything_is_described_with_an_example_that_shows_something() -> None:
    """Seen to fail with a field, a parameter and a header left bare, and with an empty list for hits."""
    every = list(described())
    assert len(every) > 250
    assert [at for at, schema, words in every if not words or not schema.get("examples")] == []
    empty = [at for at, schema, _ in every if schema["examples"][0] in (None, "", [], {}, [None])]
    assert {at.rpartition(".")[2] for at in empty} <= SHOWS_NOTHING, empty


def test_every_operation_says_what_it_does() -> None:
    """Beside its summary. Seen to fail with the tenant's settings and `healthz` left to theirs."""
    bare = [
        f"{method} {path}" for path, method, each in OPERATIONS if not (each.get("summary") and each.get("description"))
    ]
    assert bare == []


def test_every_example_is_of_its_own_schema() -> None:
    """Seen to fail with a hit that lacks its ranks, and with a status as a string."""
    components = {"components": DOCUMENT["components"]}
    wrong = [
        (at, example)
        for at, schema, _ in described()
        for example in schema["examples"]
        if not jsonschema_rs.Draft202012Validator({**schema, **components}).is_valid(example)
    ]
    assert wrong == []


def test_the_bundle_that_is_shown_is_one() -> None:
    """Its text and its counts of tokens. Seen to fail with another text."""
    text = render_text(examples.BUNDLE)
    assert text == examples.BUNDLE_TEXT
    assert examples.SECTION["tokens"] == tokens.count(section_text(examples.SECTION))
    assert examples.BUNDLE["tokens"] == tokens.count(text)


def test_every_success_has_a_schema() -> None:
    """Under the media type that is sent. Seen to fail with the bundle's model left out, and with lines as JSON."""
    sent: dict[str, set[str]] = {}
    for path, method, operation in OPERATIONS:
        successes = {status: each for status, each in operation["responses"].items() if status.startswith("2")}
        assert successes, (method, path)
        for status, response in successes.items():
            for media, content in response["content"].items():
                assert content["schema"], (method, path, status, media)
                sent.setdefault(media, set()).add(operation["operationId"])
    assert sent.pop("application/json") > {"get_context", "post_context", "search"}
    assert sent == {
        "text/plain": {"get_context", "post_context", "metrics"},
        NDJSON: {"batch_context", "get_export"},
    }


def test_every_answer_names_its_headers() -> None:
    """Seen to fail with a route that names none of a problem's."""
    used: set[str] = set()
    for path, method, operation in OPERATIONS:
        for status, response in operation["responses"].items():
            names = set(response["headers"])
            used |= names
            assert response["headers"]["X-Request-Id"] == {"$ref": "#/components/headers/X-Request-Id"}
            assert ("RateLimit" in names) == path.startswith("/v1/"), (method, path)
            assert ("Retry-After" in names) == (status == "default"), (method, path)
    assert used == set(HEADERS) == set(DOCUMENT["components"]["headers"])
    context = DOCUMENT["paths"]["/v1/tenants/{tenant}/entities/{entity}/context"]["get"]["responses"]
    assert set(context) == {"200", "304", "default"}
    assert "content" not in context["304"]
    assert context["304"]["headers"] == context["200"]["headers"]
    assert list(context["default"]["content"]) == ["application/problem+json"]


def test_every_link_leads_to_an_operation_and_its_parameters() -> None:
    """Seen to fail with a parameter misspelt."""
    by_id = {operation["operationId"]: operation for _, _, operation in OPERATIONS}
    assert len(by_id) == len(OPERATIONS)
    links = [
        link
        for operation in by_id.values()
        for response in operation["responses"].values()
        for link in response.get("links", {}).values()
    ]
    assert len(links) > 8
    for link in links:
        target = by_id[link["operationId"]]
        assert set(link["parameters"]) <= {parameter["name"] for parameter in target["parameters"]}, link


def test_the_document_is_json() -> None:
    json.dumps(DOCUMENT)
