"""The contract of `Store`, as laws. A backend subclasses `StoreContract` and gives a fresh `store`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from context_plane.errors import Conflict, Invalid, NotFound
from context_plane.store import ByteRange, Store, probe

AWKWARD = [
    "order/%25",
    "order/%2F",
    "order/A",
    "order/a!/x",
    "order/a-b",
    "order/a-b-c/x",
    "order/a-b.d/x",
    "order/a.b",
    "order/a/b-c",
    "order/a/b/c",
    "order/a0",
    "order/a=1/x y",
    "order/b/x",
    "order/~sha",
    "order-2/x",
    "order.3",
    "order0",
]
"""Keys whose byte order differs from the order of a walk through folders."""


class StoreContract:
    creators = 32

    @pytest.fixture
    def store(self) -> Store:
        raise AssertionError("a backend of the contract gives its own store")

    async def test_what_was_put_is_got(self, store: Store) -> None:
        bodies = {"a/empty": b"", "a/small": b"\x00\xff\n", "a/large": bytes(range(256)) * 20_480}
        assert len(bodies["a/large"]) == 5 * 1024 * 1024
        for key, body in bodies.items():
            await store.put_new(key, body)
        assert {key: await store.get(key) for key in bodies} == bodies
        assert [(info.key, info.size) async for info in store.list("a/")] == [
            (key, len(bodies[key])) for key in sorted(bodies)
        ]

    async def test_absent_objects_are_not_found(self, store: Store) -> None:
        await store.put_new("a/b/present", b"x")
        for key in ["a/b/absent", "a/b", "a/b/present/below", "nothing/here"]:
            with pytest.raises(NotFound, match="object_not_found"):
                await store.get(key)
            with pytest.raises(NotFound, match="object_not_found"):
                await store.get_range(key, ByteRange(0, 1))
            with pytest.raises(NotFound, match="object_not_found"):
                await store.get_ranges(key, [ByteRange(0, 1), ByteRange(1, 1)])

    async def test_ranges_end_with_the_object(self, store: Store) -> None:
        body = bytes(range(100))
        await store.put_new("r/object", body)
        await store.put_new("r/empty", b"")
        ranges = [ByteRange(0, 10), ByteRange(90, 20), ByteRange(99, 1), ByteRange(100, 5), ByteRange(500, 5)]
        ranges += [ByteRange(5, 0), ByteRange(0, 1000)]
        expected = [body[part.offset : part.stop] for part in ranges]
        assert [await store.get_range("r/object", part) for part in ranges] == expected
        assert await store.get_ranges("r/object", ranges) == expected
        assert await store.get_ranges("r/object", list(reversed(ranges))) == list(reversed(expected))
        assert await store.get_ranges("r/object", []) == []
        assert await store.get_range("r/empty", ByteRange(0, 10)) == b""

    async def test_one_of_many_creators_wins(self, store: Store) -> None:
        bodies = [f"creator {number}".encode() for number in range(self.creators)]
        outcomes = await asyncio.gather(*(store.put_new("c/one", body) for body in bodies), return_exceptions=True)
        winners = [body for body, outcome in zip(bodies, outcomes, strict=True) if outcome is None]
        assert [type(outcome) for outcome in outcomes if outcome is not None] == [Conflict] * (self.creators - 1)
        assert [await store.get("c/one")] == winners

    async def test_a_taken_key_stays_as_it_is(self, store: Store) -> None:
        await store.put_new("c/two", b"first")
        with pytest.raises(Conflict, match="already_exists"):
            await store.put_new("c/two", b"second")
        assert await store.get("c/two") == b"first"

    async def test_put_replaces(self, store: Store) -> None:
        await store.put("p/one", b"a longer first body")
        await store.put("p/one", b"second")
        assert await store.get("p/one") == b"second"

    async def test_a_deleted_key_is_absent_and_free_again(self, store: Store) -> None:
        await store.put_new("d/one", b"x")
        await store.delete(["d/one", "d/never"])
        await store.delete(["d/one"])
        await store.delete([])
        with pytest.raises(NotFound):
            await store.get("d/one")
        assert await _keys(store, "d/") == []
        await store.put_new("d/one", b"y")
        assert await store.get("d/one") == b"y"

    async def test_listing_is_ascending_by_key_bytes(self, store: Store) -> None:
        await _put_all(store, reversed_keys := sorted(AWKWARD, reverse=True))
        expected = reversed_keys[::-1]
        assert await _keys(store, "") == expected
        for prefix in ["order/", "order", "order/a", "order/a-", "order/a-b", "order/a/", "order/%2", "order/~", "x"]:
            assert await _keys(store, prefix) == [key for key in expected if key.startswith(prefix)], prefix

    async def test_listing_starts_after_and_stops_at_the_limit(self, store: Store) -> None:
        await _put_all(store, AWKWARD)
        for prefix in ["", "order/", "order/a"]:
            wanted = sorted(key for key in AWKWARD if key.startswith(prefix))
            for after in [*sorted(AWKWARD), "order/a", "order/a.", "zzz", "a"]:
                later = [key for key in wanted if key > after]
                assert await _keys(store, prefix, start_after=after) == later, (prefix, after)
                assert await _keys(store, prefix, start_after=after, limit=3) == later[:3], (prefix, after)
        assert await _keys(store, "order/", limit=0) == []

    async def test_percent_encoded_keys_stay_apart(self, store: Store) -> None:
        keys = ["e/a%2Fb/x", "e/a/b/x", "e/a%252Fb/x", "e/a%2fb/x", "e/~a/x"]
        for key in keys:
            await store.put_new(key, key.encode())
        assert [(await store.get(key)).decode() for key in keys] == keys
        assert await _keys(store, "e/") == sorted(keys)

    async def test_more_than_a_page_is_listed_and_deleted(self, store: Store) -> None:
        keys = [f"m/{number:05d}.jsonl" for number in range(1100)] + ["m/00500-x", "m/00500/y"]
        await _put_all(store, keys)
        assert await _keys(store, "m/") == sorted(keys)
        assert await _keys(store, "m/", start_after="m/01050.jsonl") == [key for key in keys if key > "m/01050.jsonl"]
        assert await _keys(store, "m/", limit=1050) == sorted(keys)[:1050]
        await store.delete(keys)
        assert await _keys(store, "m/") == []

    @pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "a/./b", "../a", "a/..", ".tmp/x", "é", "a\x00", "a\\b"])
    async def test_a_malformed_key_is_refused(self, store: Store, key: str) -> None:
        with pytest.raises(Invalid, match="object_key_invalid"):
            await store.put(key, b"x")
        with pytest.raises(Invalid, match="object_key_invalid"):
            await store.get(key)

    async def test_the_probe_passes_and_leaves_nothing(self, store: Store) -> None:
        await probe(store, nonce="n1")
        assert await _keys(store, "") == []


async def _keys(store: Store, prefix: str, *, start_after: str = "", limit: int | None = None) -> list[str]:
    return [info.key async for info in store.list(prefix, start_after=start_after, limit=limit)]


async def _put_all(store: Store, keys: Sequence[str]) -> None:
    gate = asyncio.Semaphore(16)

    async def put(key: str) -> None:
        async with gate:
            await store.put(key, key.encode())

    await asyncio.gather(*(put(key) for key in keys))
