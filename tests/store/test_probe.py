"""The probe refuses every store whose creates are not exclusive."""

from __future__ import annotations

import asyncio

import pytest

from context_plane.errors import Conflict, Unavailable
from context_plane.store import probe
from context_plane.store.faults import FaultyStore, Mishap
from context_plane.store.faults import Operation as StoreOperation
from tests.store.dictionary import DictStore


class IgnoresCondition(DictStore):
    """Accepts `If-None-Match` and ignores it, as some gateways do."""

    async def put_new(self, key: str, data: bytes) -> None:
        await self.put(key, data)


class LetsTwoWin(DictStore):
    """Checks, then writes: two creators that overlap both succeed; one alone behaves."""

    async def put_new(self, key: str, data: bytes) -> None:
        if key in self.objects:
            raise Conflict("already_exists", "the key is taken", key=key)
        await asyncio.sleep(0)
        self.objects[key] = data


class TellsTwo(DictStore):
    """Keeps the first creator's bytes, but tells a second one that it won."""

    async def put_new(self, key: str, data: bytes) -> None:
        try:
            await super().put_new(key, data)
        except Conflict:
            if not data.startswith(b"contender 1 "):
                raise


class KeepsTheLoser(DictStore):
    """One winner is told, but a loser's bytes stay."""

    async def put_new(self, key: str, data: bytes) -> None:
        await asyncio.sleep(0)
        taken = key in self.objects
        self.objects[key] = data
        if taken:
            raise Conflict("already_exists", "the key is taken", key=key)


class ForgetsTheCondition(DictStore):
    """Exclusive within a race, not afterwards."""

    async def put_new(self, key: str, data: bytes) -> None:
        if data == b"late":
            await self.put(key, data)
        else:
            await super().put_new(key, data)


@pytest.mark.parametrize("kind", [IgnoresCondition, LetsTwoWin, TellsTwo, KeepsTheLoser, ForgetsTheCondition])
async def test_a_store_that_is_not_exclusive_is_refused(kind: type[DictStore]) -> None:
    """The last three were each seen to pass when the check they aim at was taken out of the probe."""
    store = kind()
    with pytest.raises(Unavailable, match=r"store_not_exclusive: .* use a store that honours If-None-Match"):
        await probe(store, nonce="n")
    assert store.objects == {}


async def test_a_lost_response_is_no_verdict() -> None:
    lost = iter([True])

    def plan(operation: StoreOperation, key: str) -> Mishap | None:
        return Mishap(lost="response") if operation == "put_new" and next(lost, False) else None

    inner = DictStore()
    await probe(FaultyStore(inner, plan), nonce="n")
    assert inner.objects == {}


async def test_a_store_that_never_answers_is_unavailable_not_refused() -> None:
    with pytest.raises(Unavailable, match="store_unavailable"):
        await probe(FaultyStore(DictStore(), lambda operation, key: Mishap(lost="request")), nonce="n")
