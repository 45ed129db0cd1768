"""What the doctor says of one thing: its state, what was found, what that means, and what to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from context_plane.errors import PlaneError

State: TypeAlias = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `means` and `advice` are empty when all is well."""

    name: str
    state: State
    fact: str
    means: str = ""
    advice: str = ""


ADVICE: Final = {
    "store_not_exclusive": "this gateway ignores If-None-Match; use one that does not, or its newer release",
    "store_unavailable": "check the URL, endpoint and credentials (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, …)",
    "settings_invalid": "mend --store or CONTEXT_PLANE_STORE",
    "embedder_unavailable": "check CONTEXT_PLANE_EMBEDDER__BASE_URL and its key",
    "corrupt_object": "context-plane verify --all names what is damaged",
    "format_unknown": "upgrade this installation: a newer one wrote it",
}
"""By code of an error that a look met."""


async def guarded(name: str, means: str, look: Callable[[], Awaitable[Finding]]) -> Finding:
    """What `look` finds, or the error it met as a failure. `means`: of that failure."""
    try:
        return await look()
    except PlaneError as error:
        return Finding(name, "fail", error.detail, means, ADVICE.get(error.code, f"{error.code}: see the detail"))
    except OSError as error:
        return Finding(name, "fail", str(error), means, "make the folder writable, or choose another")
