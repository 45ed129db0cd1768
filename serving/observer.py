"""What is told of every request: metrics always, a log line and a span where somebody asked for them."""

from __future__ import annotations

from contextvars import Token

from starlette.types import Scope

from context_plane.store import spans
from context_plane.store.spans import Span
from serving import logs, tracing
from serving.metrics import Metrics
from serving.tracing import Tracing


class Observer:
    """For one app. `log_requests`: a line for each request."""

    def __init__(self, metrics: Metrics, tracing: Tracing, *, log_requests: bool) -> None:
        self._metrics = metrics
        self._tracing = tracing
        self._log_requests = log_requests

    def begin(self, scope: Scope) -> tuple[Span, Token[Span | None]] | None:
        """A request begins. What it returns goes to `end`."""
        self._metrics.in_flight.inc()
        span = None if self._tracing.tracer is None else self._tracing.begin(scope)
        return None if span is None else (span, spans.enter(span))

    def end(
        self,
        begun: tuple[Span, Token[Span | None]] | None,
        *,
        method: str,
        route: str,
        status: int,
        cache: str,
        seconds: float,
        request_id: str,
        key: str | None,
    ) -> None:
        """It ended. `key`: the id of the caller's."""
        self._metrics.in_flight.dec()
        self._metrics.observe(method=method, route=route, status=status, cache=cache, seconds=seconds)
        if begun is not None:
            spans.leave(begun[1])
            tracing.tell(begun[0], method=method, route=route, status=status, cache=cache)
        if self._log_requests:
            fields: dict[str, object] = {
                "request_id": request_id,
                "method": method,
                "route": route,
                "status": status,
                "cache": cache,
                "ms": round(seconds * 1000, 3),
            }
            if key is not None:
                fields["key"] = key
            if begun is not None:
                fields["trace_id"] = begun[0].trace_id
            logs.requests.info("request", extra={logs.FIELDS: fields})
