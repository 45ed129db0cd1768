"""One schedule: journeys chosen, interleaved, broken and checked by a seeded source of randomness.

`run_schedule(seed)` raises `AssertionError` (a law is broken) or returns what happened, as counts.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias
from unittest import mock

from context_plane.audit import read_batches
from context_plane.catalog.days import load_day
from context_plane.catalog.head import load_head
from context_plane.catalog.log import LogHead, append
from context_plane.catalog.named import named_keys
from context_plane.collect import collect
from context_plane.engine import Engine
from context_plane.erase import BuildDay, erase_entity, load_receipt
from context_plane.erased import contents, verify_erasure
from context_plane.errors import Corrupt, NotFound, PlaneError
from context_plane.fold import fold_day, load_pending
from context_plane.layout.batch import encode
from context_plane.layout.keys import (
    AuditedBatchesKey,
    ErasureKey,
    LatestKey,
    LogKey,
    ManifestKey,
    audited_batches_prefix,
    parse,
    tenant_prefix,
)
from context_plane.model import Delete, Event, Put, Write, day_start_us, identity
from context_plane.publish import publish_staged
from context_plane.rollup import roll_up
from context_plane.staging import load_staged
from tests.machine.journeys import TENANT, Answer, SmallEmbedder, build_small, index_small, merge_small, read_small
from tests.machine.oracle import Oracle
from tests.machine.sim import Fate, SimStore, World

HOUR: Final = 3600 * 1_000_000
DAYS: Final = ("2026-12-03", "2026-12-04", "2027-01-14")
MONTH: Final = "2026-12"
ENTITIES: Final = ("acct-1", "a/b ~..é", "x" * 200)
JUMPS_US: Final = (HOUR // 30, 11 * HOUR // 60, 13 * HOUR, 25 * HOUR, 26 * HOUR)
IN_FLIGHT_MAX: Final = 4
STEPS: Final = 170

Journey: TypeAlias = Coroutine[Any, Any, Any]


@contextmanager
def instant() -> Iterator[None]:
    """Threads run inline and nothing sleeps: the scheduler alone decides who goes next."""

    async def inline(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    async def no_sleep(delay: float, result: Any = None) -> Any:
        return result

    with mock.patch.object(asyncio, "to_thread", inline), mock.patch.object(asyncio, "sleep", no_sleep):
        yield


def make_engine(world: World) -> Engine:
    return Engine(
        store=SimStore(world),
        embedder=SmallEmbedder(),
        now_us=lambda: world.now,
        monotonic_s=lambda: world.now / 1e6,
        nonce=world.nonce,
    )


@dataclass(slots=True)
class Pinned:
    answer: Answer


@dataclass(slots=True)
class Machine:
    rng: random.Random
    build: BuildDay = build_small
    index: BuildDay = index_small
    steps: int = STEPS
    world: World = field(default_factory=World)
    oracle: Oracle = field(default_factory=Oracle)
    heads: list[LogHead | None] = field(default_factory=lambda: [None, None, None])
    pins: list[Answer] = field(default_factory=list)
    erasures: dict[str, str] = field(default_factory=dict)
    """Erasure id -> entity."""
    superseded: dict[int, int] = field(default_factory=dict)
    jumps: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    serial: int = 0
    engine: Engine = field(init=False)

    def __post_init__(self) -> None:
        self.engine = make_engine(self.world)
        self.world.on_create = self.created

    def created(self, key: str, data: bytes) -> None:
        before = self.oracle.newest_version
        self.oracle.created(key, data)
        if self.oracle.newest_version > before:
            self.superseded[before] = self.world.now

    def next_serial(self) -> int:
        self.serial += 1
        return self.serial

    # --- journeys ---

    def writes(self) -> list[Write]:
        made: list[Write] = []
        for _ in range(self.rng.randint(1, 3)):
            day, entity = self.rng.choice(DAYS), self.rng.choice(ENTITIES)
            event_id, number = f"e{self.rng.randrange(3)}", self.next_serial()
            ts_us = day_start_us(day) + self.rng.randrange(3)
            if self.rng.random() < 0.2:
                made.append(Delete(entity, ts_us, event_id))
            else:
                same = self.rng.random() < 0.2  # the same content again, also after an erasure
                text = f"again {event_id}." if same else f"mark-{number}."
                made.append(Put(Event(entity, ts_us, event_id, "crm", "note", text=text)))
        return made

    async def append(self, slot: int) -> None:
        writer = f"w{self.next_serial()}"
        data = encode(self.writes(), writer=writer, created_us=self.world.now, visible="now")
        head, self.heads[slot] = self.heads[slot], None
        head = await append(self.engine, TENANT, data, writer=writer, head=head)
        self.oracle.acknowledge(writer, head.number)
        self.heads[slot] = head

    async def read(self, pinned: Answer | None = None) -> None:
        acked, version, jumps = self.oracle.newest_acked, self.oracle.newest_version, self.jumps
        snapshot = (pinned.version, pinned.log_number) if pinned else None
        ended = self.oracle.newest.snapshots_from if self.oracle.newest else 0
        gone: NotFound | None = None
        answer = None
        try:
            answer = await read_small(self.engine, TENANT, snapshot=snapshot)
        except NotFound as error:
            gone = error
        if answer is None:
            now_ended = self.oracle.newest.snapshots_from if self.oracle.newest else 0
            allowed = self.jumps > jumps or now_ended > ended
            if pinned is not None:
                age = self.world.now - self.superseded.get(pinned.version, self.world.now)
                allowed = allowed or pinned.version < now_ended or age > 24 * HOUR
            assert allowed, f"a live snapshot is gone: {pinned} {gone}"
            return
        assert answer.head_version >= version, "a strong read missed a commit"
        assert pinned is not None or answer.log_number >= acked, "an acknowledged batch is not in the cut"
        expected = self.oracle.state(answer.log_number, answer.head_version)
        assert answer.state == expected, f"read {answer} expected {expected}"
        self.counts["reads"] += 1
        if pinned is None:
            self.pins.append(answer)

    async def erase(self, erasure: str) -> None:
        entity = self.erasures[erasure]
        receipt = await erase_entity(self.engine, TENANT, entity, build_day=self.build, erasure=erasure)
        assert receipt.erasure == erasure
        self.counts["erased"] += 1

    async def fold_only(self, day: str) -> None:
        await fold_day(self.engine, TENANT, day)

    def choose(self) -> tuple[str, Journey]:
        day = self.rng.choice(DAYS)
        roll = self.rng.random()
        if roll < 0.3:
            return "append", self.append(self.rng.randrange(3))
        if roll < 0.5:
            return "build", self.build_day(day)
        if roll < 0.6:
            step = self.rng.choice([self.fold_only, self.index_only, self.publish_only])
            return "stage", step(day)
        if roll < 0.7:
            return "read", self.read()
        if roll < 0.78:
            return "pinned", self.read(self.rng.choice(self.pins) if self.pins else None)
        if roll < 0.85:
            return "rollup", roll_up(self.engine, TENANT, MONTH, merge=merge_small(self.engine, TENANT, MONTH))
        if roll < 0.92:
            return "erase", self.erase(self.choose_erasure())
        return "collect", collect(self.engine, TENANT, dry_run=self.rng.random() < 0.1)

    def choose_erasure(self) -> str:
        if self.erasures and self.rng.random() < 0.6:
            return self.rng.choice(list(self.erasures))
        erasure = f"{len(self.erasures):032x}"
        self.erasures[erasure] = self.rng.choice(ENTITIES)
        return erasure

    async def build_day(self, day: str) -> None:
        await self.build(self.engine, TENANT, day)
        self.counts["built"] += 1

    async def index_only(self, day: str) -> None:
        await self.index(self.engine, TENANT, day)

    async def publish_only(self, day: str) -> None:
        await publish_staged(self.engine, await load_staged(self.engine.store, TENANT, day))
        self.counts["published alone"] += 1

    # --- scheduling ---

    def run(self) -> None:
        try:
            for _ in range(self.steps):
                self.step()
            self.finish()
        finally:
            self.world.close()

    def step(self) -> None:
        world, rng = self.world, self.rng
        running = world.running()
        if not running or (len(running) < IN_FLIGHT_MAX and rng.random() < 0.15):
            name, journey = self.choose()
            self.counts[name] += 1
            world.start(f"{name}-{self.next_serial()}", journey)
        world.settle()
        self.judge()
        chance = rng.random()
        if chance < 0.006:
            self.jumps += 1
            world.jump(rng.choice(JUMPS_US))
        elif chance < 0.03 and world.limbo:
            world.land(rng.choice(world.limbo))
        elif world.waiting and chance < 0.04:
            world.crash(rng.choice(world.waiting).journey, applied=rng.random() < 0.5)
        elif world.waiting:
            self.advance()

    def advance(self) -> None:
        """One journey goes on, often for several operations, as processes do."""
        rng = self.rng
        name = rng.choice(sorted({op.journey for op in self.world.waiting}))
        for _ in range(rng.choice((1, 1, 2, 4, 12, 30))):
            mine = [op for op in self.world.waiting if op.journey == name]
            if not mine:
                return
            op = rng.choice(mine)
            self.world.resolve(op, self.fate(op.writes))
            self.world.settle()
            self.judge()

    def fate(self, writes: bool) -> Fate:
        chance = self.rng.random()
        if chance > (0.06 if writes else 0.01):
            return "ok"
        return self.rng.choice(("lost_request", "lost_response", "delayed")) if writes else "lost_request"

    def judge(self) -> None:
        """A journey may fail with an error of the engine; any other exception is a defect."""
        for name, task in list(self.world.tasks.items()):
            if not task.done():
                continue
            del self.world.tasks[name]
            error = None if task.cancelled() else task.exception()
            if error is not None and (not isinstance(error, PlaneError) or isinstance(error, Corrupt)):
                raise AssertionError(f"{name} failed: {error!r}") from error

    # --- the end ---

    def finish(self) -> None:
        for op in list(self.world.limbo):
            self.world.land(op)
        for name in self.world.running():
            self.world.crash(name, applied=self.rng.random() < 0.5)
        self.world.settle()
        self.judge()
        self.world.jump(0)
        self.world.calmly(self.epilogue())

    async def epilogue(self) -> None:
        begun = [erasure for erasure in self.erasures if erasure in self.oracle.stones]
        for erasure in begun:
            await self.erase(erasure)
        await self.build_all()
        await self.read()
        for _ in range(2):
            self.world.now += 26 * HOUR
            await collect(self.engine, TENANT, dry_run=False)
            await self.read()
        await self.check_erased(begun)
        await self.check_left()
        await self.check_audit()
        await self.check_rebuild()

    async def build_all(self) -> None:
        for day in (await load_pending(self.engine, TENANT)).dirty:
            await self.build(self.engine, TENANT, day)
        assert not (await load_pending(self.engine, TENANT)).dirty

    async def check_erased(self, begun: list[str]) -> None:
        everything = b"".join(contents(data) for data, _ in self.world.objects.values())
        stones = [stone for _, stone in self.oracle.stones.values()]
        for number, (_, writes) in self.oracle.batches.items():
            for write in writes:
                erased = self.oracle._erased(stones, identity(write)[0], number)
                if erased and isinstance(write, Put) and str(write.event.text).startswith("mark-"):
                    assert str(write.event.text).encode() not in everything, f"erased but there: {write}"
        for erasure in begun:
            receipt = await load_receipt(self.engine.store, TENANT, erasure)
            assert receipt is not None
            problems = await verify_erasure(self.engine, TENANT, self.erasures[erasure], receipt)
            assert not problems, problems

    async def check_left(self) -> None:
        """After two collections a day apart, what is left is named, or a record that stays."""
        head = await load_head(self.engine.store, TENANT)
        named = await named_keys(self.engine.store, head, {})
        assert named <= self.world.objects.keys(), "the newest manifest names objects that are gone"
        for key in self.world.objects.keys() - named:
            typed = parse(key)
            stays = isinstance(typed, ErasureKey | LatestKey | AuditedBatchesKey)
            if isinstance(typed, ManifestKey):
                stays = typed.version >= head.version - 1  # the newest is the fence of this very collection
            assert stays or (isinstance(typed, LogKey) and typed.number > head.log_floor), f"never collected: {key}"
        prefixes = tenant_prefix(TENANT), audited_batches_prefix(TENANT)
        assert all(key.startswith(prefixes) for key in self.world.objects)

    async def check_audit(self) -> None:
        """Every batch of the log is told once, in order, whatever was collected, emptied or interrupted."""
        page = await read_batches(self.engine.store, TENANT, limit=10_000)
        assert [batch.batch for batch in page.batches] == sorted(self.oracle.batches)

    async def check_rebuild(self) -> None:
        """The surviving events, in another order and other batches, give the same content digests."""
        mine = await self.digests(self.engine)
        head = await load_head(self.engine.store, TENANT)
        state = self.oracle.state(self.oracle.newest_acked + len(self.oracle.batches), head.version)
        last: dict[str, Write] = {}
        for _, writes in (batch for _, batch in sorted(self.oracle.batches.items())):
            last |= {str(identity(write)): write for write in writes}
        events = [last[str(who)] for who in state]
        self.rng.shuffle(events)
        other = World(calm=True)
        engine = make_engine(other)
        log_head: LogHead | None = None
        while events:
            size = self.rng.randint(1, 4)
            data = encode(events[:size], writer=f"r{len(events)}", created_us=0, visible="now")
            log_head = await append(engine, TENANT, data, writer=f"r{len(events)}", head=log_head)
            events = events[size:]
        for day in (await load_pending(engine, TENANT)).dirty:
            await self.build(engine, TENANT, day)
        assert await self.digests(engine) == mine, "a rebuild in another order gives other digests"
        other.loop.close()

    async def digests(self, engine: Engine) -> dict[str, tuple[str, str]]:
        head = await load_head(engine.store, TENANT)
        found = {}
        for day in DAYS:
            entry = await load_day(engine.store, head, day)
            if entry is not None and entry.segments is not None and entry.shards is not None:
                found[day] = (entry.segments.digest, entry.shards.entity.digest)
        return found


def run_schedule(
    seed: int, *, build: BuildDay = build_small, index: BuildDay = index_small, steps: int = STEPS
) -> Counter[str]:
    machine = Machine(random.Random(seed), build=build, index=index, steps=steps)
    with instant():
        machine.run()
    return machine.counts
