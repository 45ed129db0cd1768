"""Reads with a bounded tail, on virtual time: counts and the order of events, never the speed of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from context_plane import plane
from context_plane.embed.open import EmbedderSettings
from context_plane.errors import Invalid, NotFound, Unavailable
from context_plane.settings import Settings
from context_plane.store import (
    ByteRange,
    CountingStore,
    HedgingStore,
    Store,
    StoreOptions,
    deadline,
    is_remote,
    open_store,
)
from context_plane.store.faults import FaultyStore, Mishap, Operation
from context_plane.store.lanes import Lanes, lane_of
from context_plane.store.latencies import BURST, DELAY_S, EARNED, Budget, Usual
from context_plane.store.objects import on_size
from tests.store.contract import StoreContract
from tests.store.dictionary import DictStore
from tests.store.servers import Server
from tests.store.virtual import run

USUAL_S = 0.06
STALL_S = 5.0
USUAL = Mishap(USUAL_S)
READS = [
    lambda store: store.get("k/1"),
    lambda store: store.get_range("k/1", ByteRange(0, 3)),
    lambda store: store.get_ranges("k/1", [ByteRange(0, 1), ByteRange(1, 2)]),
    lambda store: _keys(store),
]


async def _keys(store: Store) -> list[str]:
    return [info.key async for info in store.list("k/", limit=1)]


class TestHedgedContract(StoreContract):
    """Hedging changes no answer."""

    @pytest.fixture
    def store(self) -> Store:
        return HedgingStore(DictStore())


class TestAlwaysHedgedContract(StoreContract):
    """Nor where every first request is so late that all are hedged as far as the budget goes."""

    @pytest.fixture
    def store(self, monkeypatch: pytest.MonkeyPatch) -> Store:
        monkeypatch.setattr("context_plane.store.latencies.DELAY_S", 0.0)
        turns: Iterator[int] = iter(range(10**9))
        late = Mishap(delay_s=0.004)
        return HedgingStore(FaultyStore(DictStore(), lambda operation, key: late if next(turns) % 2 == 0 else None))


class TestHedgedMotoContract(StoreContract):
    """Nor over HTTP, where both requests of a read race for the answer."""

    @pytest.fixture
    def store(self, moto_s3: Server, store_name: str, monkeypatch: pytest.MonkeyPatch) -> Store:
        monkeypatch.setattr("context_plane.store.latencies.DELAY_S", 0.0)
        return HedgingStore(open_store(moto_s3.url(store_name), options=moto_s3.options))


@dataclass
class Script:
    """Each request takes the next of `mishaps`, then USUAL_S; `begun` and `ended` count them."""

    mishaps: list[Mishap] = field(default_factory=list)
    usual: Mishap = USUAL
    begun: int = 0

    def __call__(self, operation: Operation, key: str) -> Mishap:
        self.begun += 1
        return self.mishaps.pop(0) if self.mishaps else self.usual


@dataclass
class World:
    script: Script
    faulty: FaultyStore
    store: CountingStore


def world(*mishaps: Mishap, usual: Mishap | None = None) -> World:
    script = Script(list(mishaps), usual or USUAL)
    faulty = FaultyStore(DictStore({f"k/{n}": b"0123456789" for n in range(10)}), script)
    return World(script, faulty, CountingStore(HedgingStore(faulty)))


def now_s() -> float:
    return asyncio.get_running_loop().time()


STALL = Mishap(STALL_S)
LOST = Mishap(USUAL_S, "request")


@pytest.mark.parametrize("read", READS)
def test_a_stalled_read_is_answered_by_its_hedge(read: Callable[[Store], asyncio.Future[object]]) -> None:
    """Seen to fail when the hedge does not interrupt the caller: the answer comes with the stalled request."""

    async def scenario() -> None:
        calm = await read(world().store)
        stalled = world(STALL)
        with stalled.store.trace() as counted:
            assert await read(stalled.store) == calm
        assert now_s() < STALL_S
        assert stalled.script.begun == 2
        assert (counted.hedges, counted.hedges_won, counted.round_trips) == (1, 1, 1)
        assert counted.gets + counted.lists == 2
        total = stalled.store.total
        assert (total.hedges, total.hedges_won) == (1, 1)

    run(scenario())


def test_a_stalled_hedge_is_hedged_once_more_and_no_further() -> None:
    async def scenario() -> None:
        twice = world(STALL, STALL)
        assert await twice.store.get("k/1") == b"0123456789"
        assert (twice.script.begun, twice.store.total.hedges, twice.store.total.hedges_won) == (3, 2, 1)
        assert now_s() < STALL_S
        always = world(usual=STALL)
        await always.store.get("k/1")
        assert (always.script.begun, always.store.total.hedges_won) == (3, 0)

    run(scenario())


def test_a_read_answered_in_time_sends_no_hedge_and_starts_no_task() -> None:
    async def scenario() -> None:
        calm = world()
        for _ in range(3):
            reads = [asyncio.ensure_future(calm.store.get(f"k/{n}")) for n in range(10)]
            while not all(read.done() for read in reads):
                assert asyncio.all_tasks() <= {*reads, asyncio.current_task()}
                await asyncio.sleep(USUAL_S / 4)
        await asyncio.sleep(2 * DELAY_S)
        assert (calm.script.begun, calm.store.total.hedges) == (30, 0)

    run(scenario())


@pytest.mark.parametrize(("width", "rounds"), [(1, 200), (61, 8), (128, 4)])
def test_a_slow_store_is_not_asked_twice_as_much(width: int, rounds: int) -> None:
    """Hedges are at most a tenth of the reads and a burst, at every moment. Seen to fail without the
    budget: each read is hedged twice."""

    async def scenario() -> None:
        slow = world(usual=STALL)
        total = slow.store.total
        reads = 0
        for _ in range(rounds):
            await asyncio.gather(*(slow.store.get(f"k/{n % 10}") for n in range(width)))
            reads += width
            assert total.hedges <= EARNED * reads + BURST
            assert total.gets == reads + total.hedges == slow.script.begun

    run(scenario())


def test_the_delay_follows_the_store() -> None:
    """A store whose every read takes 0.4 s is hedged at first, and no longer once that is known."""

    async def scenario() -> None:
        slow = world(usual=Mishap(0.4))
        for _ in range(40):
            await slow.store.get("k/1")
        begun, hedges = slow.script.begun, slow.store.total.hedges
        assert hedges > 0
        for _ in range(40):
            await slow.store.get("k/1")
        assert (slow.script.begun - begun, slow.store.total.hedges) == (40, hedges)

    run(scenario())


def test_a_first_burst_on_cold_connections_keeps_its_budget_for_the_stalled_one() -> None:
    """Seen to fail when nothing known means the default delay: eight healthy reads took the eight hedges."""

    async def scenario() -> None:
        cold = world(STALL, usual=Mishap(2 * DELAY_S))
        await asyncio.gather(*(cold.store.get(f"k/{n % 10}") for n in range(61)))
        assert now_s() < STALL_S
        assert (cold.store.total.hedges, cold.store.total.hedges_won) == (1, 1)

    run(scenario())


@pytest.mark.parametrize("pause_s", [2 * DELAY_S, 5 * DELAY_S])
def test_a_pause_of_the_whole_store_spends_no_hedges(pause_s: float) -> None:
    """Seen to fail when every late read counts as stalled: eight hedges of the burst."""

    async def scenario() -> None:
        paused = world()
        for burst in range(10):
            paused.script.mishaps = [Mishap(USUAL_S + pause_s)] * 61 if burst == 5 else []
            await asyncio.gather(*(paused.store.get(f"k/{n % 10}") for n in range(61)))
        assert paused.store.total.hedges == 0

    run(scenario())


@pytest.mark.parametrize("late", [0, 30, 60])
def test_a_straggler_of_a_burst_is_hedged_wherever_it_stands(late: int) -> None:
    async def scenario() -> None:
        warm = world()
        for burst in range(3):
            warm.script.mishaps = [USUAL] * late + [STALL] if burst == 2 else []
            await asyncio.gather(*(warm.store.get(f"k/{n % 10}") for n in range(61)))
        assert (warm.store.total.hedges, warm.store.total.hedges_won) == (1, 1)
        assert now_s() < STALL_S

    run(scenario())


def test_absence_is_an_answer_and_ends_the_read() -> None:
    async def scenario() -> None:
        absent = world()
        with pytest.raises(NotFound, match="object_not_found"):
            await absent.store.get("k/absent")
        assert absent.script.begun == 1
        stalled = world(STALL)
        with pytest.raises(NotFound, match="object_not_found"):
            await stalled.store.get("k/absent")
        assert (stalled.script.begun, now_s() < STALL_S) == (2, True)
        with pytest.raises(Invalid, match="object_key_invalid"):
            await absent.store.get("/k")

    run(scenario())


def test_a_failure_waits_for_the_request_that_is_still_under_way() -> None:
    """Of two requests the one that fails, first or second, leaves the answer to the other."""

    async def scenario() -> None:
        hedge_fails = world(Mishap(1.0), LOST, LOST)
        assert await hedge_fails.store.get("k/1") == b"0123456789"
        first_fails = world(Mishap(DELAY_S + USUAL_S / 2, "request"))
        assert await first_fails.store.get("k/1") == b"0123456789"
        assert (first_fails.script.begun, first_fails.store.total.hedges_won) == (2, 1)
        both_fail = world(Mishap(DELAY_S + USUAL_S / 2, "request"), LOST, LOST)
        with pytest.raises(Unavailable, match="store_unavailable"):
            await both_fail.store.get("k/1")
        at_once = world(LOST)
        with pytest.raises(Unavailable, match="store_unavailable"):
            await at_once.store.get("k/1")
        assert at_once.script.begun == 1

    run(scenario())


def test_writes_are_never_repeated() -> None:
    async def scenario() -> None:
        slow = world(usual=STALL)
        await slow.store.put_new("k/new", b"x")
        await slow.store.put("k/new", b"y")
        await slow.store.delete(["k/new"])
        assert slow.script.begun == 3

    run(scenario())


ANSWER = b'HTTP/1.1 206 Partial Content\r\nContent-Length: 1\r\nContent-Range: bytes 0-0/9\r\nETag: "e"\r\n'
ANSWER += b"Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n\r\nx"


async def test_over_http_the_hedge_takes_another_connection_and_the_late_one_is_closed() -> None:
    """Of a server that never answers the first request."""
    closed = asyncio.Event()
    connections: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        first = len(connections) == 1
        await reader.readuntil(b"\r\n\r\n")
        if not first:
            writer.write(ANSWER)
        await reader.read()
        if first:
            closed.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        host, port = listening.sockets[0].getsockname()
        options = StoreOptions(endpoint=f"http://{host}:{port}", access_key="k", secret_key="s", allow_http=True)
        store = CountingStore(HedgingStore(open_store("s3://bucket", options=options)))
        assert await store.get_range("k/1", ByteRange(0, 1)) == b"x"
        assert store.total.hedges_won == 1
        await closed.wait()
        for connection in connections:
            connection.close()


class Watched(DictStore):
    """Counts requests in flight, and the most there ever were; each takes STALL_S."""

    in_flight = most = cancelled = 0

    async def get(self, key: str) -> bytes:
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            await asyncio.sleep(STALL_S)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1
        return await super().get(key)


def test_a_caller_that_leaves_ends_every_request() -> None:
    """Seen to fail when closing a race leaves its hedges alone."""

    async def scenario() -> None:
        watched = Watched({"k/1": b"x"})
        store = HedgingStore(watched)
        caller = asyncio.ensure_future(store.get("k/1"))
        await asyncio.sleep(STALL_S / 2)
        assert watched.in_flight == 3
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        await asyncio.sleep(0)
        assert (watched.in_flight, watched.cancelled) == (0, 3)

    run(scenario())


class Cancelling(DictStore):
    """The first request stalls; the second answers and has `caller` cancelled, `turns` turns of the loop later."""

    caller: asyncio.Task[bytes]
    turns = asked = 0

    async def get(self, key: str) -> bytes:
        self.asked += 1
        if self.asked == 1:
            await asyncio.sleep(STALL_S)
        self._cancel(self.turns)
        return b"x"

    def _cancel(self, turns: int) -> None:
        asyncio.get_running_loop().call_soon(*((self._cancel, turns - 1) if turns else (self.caller.cancel,)))


def test_a_cancellation_in_the_instant_of_the_hedges_answer_is_kept() -> None:
    """Whoever cancels a caller that has no answer yet sees it cancelled, and one that is only interrupted stays
    whole. Seen to fail when an interruption takes back whatever cancelled the task, or forgets to take back its own."""

    async def scenario() -> None:
        ends: list[bool] = []
        for turns in range(5):
            store = Cancelling()
            store.turns = turns
            store.caller = asyncio.ensure_future(HedgingStore(store).get("k/1"))
            await asyncio.wait([store.caller])
            assert now_s() < (turns + 1) * STALL_S
            ends.append(store.caller.cancelled())
        assert ends == [True, True, False, False, False]

        async def reads() -> tuple[bytes, int]:
            task = asyncio.current_task()
            assert task is not None
            stalled = world(STALL)
            async with asyncio.timeout(STALL_S):
                found = await stalled.store.get("k/1")
            return found, task.cancelling()

        assert await asyncio.ensure_future(reads()) == (b"0123456789", 0)

    run(scenario())


def test_a_read_ends_at_the_deadline_and_none_starts_after_it() -> None:
    async def scenario() -> None:
        watched = Watched({f"k/{n}": b"x" for n in range(60)})
        store = HedgingStore(watched)
        with deadline.within(0.5):
            found = await asyncio.gather(*(store.get(f"k/{n}") for n in range(60)), return_exceptions=True)
            assert now_s() == pytest.approx(0.5)
            assert {getattr(error, "code", error) for error in found} == {"deadline_exceeded"}
            await asyncio.sleep(0)
            assert watched.in_flight == 0
            asked = watched.cancelled
            with pytest.raises(Unavailable, match="deadline_exceeded"):
                await store.get("k/1")
            assert (watched.cancelled, watched.in_flight) == (asked, 0)
        assert await store.get("k/1") == b"x"

    run(scenario())


def test_deadlines_nest_and_only_shorten() -> None:
    async def scenario() -> None:
        assert deadline.current() is deadline.NEVER
        with deadline.within(2.0) as outer:
            with deadline.within(5.0) as inner:
                assert inner.at_s == outer.at_s
                assert deadline.current() is inner
            with deadline.within(1.0) as inner:
                assert inner.at_s < outer.at_s
            assert deadline.current() is outer
        assert deadline.current() is deadline.NEVER

    run(scenario())


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(("second_s", "answered"), [(0.2, False), (6.0, True), (None, True)])
def test_shared_work_lives_as_long_as_its_most_patient_waiter(
    second_s: float | None, answered: bool, nested: bool
) -> None:
    """Seen to fail when a flight keeps its starter's deadline (the second waiter, with time left, got none), and,
    nested, when a flight within a flight keeps what the outer one had when it started."""

    async def scenario() -> None:
        store = HedgingStore(Watched({"k/1": b"x"}))

        async def through() -> bytes:
            return await deadline.joined(deadline.fly(store.get("k/1")))

        with deadline.within(0.5):
            flight = deadline.fly(through() if nested else store.get("k/1"))
            first = asyncio.ensure_future(deadline.joined(flight))
        await asyncio.sleep(0.1)
        with nullcontext() if second_s is None else deadline.within(second_s):
            second = asyncio.ensure_future(deadline.joined(flight))
        await asyncio.sleep(0.1)
        first.cancel()
        await asyncio.wait([flight, first, second])
        assert first.cancelled()
        assert (second.exception() is None) == answered

    run(scenario())


@pytest.mark.parametrize(("second_s", "answered"), [(0.2, False), (20.0, True), (None, True)])
def test_a_flight_waits_in_a_full_lane_as_long_as_its_most_patient_waiter_and_keeps_its_place(
    second_s: float | None, answered: bool
) -> None:
    """Seen to fail when the wait ended with what the flight had when it began, and when it began anew, at the end of
    the queue."""

    async def scenario() -> None:
        store = HedgingStore(Watched({f"tenants/a/{n}": b"x" for n in range(3)}), lane_reads_max=1)
        ahead = asyncio.ensure_future(store.get("tenants/a/0"))
        await asyncio.sleep(0)
        with deadline.within(0.5):
            flight = deadline.fly(store.get("tenants/a/1"))
        await asyncio.sleep(0)
        behind = asyncio.ensure_future(store.get("tenants/a/2"))
        await asyncio.sleep(0.1)
        with nullcontext() if second_s is None else deadline.within(second_s):
            second = asyncio.ensure_future(deadline.joined(flight))
        await asyncio.wait([second])
        assert (second.exception() is None) == answered
        assert now_s() == pytest.approx(2 * STALL_S if answered else 0.5)
        assert not behind.done()
        assert await asyncio.gather(*[ahead, behind]) == [b"x"] * 2
        assert len(store._lanes) == 0

    run(scenario())


def test_a_tenants_reads_are_bounded_and_others_pass() -> None:
    """Seen to fail without lanes: 40 in flight."""

    async def scenario() -> None:
        objects = {f"tenants/{name}/{n}": b"x" for name in "ab" for n in range(40)}
        watched = Watched(objects)
        store = HedgingStore(watched, lane_reads_max=4)
        flood = [asyncio.ensure_future(store.get(f"tenants/a/{n}")) for n in range(40)]
        await asyncio.sleep(0.01)
        assert watched.most == 4
        other = asyncio.ensure_future(store.get("tenants/b/1"))
        await other
        assert not flood[-1].done()
        for read in flood[10:]:
            read.cancel()
        with deadline.within(0.1), pytest.raises(Unavailable, match="deadline_exceeded"):
            await store.get("tenants/a/1")
        assert await asyncio.gather(*flood[:10]) == [b"x"] * 10
        assert len(store._lanes) == 0

    run(scenario())


async def test_a_lane_hands_its_places_on_and_is_forgotten() -> None:
    assert [lane_of(key) for key in ["tenants/a/log/1", "tenants/a/x", "control/keys/k"]] == [
        "tenants/a",
        "tenants/a",
        "control/keys",
    ]
    lanes = Lanes(1)
    lane = lanes.lane("x")
    lane.enter()
    first, second = (asyncio.ensure_future(lane.turn()) for _ in range(2))
    await asyncio.sleep(0)
    lanes.leave("x", lane)
    first.cancel()  # in the instant it was given the place
    await asyncio.wait([first])
    await second
    assert (first.cancelled(), lane.full, len(lanes)) == (True, True, 1)
    lanes.leave("x", lane)
    assert len(lanes) == 0


class Body(DictStore):
    """The headers come after USUAL_S and tell 40 MB, the body takes two seconds."""

    asked = 0

    async def get(self, key: str) -> bytes:
        self.asked += 1
        await asyncio.sleep(USUAL_S)
        told = on_size.get()
        assert told is not None
        told(40_000_000)
        await asyncio.sleep(2.0)
        return b"x" * 40_000_000


def test_a_long_body_may_take_its_time() -> None:
    async def scenario() -> None:
        body = Body()
        await HedgingStore(body).get("k/1")
        assert body.asked == 1

    run(scenario())


def test_what_is_usual_is_a_high_quantile_whatever_the_sizes() -> None:
    small, mixed = Usual(), Usual()
    for n in range(1000):
        latency_s = 0.06 + 0.02 * (n % 100) / 100
        small.note(latency_s, 0, n)
        mixed.note(latency_s + (n % 5) * 0.1, (n % 5) * 2_000_000, n)
    assert small.delay_s == pytest.approx(mixed.delay_s)
    assert 1.5 * 0.078 < small.delay_s < 1.5 * 0.080


def test_the_budget_is_a_burst_and_a_tenth() -> None:
    budget = Budget()
    spent = sum(budget.spend() for _ in range(100))
    for _ in range(1000):
        budget.earn()
        spent += budget.spend()
    assert BURST + EARNED * 1000 - 1 <= spent <= BURST + EARNED * 1000


async def test_a_plane_hedges_reads_across_a_network_and_no_others(tmp_path: Path) -> None:
    options = StoreOptions(endpoint="http://127.0.0.1:9", access_key="k", secret_key="s", allow_http=True)
    for url, hedged in {"s3://bucket/prefix": True, f"file://{tmp_path}/store": False}.items():
        assert is_remote(url) == hedged
        settings = Settings(store=url, cache_dir=tmp_path / "cache", embedder=EmbedderSettings())
        async with plane.open(settings, options=options, probe_store=False) as opened:
            assert isinstance(opened.store.inner, HedgingStore) == hedged
    assert not is_remote("memory://x")
    await open_store("memory://x").aclose()
