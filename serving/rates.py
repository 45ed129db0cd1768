"""Rates: how many requests and bytes a second one process answers a key, and the header fields that tell so.

A key's own limit holds for that key alone. Where it has none, its tenant's holds, which all such keys of the tenant
share. Each limit is a token bucket that holds a second's worth, and at least one request. A request is paid when it
is admitted. Bytes are what a search goes through, cached or not, and what any answer sends: they are known only then,
so they are paid afterwards, the level may fall below zero, and whoever asks next waits for it to rise again. A
request that is refused for one of these buckets pays nothing; one that the key does not open pays from the key's own
bucket; one that is refused later (a full tail, the tenant's rate of events) has paid itself, and not the bytes of its
refusal.

Who has no limit pays nothing and is told nothing. Fields: draft-ietf-httpapi-ratelimit-headers-11 (May 2026), whose
`content-bytes` these bytes are; a token bucket is told as a window of the time in which it fills.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from cachetools import LRUCache

from context_plane.access import AccessKey
from context_plane.errors import Unavailable
from context_plane.tenants import Tenant
from serving.limits import EVENTS_MAX

Unit: TypeAlias = Literal["requests", "bytes", "events"]
Field: TypeAlias = tuple[bytes, bytes]

REFUSALS_PER_S: Final = 100.0
"""Of a key without a rate of its own: tenants that it does not open, or for which it lacks the scope. More are no
mistakes, and each asks the store."""
BUCKETS_MAX: Final = 10_000
"""Least recently looked for go first. One in use is looked for whenever its key's record is: every 5 s."""


@dataclass(slots=True, eq=False)
class Bucket:
    """Tokens at `at_s`, monotonic seconds: `level` of at most `size`, `per_s` more each second."""

    per_s: float
    size: float
    level: float
    at_s: float

    def refill(self, now_s: float) -> float:
        """The level now."""
        level = self.level + (now_s - self.at_s) * self.per_s
        self.level = level = min(level, self.size)
        self.at_s = now_s
        return level

    @property
    def window_s(self) -> int:
        """In how many seconds an empty bucket fills."""
        return max(1, math.ceil(self.size / self.per_s))

    @property
    def wait_s(self) -> float:
        """Seconds until one token is there, as of the last refill."""
        return max(0.0, (1.0 - self.level) / self.per_s)


@dataclass(frozen=True, slots=True, eq=False)
class Allowance:
    """The buckets that one caller's requests are paid from; at least one of the two. `policy`: the field's value."""

    monotonic_s: Callable[[], float]
    requests: Bucket | None
    content: Bucket | None
    policy: bytes

    def taken(self) -> bool:
        """Pay a request; False, and nothing is paid, where a bucket is empty. Under a microsecond."""
        now_s = self.monotonic_s()
        there = self.content is None or self.content.refill(now_s) >= 1.0
        if self.requests is None:
            return there
        if self.requests.refill(now_s) < 1.0 or not there:  # both are filled: a refusal tells how long either takes
            return False
        self.requests.level -= 1.0
        return True

    def take(self) -> None:
        """Pay a request. Raises `Unavailable(rate_limited)`."""
        if not self.taken():
            wait_s = max(bucket.wait_s for bucket in (self.requests, self.content) if bucket is not None)
            raise Unavailable("rate_limited", "over the rate of the key or its tenant; slow down", retry_after_s=wait_s)

    def spend(self, count: int) -> None:
        """Pay bytes that were gone through or sent."""
        if self.content is not None:
            self.content.level -= count

    def fields(self) -> list[Field]:
        """What an answer tells of the policy and of what is left."""
        items = [_left(b"requests", self.requests), _left(b"bytes", self.content)]
        return [(b"ratelimit-policy", self.policy), (b"ratelimit", b", ".join(filter(None, items)))]


@dataclass(slots=True)
class Rates:
    """The buckets of one process, by who they belong to."""

    monotonic_s: Callable[[], float]
    _buckets: LRUCache[tuple[str, Unit], Bucket] = field(default_factory=lambda: LRUCache(BUCKETS_MAX))

    def allowance(self, key: AccessKey | None, tenant: Tenant) -> Allowance | None:
        """What a caller with this key pays from; None where nothing limits it."""
        shared = f"tenant {tenant.tenant}"
        requests = self._bucket("requests", shared, tenant.settings.requests_per_s)
        content = self._bucket("bytes", shared, tenant.settings.bytes_per_s)
        if key is not None and key.requests_per_s is not None:
            requests = self._bucket("requests", f"key {key.id}", key.requests_per_s)
        if key is not None and key.bytes_per_s is not None:
            content = self._bucket("bytes", f"key {key.id}", key.bytes_per_s)
        if requests is None and content is None:
            return None
        return Allowance(self.monotonic_s, requests, content, _policy(requests, content))

    def pay_refusal(self, key: AccessKey) -> None:
        """Pay what is refused to a key: the store was asked for it too. Raises `Unavailable(rate_limited)`."""
        own = key.requests_per_s
        owner, per_s = (f"refused {key.id}", REFUSALS_PER_S) if own is None else (f"key {key.id}", own)
        Allowance(self.monotonic_s, self._bucket("requests", owner, per_s), None, b"").take()

    @contextmanager
    def events(self, tenant: Tenant, count: int) -> Iterator[None]:
        """Pay events that are written inside; a full request may always come at once. Given back where that fails, not
        where it is cancelled: the append goes on then. Raises `Unavailable(rate_limited)`."""
        bucket = self._bucket("events", f"tenant {tenant.tenant}", tenant.settings.events_per_s, size_min=EVENTS_MAX)
        if bucket is None:
            yield
            return
        if bucket.refill(self.monotonic_s()) < count:
            wait_s = (count - bucket.level) / bucket.per_s
            raise Unavailable("rate_limited", "over the tenant's rate of events; slow down", retry_after_s=wait_s)
        bucket.level -= count
        try:
            yield
        except Exception:
            bucket.level += count
            raise

    def _bucket(self, unit: Unit, owner: str, per_s: float | None, *, size_min: float = 1.0) -> Bucket | None:
        if per_s is None:
            return None
        bucket = self._buckets.get((owner, unit))
        if bucket is None or bucket.per_s != per_s:
            size = max(size_min, per_s)
            bucket = self._buckets[owner, unit] = Bucket(per_s, size, size, self.monotonic_s())
        return bucket


def _policy(requests: Bucket | None, content: Bucket | None) -> bytes:
    items = []
    if requests is not None:
        items.append(b'"requests";q=%d;w=%d' % (requests.size, requests.window_s))
    if content is not None:
        items.append(b'"bytes";q=%d;qu="content-bytes";w=%d' % (content.size, content.window_s))
    return b", ".join(items)


def _left(name: bytes, bucket: Bucket | None) -> bytes:
    """What is left, and how long no more may be used than that."""
    if bucket is None:
        return b""
    seconds = bucket.window_s if bucket.level >= 1.0 else max(1, math.ceil(bucket.wait_s))
    return b'"%b";r=%d;t=%d' % (name, max(0, bucket.level), seconds)
