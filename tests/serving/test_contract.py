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
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from pydantic import BaseModel
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.core.result import Ok
from schemathesis.core.transforms import UNRESOLVABLE
from schemathesis.generation.stateful.state_machine import StepOutput
from schemathesis.specs.openapi.checks import positive_data_acceptance
from schemathesis.specs.openapi.stateful.links import OpenApiLink

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


UNTELLABLE: Final = {"cursor", "snapshot", "spec", "as_of"}
"""Parameters of which only an earlier answer knows a value."""
ONE_A_PAGE: Final = {"limit": 1, "order": "asc"}
"""What a page is asked for whose link leads to the next: there is one."""


def links_of(schema: Any) -> list[OpenApiLink]:
    """Every link of the document."""
    operations = [each.ok() for each in schema.get_all_operations()]
    return [
        OpenApiLink(name, status, link, operation)
        for operation in operations
        for status, response in operation.responses.items()
        for name, link in response.iter_links()
    ]


def chains(links: list[OpenApiLink]) -> Iterator[tuple[OpenApiLink, ...]]:
    """Every way along the links that begins where none leads, has none twice and ends where none goes on."""
    leads_to = {link.target.label for link in links}
    ways: list[tuple[OpenApiLink, ...]] = [(link,) for link in links if link.source.label not in leads_to]
    while ways:
        way = ways.pop()
        further = [link for link in links if link.source.label == way[-1].target.label and link not in way]
        ways += [(*way, link) for link in further]
        if not further:
            yield way


CHAINS: Final = list(chains(links_of(schemathesis.openapi.from_dict(DOCUMENT))))


def follow(link: OpenApiLink, output: StepOutput, case: Any) -> set[str]:
    """Put what an answer said into the next request; the names of what it said."""
    extracted = link.extract(output).parameters
    told = {
        (container, name): parameter.value.ok()
        for container, by_name in extracted.items()
        for name, parameter in by_name.items()
        if isinstance(parameter.value, Ok) and parameter.value.ok() not in (None, UNRESOLVABLE)
    }
    for (container, name), value in told.items():
        getattr(case, container)[name] = value
    return {name for _, name in told}


def test_the_chains_have_every_link() -> None:
    links = links_of(schemathesis.openapi.from_dict(DOCUMENT))
    assert {link.full_name for way in CHAINS for link in way} == {link.full_name for link in links} != set()


@pytest.mark.parametrize("way", CHAINS, ids=lambda way: " > ".join([way[0].source.label, *(w.name for w in way)]))
def test_chains_along_links_find_nothing(api: Api, way: tuple[OpenApiLink, ...]) -> None:
    """Writes, then what their answers lead to: snapshots, changes, pages; erasures, then their states. Every link is
    followed: with what the answer before said, to an answer that is no problem. All requests of a chain are drawn
    before the first is sent, so no answer changes what is drawn. Seen to fail with a link's expression that finds
    nothing and with a next page whose cursor is refused."""
    followed = Counter[str]()
    labels = [way[0].source.label, *(link.target.label for link in way)]
    pages = {link.source.label for link in way if link.source.label == link.target.label}
    operations = {each.ok().label: each.ok() for each in api.schema.get_all_operations()}

    @seed(SEED)
    @settings(UNHURRIED, max_examples=2 * EXAMPLES)
    @given(cases=st.tuples(*(operations[label].as_strategy() for label in labels)))
    def ask(cases: tuple[Any, ...]) -> None:
        output: StepOutput | None = None
        for link, case in zip([None, *way], cases, strict=True):
            if case.operation.label in pages:
                case.query = dict(ONE_A_PAGE)
            told = set() if link is None or output is None else follow(link, output, case)
            for name in UNTELLABLE - told:
                case.query.pop(name, None)
            api.aim(case)
            response = case.call_and_validate(excluded_checks=EXCLUDED, timeout=10)
            if response.status_code >= 300:
                return
            output = StepOutput(response, case)
            if link is not None and told == {each.name for each in link.parameters}:
                followed[link.full_name] += 1

    ask()
    assert {link.full_name for link in way} - set(followed) == set()
