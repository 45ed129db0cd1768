"""What is asked of a service, as values without I/O: a call is one request and how its answer reads; a listing
is a row of requests whose answers are read line by line. Both faces of the client send the same ones.
"""

from __future__ import annotations

import hashlib
import itertools
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Generic, Protocol, TypeVar
from urllib.parse import quote

import orjson
import zstandard

from context_plane.client.problems import error_of_problem
from context_plane.client.values import (
    Accepted,
    Bundle,
    Consistency,
    Event,
    EventLike,
    Format,
    Ingested,
    NoBundle,
    Visible,
)
from context_plane.errors import Unavailable

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

EVENTS_MAX: Final = 10_000
"""Of one request: the service's limit."""
BATCH_BYTES: Final = 8 * 1024 * 1024
"""A load sends at this size: with one more event of the largest size the service's 16 MiB still hold it."""
BATCH_ENTITIES: Final = 10_000
"""Of one `context:batch`: the service reads what it needs for them before its first line, and takes 50,000."""
_WRITE_OPTIONS: Final = orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY
_ZSTD_LEVEL: Final = 3


@dataclass(frozen=True, slots=True)
class Request:
    """`path`: below the tenant, or below all tenants. `repeatable`: sending it twice does what sending it once does."""

    method: str
    path: str
    params: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    repeatable: bool = True
    of_tenant: bool = True


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that is no problem. Names of headers are of any case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    request: Request
    parse: Callable[[Reply], T]


class Listing(Protocol[T_co]):
    """Many items, over as many requests as it takes. Has a state: iterated once."""

    def following(self) -> Request | None:
        """The next request, once the answer before is read; None at the end."""

    def items(self, line: bytes) -> Iterable[T_co]:
        """What a line of the answer holds."""


class Pages(Generic[T]):
    """A listing by cursor: an answer is one line. `limit`: stop after so many items; None: all of them."""

    def __init__(
        self,
        path: str,
        params: Mapping[str, Any],
        *,
        page: int,
        limit: int | None,
        read: Callable[[bytes], tuple[list[T], str | None]],
        of_tenant: bool = True,
    ) -> None:
        self._path, self._params, self._read, self._of_tenant = path, params, read, of_tenant
        self._page, self._left = page, limit
        self._cursor: str | None = None
        self._done = limit == 0

    def following(self) -> Request | None:
        if self._done:
            return None
        size = self._page if self._left is None else min(self._page, self._left)
        request = get(self._path, {**self._params, "limit": size, "cursor": self._cursor})
        return replace(request, of_tenant=self._of_tenant)

    def items(self, line: bytes) -> list[T]:
        found, self._cursor = self._read(line)
        if self._left is not None:
            self._left -= len(found)
        self._done = self._cursor is None or self._left == 0
        return found


class Bundles:
    """Bundles of many entities at one cut: that of the first request, or the one given. None: every entity."""

    def __init__(
        self,
        entities: Iterable[str] | None,
        *,
        spec: str | None,
        as_of: str | None,
        form: Format,
        snapshot: str | None,
        consistency: Consistency | None,
    ) -> None:
        self._lists: Iterator[list[str] | str] = iter(["*"]) if entities is None else _lists(entities)
        self._asked = {"spec": spec, "as_of": as_of, "format": form, "consistency": consistency}
        self._form: Format = form
        self._snapshot = snapshot

    def following(self) -> Request | None:
        entities = next(self._lists, None)
        if entities is None:
            return None
        return post("/context:batch", {**self._asked, "entities": entities, "snapshot": self._snapshot})

    def items(self, line: bytes) -> list[Bundle | NoBundle]:
        """Raises what broke the answer off."""
        held = orjson.loads(line)
        if "entity" not in held:
            raise error_of_problem(held["error"])
        self._snapshot = snapshot = held["snapshot"]
        if "error" in held:
            return [NoBundle(held["entity"], error_of_problem(held["error"]))]
        content = held["text"] if self._form == "text" else orjson.dumps(held["bundle"]).decode()
        tag = f'"{held["digest"]}"' if self._form == "json" else f'"{held["digest"]}-text"'
        return [Bundle(held["entity"], self._form, content, tag, snapshot, held["freshness"])]


class Exported:
    """Every event of one cut: one request, a line an event."""

    def __init__(self, request: Request) -> None:
        self._request: Request | None = request

    def following(self) -> Request | None:
        request, self._request = self._request, None
        return request

    def items(self, line: bytes) -> list[Event]:
        """Raises what broke the answer off."""
        held = orjson.loads(line)
        if "error" in held:
            raise error_of_problem(held["error"])
        event: Event = held
        return [event]


def _lists(entities: Iterable[str]) -> Iterator[list[str]]:
    held = iter(entities)
    while part := list(itertools.islice(held, BATCH_ENTITIES)):
        yield part


class Lines:
    """Bytes as they come, cut at line feeds alone (`str.splitlines` would cut inside of texts)."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that this chunk completes, empty ones left out."""
        head, found, rest = chunk.rpartition(b"\n")
        if not found:
            self._parts.append(chunk)
            return []
        whole = b"".join([*self._parts, head])
        self._parts = [rest]
        return [line for line in whole.split(b"\n") if line]

    def rest(self) -> list[bytes]:
        last = b"".join(self._parts)
        return [last] if last else []


class Loading:
    """A load of any length as writes within the limits. `run` names it: the same events under the same name, with the
    same `visible`, are written once in 24 hours, whoever sends them."""

    def __init__(self, visible: Visible, run: str | None) -> None:
        self._visible: Visible = visible
        self._run = run or uuid.uuid4().hex
        self._lines: list[bytes] = []
        self._bytes = self._sent = 0
        self.total = Ingested()

    def add(self, event: EventLike) -> bool:
        """Take one event in. True: it is time to `take`."""
        line = line_of(event)
        self._lines.append(line)
        self._bytes += len(line)
        return len(self._lines) == EVENTS_MAX or self._bytes >= BATCH_BYTES

    def take(self) -> Call[Accepted] | None:
        """The write of what was added since; None when nothing was. Compresses: some hundredths of a second."""
        if not self._lines:
            return None
        ndjson = b"".join(self._lines)
        self._lines, self._bytes = [], 0
        asked = f"{self._run} {self.total.requests} {self._visible} {_digest(ndjson)}"
        name = uuid.uuid5(uuid.NAMESPACE_OID, asked)
        made = write_call(ndjson, visible=self._visible, idempotency_key=f"load-{name}")
        self._sent = len(made.request.content or b"")
        return made

    def done(self, accepted: Accepted) -> Ingested:
        """Count the write that was taken last."""
        before = self.total
        self.total = Ingested(
            before.events + accepted.accepted + accepted.duplicates,
            before.requests + 1,
            before.bytes_sent + self._sent,
            before.days | frozenset(accepted.days),
            accepted.snapshot,
        )
        return self.total


# --- requests -----------------------------------------------------------------------------------


def get(path: str, params: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None) -> Request:
    """Parameters that are None are left out; those that are lists are repeated."""
    shown: list[tuple[str, str]] = []
    for name, value in (params or {}).items():
        values = value if isinstance(value, list) else [] if value is None else [value]
        shown += [(name, str(each)) for each in values]
    return Request("GET", path, tuple(shown), headers or {})


def post(path: str, body: Mapping[str, Any], *, method: str = "POST") -> Request:
    """A JSON body without its None fields. For what may be sent twice."""
    content = orjson.dumps(
        {name: value for name, value in body.items() if value is not None}, option=orjson.OPT_SERIALIZE_NUMPY
    )
    return Request(method, path, headers={"content-type": "application/json"}, content=content)


def write_call(ndjson: bytes, *, visible: Visible, idempotency_key: str | None) -> Call[Accepted]:
    """Without a key it is not sent again once it may have arrived."""
    headers = {"content-type": "application/x-ndjson", "content-encoding": "zstd"}
    if idempotency_key is not None:
        headers["idempotency-key"] = idempotency_key
    content = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(ndjson)
    params = (("visible", visible),)
    request = Request("POST", "/events", params, headers, content, repeatable=idempotency_key is not None)
    return Call(request, lambda reply: Accepted.model_validate_json(reply.content))


def line_of(event: EventLike) -> bytes:
    return orjson.dumps(event, option=_WRITE_OPTIONS)


def name_in_path(name: str) -> str:
    """A name as one path segment; dots too, or `..` would be resolved on the way."""
    return quote(name, safe="").replace(".", "%2E")


def bundle_of(entity: str, form: Format, known: Bundle | None) -> Callable[[Reply], Bundle]:
    def parse(reply: Reply) -> Bundle:
        snapshot, freshness = reply.headers["x-snapshot"], reply.headers["x-freshness"]
        content, tag = reply.content.decode(), reply.headers["etag"]
        if reply.status == 304:
            if known is None:
                raise Unavailable("internal", "the answer says unchanged, and nothing was known; check proxies between")
            content, tag = known.content, known.etag
        return Bundle(entity, form, content, tag, snapshot, freshness)  # type: ignore[arg-type]  # the contract's words

    return parse


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
