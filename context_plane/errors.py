"""Errors, grouped by what the caller does next; every error carries a stable, append-only code.

Six families: `Invalid` (change the request), `Denied` (use another key), `NotFound` (it is not
there, or no longer), `Conflict` (reread and decide), `Unavailable` (wait and retry), `Corrupt`
(stop; stored bytes are not what was written). HTTP status codes live in `serving/problems.py` only.
A message is a lowercase fact and what to do, then what it is about: `(key=value, ...)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final, Self

POINTER_NAME_CHARS_MAX: Final = 128
"""The longest name of an attribute. Longer ones are a caller's mistake, of any length."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One defect of a body: where (`line`, 1-based, or a JSON `pointer`), its code, what to do."""

    code: str
    detail: str
    line: int | None = None
    pointer: str | None = None


def pointer(*place: str | int) -> str:
    """The JSON pointer (RFC 6901) that these names and indexes make. It ends above a name that is too long to show."""
    names = takewhile(lambda name: len(name) <= POINTER_NAME_CHARS_MAX, map(str, place))
    return "".join(f"/{name.replace('~', '~0').replace('/', '~1')}" for name in names)


class PlaneError(Exception):
    """Base of every error the engine raises on purpose. `code` is one of `CODES`."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        faults: Sequence[Fault] = (),
        retry_after_s: float | None = None,
        **fields: object,
    ) -> None:
        if code not in CODES:
            raise AssertionError(f"unknown error code: {code}")
        self.code = code
        self.fields: Mapping[str, object] = fields
        self.faults = tuple(faults)
        self.retry_after_s = retry_after_s
        shown = ", ".join(f"{name}={value!r}" for name, value in fields.items())
        self.detail = f"{detail} ({shown})" if shown else detail
        super().__init__(f"{code}: {self.detail}")

    def located(self, *place: str | int) -> Self:
        """This error, of one place in a body: the names and indexes that lead there; none is the body itself."""
        self.faults = (Fault(self.code, self.detail, pointer=pointer(*place)),)
        return self


class Invalid(PlaneError):
    """The request can never succeed as it is."""


class Denied(PlaneError):
    """The credential is missing, wrong, expired, or lacks a scope."""


class NotFound(PlaneError):
    """The thing does not exist, is not built yet, or is gone for good."""


class Conflict(PlaneError):
    """Somebody else changed what this was based on."""


class Unavailable(PlaneError):
    """A limit or a dependency is in the way for now; retry after `retry_after_s`."""


class Corrupt(PlaneError):
    """Stored bytes do not match their digest or format. Never retried silently."""


CODES: Final[Mapping[str, str]] = {
    # invalid
    "malformed_json": "the body or line is not JSON",
    "malformed_event": "a field of an event is missing or has the wrong type",
    "entity_invalid": "an entity id is 1-256 bytes of UTF-8",
    "id_invalid": "an event id is 1-256 bytes of UTF-8",
    "ts_invalid": "a time is RFC 3339 with an offset",
    "ts_out_of_range": "event times run from 1970 to the horizon ahead of now",
    "text_too_long": "an event text is at most 256 KiB",
    "attrs_invalid": "attrs are flat: string, number, boolean, null, list of strings; at most 64 keys",
    "number_not_finite": "numbers are finite",
    "vector_invalid": "a vector is a list of finite numbers of the tenant's dimension",
    "vector_missing": "no text is embedded here: the vector comes with the query",
    "body_too_large": "the decoded body is over its limit",
    "too_many_events": "a request holds at most 10,000 events",
    "encoding_invalid": "the compressed body is truncated, malformed, or of an unknown encoding",
    "content_type_invalid": "the body is of a media type this route does not read",
    "tenant_invalid": "a tenant name is 1-63 of a-z 0-9 and -",
    "where_invalid": "the filter is not of the filter language",
    "query_invalid": "a query parameter or field is missing or out of range",
    "cursor_invalid": "the cursor was not issued by this endpoint",
    "snapshot_invalid": "a snapshot reads {manifest}.{log}",
    "spec_invalid": "the bundle spec is not valid",
    "mapping_invalid": "the source mapping is not valid",
    "row_invalid": "a row of an export is malformed or does not fit its mapping",
    "too_many_rejects": "more rows of an export were rejected than the limit allows",
    "settings_invalid": "a setting is missing or out of range",
    "model_mismatch": "the vectors of the store come from another model",
    "object_key_invalid": "an object key is /-separated printable ASCII without empty, . or .. segments",
    "idempotency_key_reused": "the idempotency key was used with another body",
    # denied
    "key_missing": "no API key was given",
    "key_invalid": "the API key is unknown, expired or revoked",
    "scope_missing": "the API key lacks the scope",
    # not found
    "tenant_not_found": "no such tenant for this key",
    "entity_not_found": "the entity has no events",
    "spec_not_found": "no such bundle spec",
    "bundle_not_built": "the bundle is not built; build the day, or ask for it on demand",
    "bundle_not_found": "no bundle with that digest is live",
    "object_not_found": "the object does not exist in the store",
    "snapshot_not_found": "the snapshot was never made",
    "snapshot_expired": "the snapshot is older than the retention of snapshots",
    "snapshot_erased": "the snapshot was ended by an erasure",
    "key_not_found": "no such API key",
    "erasure_not_found": "no such erasure",
    "route_not_found": "no such route",
    "method_not_allowed": "the route does not take this method",
    # conflict
    "already_exists": "a create-only write found the key taken",
    "commit_conflict": "the commit lost too many races",
    "build_stale": "the build started from sources that are no longer the day's",
    "build_incomplete": "an index of the day is missing or was built from other segments",
    "build_expired": "the build started too long ago for its objects to be safe",
    "check_failed": "a check of the built day failed",
    "graph_recall_low": "a vector index proposes too few of the nearest rows; build it again",
    "budget_exceeded": "a bundle holds more tokens than its spec allows; nothing of its day was committed",
    "idempotency_in_progress": "a request with this idempotency key is under way",
    "tenant_erased": "a tenant of that name was erased; its name is never given again",
    # unavailable
    "tail_full": "too many batches wait to be built; build the days, then retry",
    "rate_limited": "the key is over its rate, or the service has all it can take on",
    "deadline_exceeded": "the deadline passed before the answer was complete",
    "store_unavailable": "the object store did not answer",
    "store_not_exclusive": "the object store lets two creators of one key win",
    "embedder_unavailable": "the embedding endpoint did not answer",
    "not_ready": "the service is starting",
    "stopping": "the service ended before the answer; what was asked for may have been done",
    "worker_lost": "the process that built the tenant-day died twice, out of memory or killed",
    "internal": "an unexpected error; the request id names it in the logs",
    # corrupt
    "corrupt_object": "an object does not match its recorded digest",
    "format_unknown": "an object was written by a newer or unknown format version",
}
"""Every code and its one-line meaning. Append only: clients match on these."""
