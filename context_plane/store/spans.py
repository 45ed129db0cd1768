"""Spans: what one request did, step by step, down to each request to the store. Nothing at all unless somebody asks.

The rim of a process (`serving.tracing`) begins a `Span` with a tracer of OpenTelemetry. What runs inside finds it by a
context variable and begins spans below it; where there is none, one look at that variable is all it costs. A request
has at most `SPANS_MAX` of them: what would be more is counted at its root.

Names are words of this program. Attributes are numbers and such words: never a key, a tenant, an entity, a text, nor
the message of an error, which may hold any of them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Final, TypeAlias

from context_plane.errors import PlaneError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span as Recorded
    from opentelemetry.trace import Tracer

SPANS_MAX: Final = 512
"""Of one request: a year of one entity makes some hundred requests to the store; thousands tell nobody anything."""
DROPPED: Final = "context_plane.spans_dropped"
ERROR: Final = "error.type"

Attribute: TypeAlias = str | int | float | bool
InContext: TypeAlias = "Callable[[Recorded], Context]"


class _Root:
    """What all spans of one request share."""

    __slots__ = ("dropped", "left", "recorded", "tracer", "within")

    def __init__(self, tracer: Tracer, recorded: Recorded, within: InContext) -> None:
        self.tracer = tracer
        self.recorded = recorded
        self.within = within
        self.left = SPANS_MAX
        self.dropped = 0


class Span:
    """A span that is open. `end` closes it; one that is never ended is never told."""

    __slots__ = ("_context", "_recorded", "_root")

    def __init__(self, root: _Root, recorded: Recorded) -> None:
        self._root = root
        self._recorded = recorded
        self._context: Context | None = None

    @classmethod
    def of(cls, tracer: Tracer, recorded: Recorded, within: InContext) -> Span:
        """The root of a request. `within`: the context in which a span is the parent (`set_span_in_context`)."""
        return cls(_Root(tracer, recorded, within), recorded)

    def child(self, name: str) -> Span | None:
        """A span below this one; None where the request has too many."""
        root = self._root
        if root.left == 0:
            root.dropped += 1
            return None
        root.left -= 1
        if self._context is None:
            self._context = root.within(self._recorded)
        return Span(root, root.tracer.start_span(name, self._context))

    @property
    def trace_id(self) -> str:
        """32 hex digits."""
        return f"{self._recorded.get_span_context().trace_id:032x}"

    def rename(self, name: str) -> None:
        self._recorded.update_name(name)

    def set(self, name: str, value: Attribute) -> None:
        self._recorded.set_attribute(name, value)

    def end(self, error: BaseException | None = None) -> None:
        """Close it; the root tells how many spans were too many. Of an error its code alone, or its class."""
        if error is not None:
            self.set(ERROR, error.code if isinstance(error, PlaneError) else type(error).__name__)
        if self._recorded is self._root.recorded and self._root.dropped:
            self.set(DROPPED, self._root.dropped)
        self._recorded.end()


_current: ContextVar[Span | None] = ContextVar("span", default=None)


def begin(name: str) -> Span | None:
    """A span below the current one, not itself current; None where there is none."""
    above = _current.get()
    return None if above is None else above.child(name)


def enter(span: Span | None) -> Token[Span | None]:
    """Make it the current one of this task and of tasks it starts, until `leave`."""
    return _current.set(span)


def leave(token: Token[Span | None]) -> None:
    _current.reset(token)


class step:
    """`with step(name):` the block is a step; what is asked of the store inside is told below it."""

    __slots__ = ("_name", "_span", "_token")

    def __init__(self, name: str) -> None:
        self._name = name
        self._span: Span | None = None
        self._token: Token[Span | None] | None = None

    def __enter__(self) -> Span | None:
        self._span = begin(self._name)
        if self._span is not None:
            self._token = _current.set(self._span)
        return self._span

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self._token is not None:
            _current.reset(self._token)
        if self._span is not None:
            self._span.end(error)


class Steps:
    """Steps one after another, each named when it ends. Made where a journey begins; without a span there, nothing."""

    __slots__ = ("_above", "_journey", "_open", "_token")

    def __init__(self, journey: str) -> None:
        self._journey = journey
        self._above = _current.get()
        self._open: Span | None = None
        self._token: Token[Span | None] | None = None
        if self._above is not None:
            self._next(self._above)

    def _next(self, above: Span) -> None:
        self._open = above.child(self._journey)
        token = _current.set(self._open or above)
        self._token = self._token or token

    def lap(self, name: str) -> None:
        """The step that ends here was this one; the next begins."""
        if self._above is not None:
            self._end(name, None)
            self._next(self._above)

    def close(self, error: BaseException | None = None) -> None:
        """The journey is over. What is still open was no step, unless an error ended it."""
        if error is not None:
            self._end("failed", error)
        if self._token is not None:
            _current.reset(self._token)
            self._token = None

    def _end(self, name: str, error: BaseException | None) -> None:
        if self._open is not None:
            self._open.rename(f"{self._journey}.{name}")
            self._open.end(error)
            self._open = None
