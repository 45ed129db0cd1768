"""Fulfil: an open erasure request is carried out, checked, and closed.

Erase, verify, then delete the request: each step can be repeated, so a request that was interrupted anywhere is
fulfilled by calling again with its id. A request stays open while the check finds something, so that the next call
checks again.
"""

from __future__ import annotations

from dataclasses import dataclass

from context_plane.engine import Engine
from context_plane.erase import BuildDay, Receipt, erase_entity, load_receipt
from context_plane.erased import verify_erasure
from context_plane.erasure_requests import check_request_id, drop_request, load_request
from context_plane.errors import NotFound


@dataclass(frozen=True, slots=True)
class Fulfilled:
    """`problems`: what the check found, a line each; lines name objects and so may name the entity."""

    receipt: Receipt
    problems: tuple[str, ...] = ()


async def fulfil(engine: Engine, tenant: str, erasure: str, *, build_day: BuildDay) -> Fulfilled:
    """Carry out the request of that id. One that is closed already answers with its receipt.

    Raises `NotFound(erasure_not_found)` for an unknown id, `Unavailable` or `Conflict` when it must be called again.
    """
    check_request_id(erasure)
    try:
        request = await load_request(engine.store, tenant, erasure)
    except NotFound:
        done = await load_receipt(engine.store, tenant, erasure)
        if done is None:
            raise
        return Fulfilled(done)
    receipt = await erase_entity(engine, tenant, request.entity, build_day=build_day, erasure=erasure)
    problems = await verify_erasure(engine, tenant, request.entity, receipt)
    if not problems:
        await drop_request(engine.store, tenant, erasure)
    return Fulfilled(receipt, tuple(problems))


def kind_of(problem: str) -> str:
    """A problem without the object it names: what may be logged and shown."""
    return problem.partition(": ")[0]
