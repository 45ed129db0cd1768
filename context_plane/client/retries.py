"""When a request is sent again: what a refusal says, what passes by itself, and for how long.

A refusal that names its time (`Retry-After`) is waited for within `wait_s`; one that does not, and a service that
cannot be reached, a few times. Pauses grow in either case: a time of zero, or a date that a clock in advance has
passed, is no leave to ask without one. What may have arrived is sent again only when sending it twice does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import httpx
from tenacity import RetryCallState
from tenacity.wait import wait_exponential_jitter

from context_plane.client.requests import Request
from context_plane.errors import PlaneError

PAUSE_S_MAX: Final = 30.0
"""However long a refusal asks for: twice what a full tail asks for."""
_REFUSED: Final = frozenset({"rate_limited", "tail_full", "not_ready", "idempotency_in_progress"})
"""Nothing was done, and it passes."""
_UNWELL: Final = frozenset({"store_unavailable", "embedder_unavailable", "stopping"})
"""Something may have been done."""
_FOREIGN: Final = frozenset({429, 502, 503, 504})
"""Statuses of what stands between, when it has no healthy service to hand a request to."""
_pause_s: Final = wait_exponential_jitter(multiplier=0.25, max=8.0, jitter=0.25)


@dataclass(frozen=True, slots=True)
class Retries:
    """`attempts`: in all, where nobody says how long to wait. `wait_s`: in all, where somebody does. 1: no retries."""

    attempts: int = 5
    wait_s: float = 120.0

    def policy(self, request: Request) -> dict[str, Any]:
        """What `tenacity.Retrying` and `AsyncRetrying` take."""

        def again(state: RetryCallState) -> bool:
            error = _error(state)
            return error is not None and passes(error, request)

        return {"retry": again, "stop": self._enough, "wait": _wait_s, "reraise": True}

    def _enough(self, state: RetryCallState) -> bool:
        if _told_s(state) is None or self.attempts == 1:
            return state.attempt_number >= self.attempts
        return (state.seconds_since_start or 0.0) + state.upcoming_sleep > self.wait_s


def passes(error: BaseException, request: Request) -> bool:
    """Whether sending the request again may help, and cannot harm."""
    match error:
        case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.PoolTimeout():
            return True
        case httpx.TransportError():
            return request.repeatable
        case PlaneError():
            foreign = error.fields.get("status") in _FOREIGN
            return error.code in _REFUSED or (request.repeatable and (foreign or error.code in _UNWELL))
    return False


def _wait_s(state: RetryCallState) -> float:
    return max(_pause_s(state), min(_told_s(state) or 0.0, PAUSE_S_MAX))


def _told_s(state: RetryCallState) -> float | None:
    error = _error(state)
    return error.retry_after_s if isinstance(error, PlaneError) else None


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
