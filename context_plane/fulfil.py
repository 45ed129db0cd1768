"""Fulfil: an erasure is started, and an open erasure request is carried out, checked, and closed.

Starting files the request and commits the tombstone, so that reads stop at once; whoever works requests off does the
rest.

Erase, verify, then delete the request: each step can be repeated, so a request that was interrupted anywhere is
fulfilled by calling again with its id. A request stays open while the check finds something, so that the next call
checks again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from context_plane.audit import PROCESS, Actor, audited
from context_plane.catalog.head import load_head
from context_plane.catalog.log import read_log_head
from context_plane.engine import Engine
from context_plane.erase import BuildDay, Receipt, begin_erasure, erase_entity, load_receipt
from context_plane.erased import verify_erasure
from context_plane.erasure_requests import check_request_id, drop_request, load_request, request_erasure
from context_plane.errors import NotFound

State: TypeAlias = Literal["requested", "hidden", "checking", "done"]
COUNTED: Final = ("days_rebuilt", "bundle_days_dropped", "objects_deleted", "batches_redacted", "manifests_redacted")
"""Of the receipt, in the audit."""


@dataclass(frozen=True, slots=True)
class ErasureState:
    """`requested`: nothing is hidden yet; `hidden`: no read shows the entity; `checking`: all is erased and it was not
    checked yet, or the check found something; `done`: erased and checked."""

    erasure: str
    state: State
    requested_us: int
    receipt: Receipt | None


@dataclass(frozen=True, slots=True)
class Fulfilled:
    """`problems`: what the check found, a line each; lines name objects and so may name the entity."""

    receipt: Receipt
    problems: tuple[str, ...] = ()


async def start(engine: Engine, tenant: str, entity: str, *, actor: Actor = PROCESS) -> str:
    """Hide the entity from every read from here on, and leave the request for the rest; the erasure's id.

    Called again, or by two at the same time, it gives the same erasure, or another one where anything was written to
    the tenant since: writes of the entity are hidden too. Raises `Invalid`, and `Conflict` or `Unavailable` when it
    must be called again."""
    newest = (await read_log_head(engine, tenant)).number
    erasure = await request_erasure(engine, tenant, entity, actor=actor)
    begun = await begin_erasure(engine, tenant, entity, erasure=erasure)
    if begun.log_number < newest:  # it was begun before, and does not reach what was written by now
        erasure = await request_erasure(engine, tenant, entity, anew=True, actor=actor)
        await begin_erasure(engine, tenant, entity, erasure=erasure)
    return erasure


async def state_of(engine: Engine, tenant: str, erasure: str) -> ErasureState:
    """How far an erasure is. Raises `NotFound(erasure_not_found)`."""
    check_request_id(erasure)
    try:
        request = await load_request(engine.store, tenant, erasure)
    except NotFound:
        receipt = await load_receipt(engine.store, tenant, erasure)
        if receipt is None:
            raise
        return ErasureState(erasure, "done", receipt.requested_us, receipt)
    receipt = await load_receipt(engine.store, tenant, erasure)
    if receipt is not None:
        return ErasureState(erasure, "checking", request.requested_us, receipt)
    head = await load_head(engine.store, tenant)
    hidden = any(stone.erasure == erasure for stone in head.tombstones)
    return ErasureState(erasure, "hidden" if hidden else "requested", request.requested_us, None)


async def fulfil(
    engine: Engine, tenant: str, erasure: str, *, build_day: BuildDay, actor: Actor = PROCESS
) -> Fulfilled:
    """Carry out the request of that id. One that is closed already answers with its receipt. `actor`: for the audit.

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
    async with audited(engine, tenant, actor, "erasure", subject=erasure) as counts:
        receipt = await erase_entity(engine, tenant, request.entity, build_day=build_day, erasure=erasure)
        problems = await verify_erasure(engine, tenant, request.entity, receipt)
        if not problems:
            await drop_request(engine.store, tenant, erasure)
        counts |= {name: getattr(receipt, name) for name in COUNTED} | {"problems": len(problems)}
    return Fulfilled(receipt, tuple(problems))


def kind_of(problem: str) -> str:
    """A problem without the object it names: what may be logged and shown."""
    return problem.partition(": ")[0]
