"""One service and its ways in: the router, the direct way, and what is kept of the direct way's answers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import orjson
import pytest

from context_plane.cache.recent import Held
from serving import direct
from serving.app import Envelope

if TYPE_CHECKING:
    from tests.serving.conftest import Served

CONTEXT = b"/v1/tenants/acme/entities/acct-1/context"
NEVER = re.compile(r"(?!)")
ODD = "a/b ü%?#"

Headers: TypeAlias = list[tuple[bytes, bytes]]
Way: TypeAlias = Literal["routed", "direct", "kept", "any"]
"""`kept`: as any request goes, at a moment when nothing asks to be confirmed."""
WAYS: tuple[Way, ...] = ("routed", "direct", "kept")
Answer: TypeAlias = tuple[int, Headers, bytes, dict[str, object]]
"""Status, headers, body, and what metrics are told."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request as a server hands it over. `key`: the header of the tenant's own key is added."""

    path: bytes
    query: bytes = b""
    method: str = "GET"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    key: bool = True


@dataclass(slots=True)
class Doors:
    """`was_kept`: whether the last answer was one that was kept."""

    served: Served
    key: bytes
    monkeypatch: pytest.MonkeyPatch
    etag: bytes = b""
    was_kept: bool = field(default=False, init=False)

    async def ask(self, ask: Ask, way: Way = "any") -> Answer:
        given = [(b"host", b"127.0.0.1"), (b"x-request-id", b"same"), *ask.headers]
        if ask.key:
            given.append((b"authorization", self.key))
        scope: dict[str, Any] = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": "",
            "method": ask.method, "path": ask.path.decode("latin-1"), "raw_path": ask.path,
            "query_string": ask.query, "headers": given, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
        }  # fmt: skip
        sent: list[dict[str, Any]] = []
        told: list[dict[str, object]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": ask.body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        with self.monkeypatch.context() as patched:
            self._choose(patched, way)
            patched.setattr(self.served.service.metrics, "observe", lambda **labels: told.append(labels))
            await self.served.app(scope, receive, send)
        body = b"".join(message.get("body", b"") for message in sent[1:])
        (labels,) = told
        labels.pop("seconds")
        return sent[0]["status"], list(sent[0]["headers"]), body, labels

    def _choose(self, patched: pytest.MonkeyPatch, way: Way) -> None:
        app: Any = self.served.app
        if way == "routed":
            patched.setattr(direct, "_CONTEXT", NEVER)
            patched.setattr(direct, "_SEARCH", NEVER)
        if way in ("routed", "direct"):
            patched.setattr(app.kept, "get", lambda asked: None)
        if way == "kept":
            patched.setattr(Held, "fresh", lambda held, now_s: not held.ended)
        enveloped, self.was_kept = Envelope.__call__, True

        async def noted(envelope: Envelope, *request: Any) -> None:
            self.was_kept = False
            await enveloped(envelope, *request)

        patched.setattr(Envelope, "__call__", noted)

    async def same(self, ask: Ask) -> Answer:
        """The answer, which all ways give. Asked once before: what is cold is said by the first alone."""
        await self.ask(ask, "routed")
        routed, straight, again = [await self.ask(ask, way) for way in WAYS]
        assert _comparable(straight) == _comparable(routed), ask
        assert _comparable(again) == _comparable(routed), ask
        return again


def _comparable(answer: Answer) -> tuple[int, Headers, object, dict[str, object]]:
    """All of it, without the times that a search took and the length they lend its body."""
    status, headers, body, labels = answer
    if b'"ms":' in body:
        shown = orjson.loads(body)
        shown["stats"].pop("ms")
        return status, [pair for pair in headers if pair[0] != b"content-length"], shown, labels
    return status, headers, body, labels


def of(entity: bytes) -> bytes:
    return CONTEXT.replace(b"acct-1", entity)
