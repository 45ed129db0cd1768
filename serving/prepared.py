"""Bundles read from memory, kept as whole answers and sent again while all they were read under still stands.

Nothing is decided here. The normal path admits, reads and answers; what it answered is kept under the exact bytes of
the request (path, query, Authorization) beside its witnesses: the key's record, the tenant's and the cut, as this
process holds them. A holder ends a record that it replaces, forgets or pushes out, and says for how long it uses one
unconfirmed. So an answer is sent again while no witness ended and none is to be confirmed; else the normal path
answers, confirms beside that, and keeps its answer anew. Asked each time: the key's end, the requests in flight,
the rate, `If-None-Match`. Keys are looked up by a hash that is seeded at random per process, not compared.
"""

from __future__ import annotations

import itertools
import math
import os
import re
import time
from dataclasses import dataclass
from typing import Final, TypeAlias

from starlette.types import ASGIApp, Receive, Scope, Send

from context_plane.access import AccessKey
from context_plane.cache.recent import Held
from context_plane.recall.values import BundleAnswer
from context_plane.retrieval.snapshots import Outline
from context_plane.tenants import Tenant
from serving import read
from serving.auth import Caller
from serving.describe import Plain
from serving.headers import header
from serving.limits import Ledger
from serving.observer import Observer
from serving.rates import Allowance
from serving.service import Service

ANSWERS_MAX: Final = 8_192
BYTES_MAX: Final = 64 * 1024 * 1024
"""Of all answers kept: 8,192 of the usual 4 to 8 KB. JSON bodies are the very objects that the cache holds."""
ANSWER_BYTES_MAX: Final = 1024 * 1024
"""A larger answer costs more to send than to find."""
OVERHEAD_BYTES: Final = 2048
"""Of an answer beside its body and its request: headers, the objects themselves."""
TOUCH_S: Final = 1.0
"""How often the cache and the warmer hear of an answer that is sent again: what is read must not look cold to them."""
CACHE_READS: Final = 2
"""Values in memory that a bundle is read from, a bucket and a block: so a bundle counts among the cache's hits."""
NOSNIFF: Final = (b"x-content-type-options", b"nosniff")
ROUTE: Final = read.router.prefix + "/entities/{entity}/context"

Asked: TypeAlias = tuple[bytes | None, bytes, bytes | None]
"""Raw path, query string, Authorization."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class RequestIds:
    """The ids of one app's requests: 16 hex, of which half is random per app and half counted on from anywhere."""

    def __init__(self) -> None:
        self._app = os.urandom(4).hex().encode()
        self._numbers = itertools.count(int.from_bytes(os.urandom(4)))

    def of(self, given: bytes) -> bytes:
        """The id that the caller gave, where it is one; else a new one."""
        return given if _REQUEST_ID.fullmatch(given) else b"%b%08x" % (self._app, next(self._numbers) & 0xFFFFFFFF)


@dataclass(slots=True, eq=False)
class Kept:
    """An answer and what it was given under. `headers` and `unchanged`: of the whole answer, and of a 304."""

    service: Service
    bundle: BundleAnswer
    as_of: str | None
    key: Held[AccessKey | None]
    tenant: Held[Tenant | None]
    cut: Held[Outline]
    key_id: str
    ends_us: int | None
    allowance: Allowance | None
    tag: str
    headers: list[tuple[bytes, bytes]]
    unchanged: list[tuple[bytes, bytes]]
    body: bytes
    touched_s: float = -math.inf

    def stands(self, now_s: float) -> bool:
        """Whether the normal path would answer this, and would neither wait nor ask the store for anything."""
        if not (self.key.fresh(now_s) and self.tenant.fresh(now_s) and self.cut.fresh(now_s)):
            return False
        return self.ends_us is None or self.service.plane.engine.now_us() < self.ends_us

    def read(self, now_s: float) -> bool:
        """Count the read where reads are counted; False when the bundle is no longer in the cache."""
        plane = self.service.plane
        if now_s - self.touched_s <= TOUCH_S:
            plane.cache.stats.memory_hits += CACHE_READS
            return True
        tenant, bundle = self.cut.value.tenant, self.bundle
        if plane.bundles.held(tenant, bundle.entity, spec=bundle.spec, as_of=self.as_of) is None:
            return False
        plane.warmer.note_bundle(tenant, bundle.entity, bundle.spec)
        self.touched_s = now_s
        return True

    def taken(self) -> bool:
        """Pay the request; False when the rate is used up."""
        return self.allowance is None or self.allowance.taken()


class KeptAnswers:
    """Answers by request, the longest kept go first. Holds keys as they were sent: it never leaves the process."""

    def __init__(self) -> None:
        self._kept: dict[Asked, Kept] = {}
        self._bytes = 0
        self.get = self._kept.get

    def keep(self, scope: Scope, caller: Caller, query: read.ContextQuery, bundle: BundleAnswer, sent: Plain) -> None:
        """Keep what was answered, if it came from memory under what this process still holds. No await before this."""
        if caller.key is None or query.snapshot is not None or query.consistency == "strong":
            return
        if bundle.cache != "memory":
            return
        service = caller.service
        key = service.keyring.look(caller.key.id)
        tenant, cut = service.tenants.look(caller.name), service.plane.snapshots.look(caller.name)
        if key is None or tenant is None or cut is None or cut.value.id != bundle.snapshot:
            return
        if key.value is not caller.key or tenant.value is not caller.tenant:
            return
        whole = sent if sent.status_code == 200 else read.bundle_response(bundle, query.format, "")
        headers = list(whole.raw_headers)
        self._add(
            _asked(scope),
            Kept(
                service=service,
                bundle=bundle,
                as_of=query.as_of,
                key=key,
                tenant=tenant,
                cut=cut,
                key_id=caller.key.id,
                ends_us=caller.key.ends_us,
                allowance=caller.allowance,
                tag=dict(headers)[b"etag"].decode("latin-1"),
                headers=headers,
                unchanged=list(read.bundle_response(bundle, query.format, "*").raw_headers),
                body=bytes(whole.body),
            ),
        )

    def _add(self, asked: Asked, kept: Kept) -> None:
        size = _size(asked, kept)
        self.drop(asked)
        if asked[0] is None or size > ANSWER_BYTES_MAX:
            return
        self._kept[asked] = kept
        self._bytes += size
        while self._bytes > BYTES_MAX or len(self._kept) > ANSWERS_MAX:
            self.drop(next(iter(self._kept)))

    def drop(self, asked: Asked) -> None:
        kept = self._kept.pop(asked, None)
        if kept is not None:
            self._bytes -= _size(asked, kept)

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        self._kept.clear()
        self._bytes = 0


class Prepared:
    """ASGI middleware, the outermost: what is not kept goes on to `app`. Its envelope is said here for what is."""

    def __init__(self, app: ASGIApp, kept: KeptAnswers, ids: RequestIds, *, ledger: Ledger, observer: Observer) -> None:
        self._app = app
        self._ids = ids
        self._answers = kept
        self._ledger = ledger
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        started_s = time.perf_counter()
        authorization = condition = given = None
        for name, value in reversed(scope["headers"]):  # of a header sent twice, the first is read
            if name == b"authorization":
                authorization = value
            elif name == b"if-none-match":
                condition = value
            elif name == b"x-request-id":
                given = value
        asked = (scope.get("raw_path"), scope["query_string"], authorization)
        kept = self._answers.get(asked)
        if kept is None or not self._usable(asked, kept):
            await self._app(scope, receive, send)
            return
        status, headers, body = 200, kept.headers, kept.body
        if condition is not None and read.names(condition.decode("latin-1"), kept.tag):
            status, headers, body = 304, kept.unchanged, b""
        request_id = self._ids.of(given or b"")
        headers = [*headers, (b"x-request-id", request_id), NOSNIFF]
        if kept.allowance is not None:
            headers += kept.allowance.fields()
            kept.allowance.spend(len(body))
        self._ledger.requests += 1
        begun = self._observer.begin(scope)
        try:
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        finally:
            self._ledger.requests -= 1
            self._observer.end(
                begun,
                method="GET",
                route=ROUTE,
                status=status,
                cache="memory",
                seconds=time.perf_counter() - started_s,
                request_id=request_id.decode(),
                key=kept.key_id,
            )

    def _usable(self, asked: Asked, kept: Kept) -> bool:
        """Whether the answer may be sent; its token is taken then, and its read counted."""
        now_s = kept.service.plane.engine.monotonic_s()
        if not kept.stands(now_s):
            if kept.key.ended or kept.tenant.ended or kept.cut.ended:
                self._answers.drop(asked)
            return False
        return self._ledger.requests < self._ledger.requests_max and kept.read(now_s) and kept.taken()


def _asked(scope: Scope) -> Asked:
    return scope.get("raw_path"), scope["query_string"], header(scope, b"authorization")


def _size(asked: Asked, kept: Kept) -> int:
    return len(kept.body) + sum(len(part or b"") for part in asked) + OVERHEAD_BYTES
