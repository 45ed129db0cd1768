"""Lines of JSON: one a request and one a defect, that name requests and nobody else."""

from __future__ import annotations

import io
import logging
import logging.config
from typing import Any

import orjson
import pytest

from context_plane.settings import Settings
from serving import logs
from tests.serving.conftest import event, serve

DAY = "2026-03-04"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What the loggers of the service write, through the formatter of `--log-format json`."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logs.JsonLines())
    logger = logging.getLogger("context_plane")
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "level", logging.INFO)
    monkeypatch.setattr(logger, "propagate", False)
    return written


def read(written: io.StringIO) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in written.getvalue().splitlines()]


async def test_a_request_is_one_line_and_names_nobody(settings: Settings, lines: io.StringIO) -> None:
    """Through every door. Seen to fail with kept answers left out, and with the path in place of the route."""
    async with serve(settings, log_requests=True) as served:
        await served.create()
        await served.write(event())
        await served.service.plane.build("acme", [DAY])
        key = await served.key("acme", "read")
        lines.truncate(0)
        lines.seek(0)
        for n in range(3):
            sent = key | {"x-request-id": f"r-{n}"}
            answer = await served.client.get(f"{served.base}/entities/acct-0042/context", headers=sent)
            assert answer.headers["x-request-id"] == f"r-{n}"
        await served.client.get(f"{served.base}/entities/acct-0042/timeline", headers=key)
        await served.client.get("/no/secret")
        found = read(lines)
    assert [line["request_id"] for line in found[:3]] == ["r-0", "r-1", "r-2"]
    assert {line["route"] for line in found[:3]} == {"/v1/tenants/{tenant}/entities/{entity}/context"}
    assert {line["key"] for line in found[:4]} == {key["authorization"][10:26]}
    assert (found[2]["status"], found[2]["cache"], found[2]["level"]) == (200, "memory", "info")
    assert (found[4]["route"], found[4]["status"]) == ("none", 404)
    assert "key" not in found[4]
    assert all(line["ms"] >= 0 for line in found)
    token = key["authorization"].removeprefix("Bearer ")
    assert not any(name in lines.getvalue() for name in ("acme", "acct", "secret", token))


async def test_a_refused_key_is_named_as_an_admitted_one_is(settings: Settings, lines: io.StringIO) -> None:
    """Seen to fail with only those named whom a tenant's route admits."""
    async with serve(settings, log_requests=True) as served:
        await served.create()
        key = await served.key("acme", "read")
        lines.truncate(0)
        lines.seek(0)
        asks = [("GET", "/v1/tenants"), ("DELETE", served.base), ("GET", "/v1/tenants/globex"), ("POST", "/mcp")]
        statuses = [(await served.client.request(how, where, headers=key)).status_code for how, where in asks]
        forged = {"authorization": key["authorization"][:-1] + ("1" if key["authorization"][-1] == "0" else "0")}
        assert (await served.client.get("/v1/tenants", headers=forged)).status_code == 401
        found = read(lines)
    assert statuses[:3] == [200, 403, 404]
    assert [line.get("key") for line in found] == [key["authorization"][10:26]] * 4 + [None]


async def test_a_defect_is_a_line_with_the_id_of_its_request(
    settings: Settings, lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail with the id in the message alone."""
    async with serve(settings, log_requests=False) as served:
        await served.create()

        async def broken(*_: object) -> None:
            raise ValueError("a defect")

        monkeypatch.setattr(type(served.service.plane), "snapshot_info", broken)
        answer = await served.client.get(f"{served.base}/snapshot", headers={"x-request-id": "r-9"})
        assert answer.status_code == 500
    found = read(lines)
    assert {(line["request_id"], line["level"], line["logger"]) for line in found} == {
        ("r-9", "error", "context_plane.serving")
    }
    assert "ValueError: a defect" in found[0]["error"]


async def test_text_is_as_it_was(settings: Settings, lines: io.StringIO) -> None:
    async with serve(settings) as served:
        await served.create()
    assert lines.getvalue() == ""
    assert logs.config("text") is None


def test_the_configuration_is_one_that_python_takes() -> None:
    own = logs.config("json")
    assert own is not None
    logging.config.DictConfigurator(own)
    assert own["formatters"]["json"]["()"] == f"{logs.JsonLines.__module__}.{logs.JsonLines.__qualname__}"
