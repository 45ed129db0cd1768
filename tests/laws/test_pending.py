"""Bundles that would change much wait for an approval: readers keep their bytes, collectors spare what waits, an
erasure takes it away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import context_plane.materialize
import context_plane.settle
from context_plane.approvals import APPROVALS_MAX, Approval, file_approval, is_approved, load_approvals
from context_plane.bundle.diff import decode_table
from context_plane.bundle.materialize import Bundle, materialize
from context_plane.catalog.head import load_head
from context_plane.catalog.manifest import BundleChanges, BundleDay, Manifest, PendingBundles, decode, encode
from context_plane.catalog.named import load_buckets, named_keys
from context_plane.collect import collect
from context_plane.erase import begin_erasure, erase_entity
from context_plane.erased import verify_erasure
from context_plane.errors import Conflict, Invalid, Unavailable
from context_plane.model import add_days, day_start_us
from context_plane.pending import approved, committed, dropped, held_back, waits
from context_plane.plane import Plane
from context_plane.reindex import build_day
from context_plane.retention import retire_days, retire_specs
from context_plane.settle import approve, commit_pending, reject
from context_plane.store.faults import Mishap
from tests.catalog.values import full_manifest, pack
from tests.laws.plane_world import DAY, SPEC, TENANT, Clock, World, delete_of, event, puts
from tests.store.dictionary import DictStore

SPEC_NAME = str(SPEC["name"])
NEXT = add_days(DAY, 1)
ENTITIES = ("acct-00", "acct-01", "acct-02", "acct-03")
HOUR_US = 3600 * 1_000_000
DAY_US = 24 * HOUR_US


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(DictStore(), tmp_path, clock=Clock(day_start_us("2026-03-05")))


async def built(world: World, *, change_max: float = 0.5) -> Plane:
    """Bundles of four entities as of `DAY`."""
    plane = world.plane(bundle_change_max=change_max)
    await world.write(plane, puts(event(n, entity=name) for n, name in enumerate(ENTITIES)))
    await plane.build(TENANT, [DAY])
    return plane


async def change(world: World, plane: Plane, *entities: str, first: int = 100) -> None:
    """A late event of each, and the day built again."""
    await world.write(plane, puts(event(first + n, entity=name) for n, name in enumerate(entities)))
    await plane.build(TENANT, [DAY])


async def head(plane: Plane) -> Manifest:
    return await load_head(plane.engine.store, TENANT)


async def bodies(world: World) -> dict[str, bytes]:
    """What a fresh process reads of every entity."""
    found = {}
    _, items = await world.plane().bundle_batch(TENANT, None, spec=SPEC_NAME, as_of=DAY)
    async for item in items:
        assert not isinstance(item, tuple)
        found[item.entity] = item.json_bytes
    return found


async def let_through(plane: Plane, *, since: str = DAY, until: str = DAY, hours: int = 24) -> Any:
    spec, expires_us = await plane.bundles.compiled(SPEC_NAME), plane.engine.now_us() + hours * HOUR_US
    return await approve(plane.engine, plane.reader, TENANT, spec, since=since, until=until, expires_us=expires_us)


async def rebuilt_elsewhere(world: World, tmp_path: Path) -> dict[str, bytes]:
    """The same events built in a store of their own, at once."""
    other = World(DictStore(), tmp_path / "other", clock=world.clock)
    await other.write(other.plane(), puts(world.events()))
    await other.plane().build(TENANT, [DAY])
    return await bodies(other)


# --- what waits ---------------------------------------------------------------------------------


async def test_a_change_of_many_waits_and_readers_keep_their_bytes(world: World) -> None:
    """Seen to fail (readers got the new ones) when the mutation did not look at what waits."""
    plane = await built(world)
    before = await bodies(world)
    await change(world, plane, *ENTITIES[:3])
    assert await bodies(world) == before
    answer = await world.plane().bundle(TENANT, "acct-00", spec=SPEC_NAME, as_of=DAY)
    assert answer.freshness == "stale"
    pending = (await head(plane)).pending[SPEC_NAME][DAY]
    told = pending.changes
    assert (told.changed, told.unchanged, told.added, told.removed, told.compared) == (3, 1, 0, 0, 3)
    assert told.share == 0.75
    assert told.fields == {"evidence": 3}
    assert told.citations_added == 3
    assert told.tokens_after > told.tokens_before
    table = decode_table(await plane.engine.store.get(pending.table))
    assert [row["entity"] for row in table["entities"]] == list(ENTITIES[:3])
    assert all(row["tokens_after"] > row["tokens_before"] for row in table["entities"])


async def test_what_is_built_first_or_changes_little_or_only_adds_does_not_wait(world: World) -> None:
    plane = await built(world, change_max=0.0)
    assert not (await head(plane)).pending, "a first build replaces nothing"
    await change(world, plane, "acct-07", "acct-08")
    assert set(await bodies(world)) == {*ENTITIES, "acct-07", "acct-08"}, "nothing that readers have is another"
    again = await plane.materialize(TENANT, SPEC_NAME, DAY)
    assert (again.pending, again.replacement is not None) == (False, True)
    assert again.replacement is not None
    assert again.replacement.table == "", "nothing differs"
    plenty = world.plane()
    await change(world, plenty, *ENTITIES, first=300)
    assert not any((await head(plane)).pending.values()), "by default nothing waits"


async def test_another_spec_of_the_name_is_not_compared(world: World) -> None:
    plane = await built(world, change_max=0.0)
    spec = await plane.bundles.compiled(SPEC_NAME)
    plane.bundles._compiled[SPEC_NAME] = replace(spec, fingerprint="0" * 64)
    build = await plane.materialize(TENANT, SPEC_NAME, DAY)
    assert (build.pending, build.replacement) == (False, None)


async def test_an_approval_that_comes_while_bundles_are_made_is_not_missed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever approved found nothing that waits. Seen to fail without the second look."""
    plane = await built(world, change_max=0.0)
    asked = 0

    async def late(*_: Any) -> bool:
        nonlocal asked
        asked += 1
        return asked > 1

    monkeypatch.setattr(context_plane.materialize, "is_approved", late)
    await change(world, plane, *ENTITIES)
    assert not any((await head(plane)).pending.values())
    assert await bodies(world) == await rebuilt_elsewhere(world, world.folder)


@pytest.mark.parametrize("lost", ["directory", "packs"])
async def test_what_waits_and_was_deleted_is_built_anew(world: World, lost: str) -> None:
    """Derived state is disposable. Seen to fail (readers got bundles that were not there) when it was not looked at."""
    plane = await built(world)
    before = {info.key async for info in plane.engine.store.list(f"tenants/{TENANT}/bundles/")}
    await change(world, plane, *ENTITIES)
    waiting = (await head(plane)).pending[SPEC_NAME][DAY].bundles.directory.key
    made = {info.key async for info in plane.engine.store.list(f"tenants/{TENANT}/bundles/")} - before
    await plane.engine.store.delete([waiting] if lost == "directory" else sorted(made - {waiting}))
    done = await let_through(plane)
    assert (done.committed, done.rebuilt) == ((), (DAY,))
    assert set(await bodies(world)) == set(ENTITIES)


async def test_a_store_that_does_not_answer_lets_nothing_through(world: World) -> None:
    """Seen to fail, committed, with a directory that could not be read taken for one that is not there."""
    plane = await built(world)
    before = await bodies(world)
    directory = (await head(plane)).bundles[SPEC_NAME][DAY].directory
    with world.faults.on(directory.key, Mishap(lost="request")), pytest.raises(Unavailable):
        await change(world, plane, *ENTITIES)
    assert await bodies(world) == before


async def test_a_retired_spec_leaves_nothing_that_waits(world: World) -> None:
    """Seen to fail with its pending bundles kept: named for ever, of a spec that no longer compiles."""
    plane = await built(world)
    await change(world, plane, *ENTITIES)
    assert await retire_specs(plane.engine, TENANT, ["law_v1"], dry_run=False) == {SPEC_NAME: 1}
    after = await head(plane)
    assert (after.bundles, after.pending) == ({}, {})


async def test_old_bundles_that_cannot_be_read_hold_nothing_back(world: World) -> None:
    plane = await built(world, change_max=0.0)
    keys = [info.key async for info in plane.engine.store.list(f"tenants/{TENANT}/bundles/")]
    await plane.engine.store.delete(keys)
    await change(world, plane, *ENTITIES)
    assert not any((await head(plane)).pending.values())
    assert set(await bodies(world)) == set(ENTITIES)


async def test_packs_that_cannot_be_read_are_counted_by_their_directory(world: World) -> None:
    plane = await built(world)
    entry = (await head(plane)).bundles[SPEC_NAME][DAY]
    keys = [info.key async for info in plane.engine.store.list(f"tenants/{TENANT}/bundles/")]
    await plane.engine.store.delete([key for key in keys if key != entry.directory.key])
    await change(world, plane, *ENTITIES)
    told = (await head(plane)).pending[SPEC_NAME][DAY].changes
    assert (told.changed, told.compared, told.fields) == (4, 0, {})


async def test_what_waits_is_dropped_by_a_build_that_changes_less(world: World) -> None:
    plane = await built(world)
    await change(world, plane, *ENTITIES[:3])
    gone = [e for e in world.events() if int(e.id[1:]) in (100, 101)]
    await world.write(plane, [delete_of(each) for each in gone])
    await plane.build(TENANT, [DAY])
    assert not any((await head(plane)).pending.values())
    assert b"e102" in (await bodies(world))["acct-02"]


# --- approvals ----------------------------------------------------------------------------------


async def test_an_approval_commits_what_waits_without_computing(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = await built(world)
    await change(world, plane, *ENTITIES[:3])
    waiting = (await head(plane)).pending[SPEC_NAME][DAY]
    monkeypatch.setattr(context_plane.settle, "materialize_day", None)
    done = await let_through(plane)
    assert (done.committed, done.rebuilt) == ((DAY,), ())
    after = await head(plane)
    assert after.bundles[SPEC_NAME][DAY] == waiting.bundles
    assert not after.pending[SPEC_NAME]
    assert await bodies(world) == await rebuilt_elsewhere(world, tmp_path)
    assert (await world.plane().bundle(TENANT, "acct-00", spec=SPEC_NAME, as_of=DAY)).freshness == "fresh"
    assert (await let_through(plane)).committed == (), "nothing waits any more"


async def test_what_moved_is_built_again_on_approval(world: World, tmp_path: Path) -> None:
    """Seen to fail (bundles without the newest event) when sources were not compared."""
    plane = await built(world)
    await change(world, plane, *ENTITIES[:3])
    await world.write(plane, puts([event(200, entity="acct-03")]))
    await build_day(plane.engine, TENANT, DAY)
    done = await let_through(plane)
    assert (done.committed, done.rebuilt) == ((), (DAY,))
    assert await bodies(world) == await rebuilt_elsewhere(world, tmp_path)
    assert not (await head(plane)).pending[SPEC_NAME]


async def test_builds_need_no_other_approval_until_it_ends(world: World) -> None:
    plane = await built(world)
    assert world.clock is not None
    await file_approval(
        plane.engine, TENANT, SPEC_NAME, since=DAY, until=DAY, expires_us=plane.engine.now_us() + HOUR_US
    )
    await change(world, plane, *ENTITIES)
    assert not any((await head(plane)).pending.values())
    before = await bodies(world)
    world.clock.advance(3601)
    await change(world, plane, *ENTITIES, first=300)
    assert (await head(plane)).pending[SPEC_NAME][DAY].changes.changed == 4
    assert await bodies(world) == before
    assert await commit_pending(plane.engine, TENANT, await plane.bundles.compiled(SPEC_NAME), DAY) == "waits"


@pytest.mark.parametrize(
    ("spec", "day", "at_us", "covered"),
    [
        ("a_v0", "2026-03-01", 9, True),
        ("a_v0", "2026-03-03", 9, True),
        ("a_v0", "2026-02-28", 9, False),
        ("a_v0", "2026-03-04", 9, False),
        ("b_v0", "2026-03-02", 9, False),
        ("a_v0", "2026-03-02", 10, False),
    ],
)
def test_an_approval_covers_its_spec_its_days_and_its_time(spec: str, day: str, at_us: int, covered: bool) -> None:
    one = Approval(id="x", spec="a_v0", since="2026-03-01", until="2026-03-03", expires_us=10, approved_us=1)
    assert one.covers(spec, day, at_us) == covered


async def test_approvals_are_bounded_created_once_and_forgotten_after_their_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = world.plane().engine
    assert world.clock is not None

    async def file(hours: float, since: str = DAY, until: str = NEXT) -> Approval:
        expires_us = engine.now_us() + int(hours * HOUR_US)
        return await file_approval(engine, TENANT, SPEC_NAME, since=since, until=until, expires_us=expires_us)

    for hours, since in ((0, DAY), (-1, DAY), (31 * 24 + 1, DAY), (1, add_days(NEXT, 1)), (1, "march")):
        with pytest.raises(Invalid, match="query_invalid"):
            await file(hours, since)
    first = await file(1)
    assert await load_approvals(engine.store, TENANT) == [first]
    assert await is_approved(engine, TENANT, SPEC_NAME, NEXT)
    assert not await is_approved(engine, "beta", SPEC_NAME, NEXT)
    monkeypatch.setattr("context_plane.approvals.APPROVALS_MAX", 1)
    with pytest.raises(Invalid, match="too many approvals"):
        await file(1)
    world.clock.advance(3601)
    assert not await is_approved(engine, TENANT, SPEC_NAME, NEXT)
    second = await file(1)
    assert await load_approvals(engine.store, TENANT) == [second]
    assert APPROVALS_MAX > 1


async def test_what_is_rejected_is_gone_and_compared_anew(world: World) -> None:
    plane = await built(world)
    before = await bodies(world)
    await change(world, plane, *ENTITIES[:3])
    assert await reject(plane.engine, TENANT, SPEC_NAME, since=NEXT, until=NEXT) == ()
    assert await reject(plane.engine, TENANT, SPEC_NAME, since=DAY, until=NEXT) == (DAY,)
    version = (await head(plane)).version
    assert await reject(plane.engine, TENANT, SPEC_NAME, since=DAY, until=NEXT) == ()
    assert (await head(plane)).version == version, "nothing to drop commits nothing"
    assert await bodies(world) == before
    await plane.build(TENANT, [DAY])
    assert DAY in (await head(plane)).pending[SPEC_NAME]


# --- collection, erasure, retention -------------------------------------------------------------


async def missing(plane: Plane) -> set[str]:
    named = await named_keys(plane.engine.store, await head(plane), {})
    return named - {info.key async for info in plane.engine.store.list(f"tenants/{TENANT}/")}


async def test_a_collector_spares_what_waits_and_takes_what_was_dropped(world: World) -> None:
    """Seen to fail (objects gone) without `pending` among the manifest's names, and among those of its lists."""
    plane = await built(world)
    await change(world, plane, *ENTITIES[:3])
    assert world.clock is not None
    pending = (await head(plane)).pending[SPEC_NAME][DAY]
    world.clock.now_us += 3 * DAY_US
    await collect(plane.engine, TENANT, dry_run=False)
    await collect(plane.engine, TENANT, dry_run=False)
    assert await missing(plane) == set()
    packs = {bucket.key for bucket in await load_buckets(plane.engine.store, pending.bundles) if bucket.key}
    assert packs <= {info.key async for info in plane.engine.store.list(f"tenants/{TENANT}/bundles/")}
    await reject(plane.engine, TENANT, SPEC_NAME, since=DAY, until=DAY)
    world.clock.now_us += 3 * DAY_US
    await collect(plane.engine, TENANT, dry_run=False)
    await collect(plane.engine, TENANT, dry_run=False)
    left = {info.key async for info in plane.engine.store.list(f"tenants/{TENANT}/")}
    assert packs
    assert not left & {pending.table, pending.bundles.directory.key, *packs}
    assert await missing(plane) == set()


@pytest.mark.parametrize("entity", ["acct-09-unmistakable", "acct-00"])
async def test_an_erasure_takes_what_waits(world: World, entity: str) -> None:
    """Whether readers have bundles of the entity or only what waits holds it. Seen to fail (packs and table still hold
    it) when the erasure kept `pending`, and when it left tables alone."""
    plane = await built(world)
    await change(world, plane, *ENTITIES[:3], entity)
    assert DAY in (await head(plane)).pending[SPEC_NAME]
    receipt = await erase_entity(plane.engine, TENANT, entity, build_day=build_day)
    assert not any((await head(plane)).pending.values())
    assert await verify_erasure(plane.engine, TENANT, entity, receipt) == []
    await plane.build(TENANT, [DAY])
    assert await verify_erasure(plane.engine, TENANT, entity, receipt) == []


async def test_an_entity_that_an_erasure_hides_is_no_change(world: World) -> None:
    """Between the tombstone and the end of the erasure, readers have it no more already."""
    plane = await built(world, change_max=0.0)
    await begin_erasure(plane.engine, TENANT, "acct-00", erasure="e" * 32)
    await build_day(plane.engine, TENANT, DAY)
    build = await plane.materialize(TENANT, SPEC_NAME, DAY)
    assert build.replacement is not None
    assert (build.pending, build.replacement.changes.removed) == (False, 0)


async def test_retired_days_wait_for_nothing(world: World) -> None:
    plane = await built(world)
    await world.write(plane, puts([event(50, day=NEXT)]))
    await plane.build(TENANT, [NEXT])
    await change(world, plane, *ENTITIES[:3])
    await retire_days(plane.engine, TENANT, NEXT, dry_run=False)
    assert not any((await head(plane)).pending.values())


# --- pure ---------------------------------------------------------------------------------------

D = "2026-03-04"


def bundle_day(name: str, **more: Any) -> BundleDay:
    fields = {"spec_fingerprint": "f", "sources": "s", "entities": 1, "erasures": 2, "built_us": 9, **more}
    return BundleDay(directory=pack(name), **fields)


def waiting_manifest() -> tuple[Manifest, PendingBundles]:
    manifest = full_manifest().model_copy(update={"bundles": {"a_v0": {D: bundle_day("old")}}})
    pending = PendingBundles(
        bundles=bundle_day("new"),
        replaces=pack("old").key,
        changes=BundleChanges(changed=1),
        table="tenants/acme/staging/2026/03/04/bundles/a_v0/t.json.zst",
    )
    return held_back(manifest, "a_v0", D, pending), pending


def test_a_manifest_with_waiting_bundles_decodes_to_itself_and_names_them() -> None:
    manifest, pending = waiting_manifest()
    assert decode(encode(manifest)) == manifest
    assert {pending.table, pending.bundles.directory.key} <= set(manifest.keys())
    assert list(manifest.redact().keys()) == []


def test_an_approval_swaps_what_waits_in() -> None:
    manifest, pending = waiting_manifest()
    after = approved(manifest, "a_v0", D, pending, fingerprint="f", sources="s")
    assert after.bundles["a_v0"][D] == pending.bundles
    assert after.pending == {"a_v0": {}}
    assert waits(manifest, "a_v0", D, "s")
    assert not waits(after, "a_v0", D, "s")


MOVED: Mapping[str, Callable[[Manifest, PendingBundles], Manifest]] = {
    "replaced": lambda m, p: committed(m, "a_v0", D, bundle_day("other")),
    "built again": lambda m, p: held_back(m, "a_v0", D, p.model_copy(update={"table": "another"})),
    "rejected": lambda m, p: dropped(m, "a_v0", [D]),
    "erasure": lambda m, p: m.model_copy(update={"erasures": m.erasures + 1}),
    "bundles gone": lambda m, p: m.model_copy(update={"bundles": {}}),
    "bundles replaced": lambda m, p: m.model_copy(update={"bundles": {"a_v0": {D: bundle_day("other")}}}),
}


@pytest.mark.parametrize("moved", MOVED)
def test_nothing_is_swapped_in_that_was_not_approved_as_it_is(moved: str) -> None:
    """Each is refused by a guard of its own: seen to fail with each removed in turn."""
    manifest, pending = waiting_manifest()
    after = MOVED[moved](manifest, pending)
    with pytest.raises(Conflict, match="build_stale"):
        approved(after, "a_v0", D, pending, fingerprint="f", sources="s")
    if moved != "built again":
        assert not waits(after, "a_v0", D, "s")


@pytest.mark.parametrize(("fingerprint", "sources"), [("g", "s"), ("f", "t")])
def test_another_spec_or_other_sources_are_refused(fingerprint: str, sources: str) -> None:
    manifest, pending = waiting_manifest()
    with pytest.raises(Conflict, match="build_stale"):
        approved(manifest, "a_v0", D, pending, fingerprint=fingerprint, sources=sources)


def test_what_waits_was_compared_with_what_readers_have() -> None:
    manifest, pending = waiting_manifest()
    other = committed(manifest, "a_v0", D, bundle_day("other"))
    with pytest.raises(Conflict, match="build_stale"):
        held_back(other, "a_v0", D, pending)


def test_nothing_to_drop_is_the_manifest_itself() -> None:
    manifest, _ = waiting_manifest()
    assert dropped(manifest, "a_v0", ["2026-03-05"]) is manifest
    assert dropped(manifest, "b_v0", [D]) is manifest


# --- budgets ------------------------------------------------------------------------------------


async def test_a_bundle_that_renders_over_its_budget_ends_the_build(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It claims to keep it. Seen to fail (committed) when the claim was believed."""
    plane = await built(world)
    before = await bodies(world)
    await world.write(plane, puts([event(60, entity="acct-02")]))
    await build_day(plane.engine, TENANT, DAY)

    def padded(*args: Any) -> Bundle | None:
        bundle = materialize(*args)
        if bundle is None or bundle.entity != "acct-02":
            return bundle
        return replace(bundle, body=bundle.body.replace(b"beacon", b"beacon " * 200, 1))

    monkeypatch.setattr(context_plane.materialize, "materialize", padded)
    with pytest.raises(Conflict, match="budget_exceeded") as raised:
        await plane.materialize(TENANT, SPEC_NAME, DAY)
    assert "acct-02" not in str(raised.value)
    assert await bodies(world) == before
