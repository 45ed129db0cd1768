"""The OpenAPI document against the service: every field is explained, and Schemathesis finds nothing.

A live service over a memory store, spoken to through its socket. Requests are generated from the document by a seeded
run, one operation at a time and in chains along the document's links. `CONTEXT_PLANE_CONTRACT_EXAMPLES` makes it
longer.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import positive_data_acceptance

from context_plane.settings import Settings
from serving.app import create_app
from serving.wire import EventBody
from tests.serving.conftest import JSON, NDJSON, event, ndjson

EXAMPLE = {name: field.examples[0] for name, field in EventBody.model_fields.items() if field.examples}
"""The event that the document shows: what is generated is seldom within the range of times."""
EXAMPLES = int(os.environ.get("CONTEXT_PLANE_CONTRACT_EXAMPLES", "8"))
DOCUMENT = create_app(Settings(store="memory://contract")).openapi()
OPERATIONS = [
    (path, method, operation)
    for path, by_method in DOCUMENT["paths"].items()
    for method, operation in by_method.items()
]


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


def test_every_field_and_parameter_is_described_with_an_example() -> None:
    """Seen to fail with a field of either sort left bare."""
    found = [(f"{name}", schema) for name, schema in DOCUMENT["components"]["schemas"].items()]
    found += [
        (f"{method} {path}", media.get("schema", {}))
        for path, method, operation in OPERATIONS
        for media in operation.get("requestBody", {}).get("content", {}).values()
    ]
    properties = [part for name, schema in found for part in parts_of(schema, name)]
    assert len(properties) > 100
    bare = [at for at, held in properties if not held.get("description") or not held.get("examples")]
    for path, method, operation in OPERATIONS:
        bare += [
            f"{method} {path} {parameter['name']}"
            for parameter in operation.get("parameters", [])
            if not parameter.get("description") or not parameter["schema"].get("examples")
        ]
    assert bare == []


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


# --- generated requests -------------------------------------------------------------------------


@contextmanager
def live(folder: Path) -> Iterator[str]:
    """A service on a socket of its own, with a tenant that has a built day and a tail."""
    app = create_app(Settings(store=f"memory://{folder.name}", cache_dir=folder), loopback=True)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with live(tmp_path_factory.mktemp("contract")) as url:
        with httpx.Client(base_url=url) as client:
            client.put("/v1/tenants/acme", content=b"{}", headers=JSON).raise_for_status()
            events = [event(f"acct-{n}", id=f"e{n}") for n in range(4)]
            client.post("/v1/tenants/acme/events", content=ndjson(events), headers=NDJSON).raise_for_status()
        yield schemathesis.openapi.from_dict(
            _without_security(DOCUMENT), config=SchemathesisConfig.from_dict({"base-url": url})
        )


def _without_security(document: dict[str, Any]) -> dict[str, Any]:
    """The service runs in open mode, where no key is asked for; keys have tests of their own."""
    shown: dict[str, Any] = json.loads(json.dumps(document))
    for by_method in shown["paths"].values():
        for operation in by_method.values():
            operation.pop("security", None)
    shown["components"].pop("securitySchemes", None)
    return shown


def _there(case: Any) -> None:
    """Turn a well-formed request to the tenant that there is; what erases tenants is left alone."""
    if "tenant" in (case.path_parameters or {}) and case.operation.label != "DELETE /v1/tenants/{tenant}":
        case.path_parameters["tenant"] = "acme"
    if len((case.path_parameters or {}).get("entity", "")) % 2:
        case.path_parameters["entity"] = "acct-1"
    if case.operation.label == "POST /v1/tenants/{tenant}/events":
        case.media_type, case.body = "application/json", {"events": [EXAMPLE]}


SEED = 20260304
UNHURRIED = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))
EXCLUDED = [positive_data_acceptance]
"""The document cannot say all: a filter's grammar, a time's range, that a search has text or a vector."""


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("path", "method"), [(path, method) for path, method, _ in OPERATIONS])
def test_generated_requests_find_nothing(api: Any, path: str, method: str, mode: GenerationMode) -> None:
    """Seen to fail with a field that the document lacks."""

    @seed(SEED)
    @settings(UNHURRIED, max_examples=EXAMPLES)
    @given(case=api[path][method.upper()].as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        if mode is GenerationMode.POSITIVE:
            _there(case)
        case.call_and_validate(excluded_checks=EXCLUDED, timeout=10)

    try:
        ask()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE, "a request without parameters has no wrong form"


def test_chains_along_links_find_nothing(api: Any) -> None:
    """Writes, then what their answers lead to: snapshots, changes, pages, erasures and their states."""
    machine = api.exclude(path="/v1/tenants").as_state_machine()  # what it lists depends on the chains before

    class Chains(machine):  # type: ignore[misc,valid-type]  # made at run time
        def before_call(self, case: Any) -> None:
            _there(case)

        def validate_response(self, response: Any, case: Any, **more: Any) -> None:
            case.validate_response(response, excluded_checks=EXCLUDED)

    Chains.run(settings=settings(UNHURRIED, max_examples=4 * EXAMPLES, stateful_step_count=6, derandomize=True))


def test_the_document_is_json() -> None:
    json.dumps(DOCUMENT)
