"""The HTTP contract from the caller's side: a thin client that turns problems back into errors.

Waits when the service says so (`Retry-After`), for a bounded time. Used by `ingest --url` and the demo.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import httpx
import orjson
import zstandard

from context_plane.errors import CODES, Conflict, Corrupt, Denied, Invalid, NotFound, PlaneError, Unavailable

TIMEOUT_S: Final = 120.0
"""One request; a batch of every entity streams within it."""
WAIT_MAX_S: Final = 120.0
"""How long a refused request is repeated before the refusal is the answer."""
WAIT_STEP_MAX_S: Final = 15.0
_FAMILIES: Final[Mapping[int, type[PlaneError]]] = {
    401: Denied,
    403: Denied,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    429: Unavailable,
}
_CORRUPT: Final = frozenset({"corrupt_object", "format_unknown"})
_WAITED_FOR: Final = frozenset({"rate_limited", "store_unavailable", "not_ready", "idempotency_in_progress"})
"""What passes by itself. `tail_full` does not: somebody has to build."""


class Client:
    """One tenant of one service. Blocking. `key` None: a service in open mode."""

    def __init__(self, url: str, tenant: str, key: str | None, *, sleep: Callable[[float], None] = time.sleep) -> None:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._base = f"/v1/tenants/{tenant}"
        self._sleep = sleep
        try:
            self._http = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S)
        except httpx.InvalidURL as error:
            raise Invalid("settings_invalid", "a service URL reads http://host:port", url=url) from error

    def close(self) -> None:
        self._http.close()

    def get(self, path: str) -> httpx.Response:
        return self._send("GET", path)

    def post(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        return self._send("POST", path, content=orjson.dumps(body), headers={"Content-Type": "application/json"})

    def put(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        return self._send("PUT", path, content=orjson.dumps(body), headers={"Content-Type": "application/json"})

    def write(self, ndjson: bytes, *, visible: str, idempotency_key: str | None = None) -> dict[str, Any]:
        """Write events; the answer of the service."""
        headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": "zstd"}
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        content = zstandard.ZstdCompressor(level=3).compress(ndjson)
        path = f"/events?visible={visible}"
        answer: dict[str, Any] = orjson.loads(self._send("POST", path, content=content, headers=headers).content)
        return answer

    def _send(
        self, method: str, path: str, *, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        give_up_s = time.monotonic() + WAIT_MAX_S
        while True:
            try:
                response = self._http.request(method, self._base + path, content=content, headers=headers)
            except httpx.HTTPError as error:
                detail = f"the service does not answer; is it running there? {type(error).__name__}: {error}"
                raise Unavailable("not_ready", detail, url=str(self._http.base_url)) from error
            if response.is_success:
                return response
            refusal = error_of(response)
            wait_s = min(refusal.retry_after_s or 1.0, WAIT_STEP_MAX_S)
            if refusal.code not in _WAITED_FOR or time.monotonic() + wait_s > give_up_s:
                raise refusal
            self._sleep(wait_s)


def error_of(response: httpx.Response) -> PlaneError:
    """The error that a problem answer stands for."""
    try:
        problem = orjson.loads(response.content)
        code, detail = str(problem["code"]), str(problem.get("detail") or problem.get("title"))
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return Unavailable("internal", "the answer is not from a context plane", status=response.status_code)
    if code not in CODES:
        code, detail = "internal", f"{code}: {detail}"
    if code in _CORRUPT:
        return Corrupt(code, detail)
    family = _FAMILIES.get(response.status_code, Unavailable if response.status_code >= 500 else Invalid)
    after = response.headers.get("retry-after", "")
    return family(code, detail, retry_after_s=float(after) if after.isdigit() else None)
