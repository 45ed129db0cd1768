"""The startup probe: does this store let exactly one of several creators of a key win?

Everything the plane commits rests on that. Some gateways accept `If-None-Match` and ignore it, so
the answer is measured, not looked up.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from context_plane.errors import Conflict, PlaneError, Unavailable
from context_plane.store.base import Store

CONTENDERS: Final = 8
"""Concurrent creators: enough to overlap on any server, few enough to cost one round trip."""
ATTEMPTS_MAX: Final = 3
"""Races tried until one has no lost response: a fresh server may refuse its first writes while it sets up."""
PROBE_FOLDER: Final = "control/probe/"


async def probe(store: Store, *, nonce: str) -> None:
    """Returns when creates are exclusive; leaves nothing behind.

    `nonce`: letters and digits nobody used before. Raises `Unavailable(store_not_exclusive)` for a
    store to be refused for good, `Unavailable(store_unavailable)` when no race got clean answers.
    """
    for attempt in range(ATTEMPTS_MAX):
        key = f"{PROBE_FOLDER}{nonce}-{attempt}"
        try:
            await _race(store, key)
            return
        except Unavailable as error:
            if error.code != "store_unavailable" or attempt == ATTEMPTS_MAX - 1:
                raise
        finally:
            with suppress(PlaneError):
                await store.delete([key])


async def _race(store: Store, key: str) -> None:
    bodies = [f"contender {number} of {key}".encode() for number in range(CONTENDERS)]
    outcomes = await asyncio.gather(*(_create(store, key, body) for body in bodies), return_exceptions=True)
    winners = [body for body, outcome in zip(bodies, outcomes, strict=True) if outcome is True]
    if len(winners) > 1:
        raise _refused(f"{len(winners)} of {CONTENDERS} concurrent creates succeeded")
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    if not winners:
        raise _refused("no create of a fresh key succeeded")
    if await store.get(key) != winners[0]:
        raise _refused("the object is not the winner's")
    if await _create(store, key, b"late"):
        raise _refused("a create of an existing key succeeded")


async def _create(store: Store, key: str, body: bytes) -> bool:
    """True when this create won, False when it met a conflict."""
    try:
        await store.put_new(key, body)
    except Conflict:
        return False
    return True


def _refused(fact: str) -> Unavailable:
    return Unavailable(
        "store_not_exclusive",
        f"{fact}: commits would be lost; use a store that honours If-None-Match on PUT "
        "(S3, R2, GCS, Azure, SeaweedFS, Ceph, a local folder), or upgrade the gateway",
    )
