"""The service against its OpenAPI document: Schemathesis finds nothing.

A live service over a memory store, spoken to through its socket. Requests are generated from the document by a seeded
run, one operation at a time and in chains along the document's links. `CONTEXT_PLANE_CONTRACT_EXAMPLES` makes it
longer. What is left out is in docs/gaps.md.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, seed, settings
from hypothesis.errors import Unsatisfiable
from pydantic import BaseModel
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import positive_data_acceptance

from context_plane.settings import Settings
from serving.app import create_app
from serving.wire import EventBody, OnDemandBody, SearchBody
from tests.serving.conftest import DAY, JSON, event, serve
from tests.serving.test_document import DOCUMENT, OPERATIONS

EXAMPLES = int(os.environ.get("CONTEXT_PLANE_CONTRACT_EXAMPLES", "8"))
ERASE_TENANT: Final = "DELETE /v1/tenants/{tenant}"
ERASE_ENTITY: Final = "DELETE /v1/tenants/{tenant}/entities/{entity}"
WRITE: Final = "POST /v1/tenants/{tenant}/events"
ON_DEMAND: Final = "POST /v1/tenants/{tenant}/entities/{entity}/context"
UNTOLD: Final = {
    "allow", "cache-control", "connection", "content-length", "content-type", "date", "server", "transfer-encoding",
    "x-content-type-options",
}  # fmt: skip
"""Headers of HTTP itself, which the document does not tell."""


def shown(model: type[BaseModel], *names: str) -> dict[str, Any]:
    """The document's examples of these fields: what is generated seldom is a time in range, a filter, a vector."""
    return {name: (model.model_fields[name].examples or [None])[0] for name in names}


EXAMPLE = shown(EventBody, "entity", "ts", "source", "kind", "id", "thread", "text", "attrs", "op")
ACCEPTED: Final[dict[str, dict[str, Any]]] = {
    "POST /v1/tenants/{tenant}/search": {
        **shown(SearchBody, "text", "entities", "where", "since", "until", "fusion", "now", "deadline_ms"),
        "vector": None,
        "snapshot": None,
    },
    ON_DEMAND: {**shown(OnDemandBody, "spec", "text", "where", "since", "until"), "vector": None, "snapshot": None},
}
"""Queries whose well-formed form the document cannot tell: what it cannot is as its examples are, and every such
request is accepted."""
EXCLUDED: Final = [positive_data_acceptance]
"""Of all others. The document cannot tell a time's range, or which snapshots and cursors there are."""


@dataclass(slots=True)
class Api:
    """A live service and its document, read by Schemathesis."""

    url: str
    schema: Any
    names: Iterator[str] = field(default_factory=lambda: (f"gone-{n}" for n in itertools.count()))
    gone: set[str] = field(default_factory=set)
    """Tenants that were made to be erased."""

    def tenant(self) -> str:
        """A new tenant, to be erased."""
        name = next(self.names)
        self.gone.add(name)
        httpx.put(f"{self.url}/v1/tenants/{name}", content=b"{}", headers=JSON).raise_for_status()
        return name

    def aim(self, case: Any) -> None:
        """Turn a well-formed request to what there is."""
        label, path = case.operation.label, case.path_parameters or {}
        if label == ERASE_TENANT:
            path["tenant"] = self.tenant()
        elif "tenant" in path and path["tenant"] not in self.gone:
            path["tenant"] = "acme"
        entity = path.get("entity", "")
        if label == ERASE_ENTITY:
            path["entity"] = "acct-0043"
        elif not entity.startswith("acct-") and (label == ON_DEMAND or len(entity) % 2):
            path["entity"] = "acct-0042"
        if label == WRITE:
            case.media_type, case.body = "application/json", {"events": [EXAMPLE]}
        if label in ACCEPTED and isinstance(case.body, dict):
            case.body = case.body | ACCEPTED[label]


async def fill(settings: Settings) -> None:
    """`acme`, with a built day and a tail."""
    async with serve(settings) as served:
        await served.create()
        entities = [f"acct-00{n}" for n in (41, 42, 43)]
        await served.write(*(event(name, id=f"e{n}", ts=f"{DAY}T0{n}:00:00Z") for name in entities for n in range(3)))
        await served.service.plane.build("acme", [DAY])
        await served.write(*(event(name, id="tail", ts="2026-03-05T00:00:00Z") for name in entities))


@contextmanager
def live(settings: Settings) -> Iterator[str]:
    """A service on a socket of its own."""
    server = uvicorn.Server(uvicorn.Config(create_app(settings, loopback=True), port=0, log_level="error"))
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
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("contract")
    settings = Settings(store=f"memory://{folder.name}", cache_dir=folder)
    asyncio.run(fill(settings))
    with live(settings) as url:
        config = SchemathesisConfig.from_dict({"base-url": url})
        yield Api(url, schemathesis.openapi.from_dict(_without_security(DOCUMENT), config=config))


def _without_security(document: dict[str, Any]) -> dict[str, Any]:
    """The service runs in open mode, where no key is asked for; keys have tests of their own."""
    shown: dict[str, Any] = json.loads(json.dumps(document))
    for by_method in shown["paths"].values():
        for operation in by_method.values():
            operation.pop("security", None)
    shown["components"].pop("securitySchemes", None)
    return shown


def untold(response: Any, operation: Any) -> set[str]:
    """Headers of an answer that the document does not name."""
    answers = operation["responses"]
    named = answers.get(str(response.status_code), answers["default"])["headers"]
    return {name.lower() for name in response.headers} - {name.lower() for name in named} - UNTOLD


SEED = 20260304
UNHURRIED = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("path", "method"), [(path, method) for path, method, _ in OPERATIONS])
def test_generated_requests_find_nothing(api: Api, path: str, method: str, mode: GenerationMode) -> None:
    """Seen to fail with a field that the document lacks, with a header that it lacks, and with a filter that is none in
    the body of searches."""
    label, statuses = f"{method.upper()} {path}", Counter[int]()

    @seed(SEED)
    @settings(UNHURRIED, max_examples=EXAMPLES)
    @given(case=api.schema[path][method.upper()].as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        if mode is GenerationMode.POSITIVE:
            api.aim(case)
        excluded = [] if label in ACCEPTED else EXCLUDED
        response = case.call_and_validate(excluded_checks=excluded, timeout=10)
        assert untold(response, DOCUMENT["paths"][path][method]) == set()
        statuses[response.status_code] += 1

    try:
        ask()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE, "a request without parameters has no wrong form"
    if mode is GenerationMode.POSITIVE and label in ACCEPTED:
        assert set(statuses) == {200}


ERASURES: Final = ["delete_tenant", "delete_entity", "get_erasure"]
"""Chains of their own: Schemathesis begins chains with what writes, and with these where nothing else does."""
UNASKED: Final = ["get_tenants"]
"""What it lists depends on the chains before."""
UNTELLABLE: Final = {"cursor", "snapshot", "spec", "as_of"}
"""Parameters of which only an earlier answer knows a value."""


@pytest.mark.parametrize("erasures", [False, True], ids=["reads", "erasures"])
def test_chains_along_links_find_nothing(api: Api, erasures: bool) -> None:
    """Writes, then what their answers lead to: snapshots, changes, pages; erasures, then their states. Every link is
    followed: with what the answer before said, to an answer that is no problem. Seen to fail with a link's expression
    that finds nothing, and (no erasure was ever asked for) with both sorts in one."""
    if erasures:
        schema = api.schema.include(operation_id=ERASURES)
    else:
        schema = api.schema.exclude(operation_id=[*ERASURES, *UNASKED])
    machine, followed, count = schema.as_state_machine(), Counter[str](), 2 if erasures else 8

    class Chains(machine):  # type: ignore[misc,valid-type]  # made at run time
        def before_call(self, case: Any) -> None:
            api.aim(case)

        def validate_response(self, response: Any, case: Any, **more: Any) -> None:
            case.validate_response(response, excluded_checks=EXCLUDED)

        def step(self, taken: Any) -> Any:
            told = {name for _, name in taken.applied_parameters}
            for name in UNTELLABLE - told:
                taken.case.query.pop(name, None)
            output = super().step(taken)
            if taken.transition is not None and output.response.status_code < 300 and needed(taken.transition) <= told:
                followed[taken.transition.id] += 1
            return output

    Chains.run(settings=settings(UNHURRIED, max_examples=count * EXAMPLES, stateful_step_count=8, derandomize=True))
    assert links_within({operation.ok().label for operation in schema.get_all_operations()}) - set(followed) == set()


def needed(transition: Any) -> set[str]:
    """Parameters of a link that its target cannot do without."""
    every = (held for container in transition.parameters.values() for held in container.items())
    return {name for name, parameter in every if parameter.is_required}


def links_within(labels: set[str]) -> set[str]:
    """Links of the document from one of these operations to another, named as Schemathesis names them."""
    label_of = {operation["operationId"]: f"{method.upper()} {path}" for path, method, operation in OPERATIONS}
    return {
        f"{source} -> [{status}] {name} -> {label_of[link['operationId']]}"
        for source, operation in ((f"{method.upper()} {path}", operation) for path, method, operation in OPERATIONS)
        for status, response in operation["responses"].items()
        for name, link in response.get("links", {}).items()
        if {source, label_of[link["operationId"]]} <= labels
    }
