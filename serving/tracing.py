"""Traces: a span for every request, steps and requests to the store below it, sent by OpenTelemetry.

Off unless the standard variables ask for it: `OTEL_TRACES_EXPORTER=otlp`, or an endpoint in
`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` or `OTEL_EXPORTER_OTLP_ENDPOINT`. The SDK (extra `[otel]`) reads the others itself:
the sampler, the service's name, headers, timeouts. A caller's `traceparent` (W3C Trace Context) is followed.

What is told: method, route as a template, status, temperature; never a path. Attributes: semantic conventions of HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from starlette.types import Scope

from context_plane.errors import Invalid
from context_plane.store.spans import ERROR, Span

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

TRACER: Final = "context_plane"
SERVICE: Final = "context-plane"
"""Unless `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` names another."""
CARRIED: Final = frozenset({b"traceparent", b"tracestate"})
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
SERVER_ERROR: Final = 500


class Tracing:
    """Spans of requests, while there is a `tracer`."""

    def __init__(self, tracer: Tracer | None = None) -> None:
        self.tracer = tracer

    def begin(self, scope: Scope) -> Span | None:
        """The span of a request; None where tracing is off, or the sampler leaves the request out."""
        if self.tracer is None:
            return None
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carried = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in CARRIED}
        above = TraceContextTextMapPropagator().extract(carried)
        recorded = self.tracer.start_span("http", above, SpanKind.SERVER)
        if not recorded.is_recording():
            return None
        return Span.of(self.tracer, recorded, set_span_in_context)


def tell(span: Span, *, method: str, route: str, status: int, cache: str) -> None:
    """Name the span of a finished request, and end it."""
    span.rename(f"{method} {route}")
    span.set("http.request.method", method)
    span.set("http.route", route)
    span.set("http.response.status_code", status)
    span.set("context_plane.cache", cache)
    if status >= SERVER_ERROR:
        span.set(ERROR, str(status))
    span.end()


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether the variables ask for traces. Raises `Invalid(settings_invalid)` for what is not supported."""
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return False
    if exporter not in ("", "otlp"):
        raise Invalid("settings_invalid", "OTEL_TRACES_EXPORTER is otlp or none", got=exporter[:40])
    if exporter == "" and not any(environment.get(name) for name in ENDPOINTS):
        return False
    names = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    protocol = next((environment[name] for name in names if environment.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        raise Invalid("settings_invalid", "traces are sent by http/protobuf; unset OTEL_EXPORTER_OTLP_PROTOCOL")
    return True


def open_provider(environment: Mapping[str, str]) -> TracerProvider | None:
    """What the variables ask for; None where they ask for nothing. Whoever opens it shuts it down.

    Raises `Invalid(settings_invalid)` where they do and the SDK is not installed."""
    if not wanted(environment):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        mend = "in a checkout pip install -e '.[otel]', for an image see With Ray or traces in deploy/README.md"
        detail = f"OTEL_… variables ask for traces; {mend}; or set OTEL_TRACES_EXPORTER=none"
        raise Invalid("settings_invalid", detail) from error
    named = "OTEL_SERVICE_NAME" in environment or "service.name=" in environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = Resource.create({} if named else {SERVICE_NAME: SERVICE})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
