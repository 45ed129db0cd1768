"""Materialize: the bundles of one spec and day, for every entity with events in the look-back.

Read one manifest, read the look-back's blocks run by run, compute purely, put packs that changed, commit. Made
bundles wait in a scratch file until their packs are written, so memory does not grow with the entities. A bundle
day names a fingerprint of the sources it was made from; when these move, readers say `stale` until it is
made again. The commit refuses a bundle day whose sources moved while it was made. What came out as the manifest names
it, and is stored whole, is not written again; where that is all of it, nothing is committed.

Bundles over their spec's budget, counted again over the text that readers get, end the build. Bundles that replace
others of the same spec are compared with them (`bundle_changes.py`); where too many differ they wait (`pending.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from context_plane.approvals import is_approved
from context_plane.bundle import tokens
from context_plane.bundle.compiled import CompiledSpec, compile_spec
from context_plane.bundle.history import History, Part
from context_plane.bundle.materialize import Bundle, materialize
from context_plane.bundle.pack import BundlePack, bucket_count, encode_packs
from context_plane.bundle.spec import Spec, query_texts
from context_plane.bundle.spool import Place, Spool
from context_plane.bundle_changes import Replacement, compare
from context_plane.catalog import guards
from context_plane.catalog.bundles import Bucket, BundleEntry, encode_directory
from context_plane.catalog.erasures import Erasures
from context_plane.catalog.head import commit, load_head
from context_plane.catalog.manifest import BundleDay, Manifest, PendingBundles, pack_ref
from context_plane.catalog.models import check_model
from context_plane.catalog.named import read_buckets
from context_plane.engine import Engine
from context_plane.errors import Conflict, Invalid
from context_plane.index.analyzer import ANALYZER
from context_plane.index.scratch import scratch_folder
from context_plane.layout.keys import BundleKey, PartKey, built_id
from context_plane.lookback import Look, Run, look, runs
from context_plane.model import add_days, canonical_json, day_end_us, day_start_us, days_between, sha256_hex
from context_plane.pending import committed, dropped, held_back
from context_plane.ranges import PROGRAM, RangeDone, cut, load_part, save_part
from context_plane.recall.periods import Period, live_mask, periods_of
from context_plane.retrieval.evidence import Evidence
from context_plane.retrieval.reader import Reader
from context_plane.reuse import is_whole, same_object

REBUILDS_MAX: Final = 5
PACKS_NAMED_MAX: Final = 16
"""Buckets whose packs the manifest names, for each spec and day: a kilobyte of a manifest that is always read."""
PACK_NAMED_BYTES_MAX: Final = 1024 * 1024
"""A longer pack is not read whole for one bundle: it would take as long as the round trip that it saves."""
CHANGE_MAX: Final = 1.0
"""Of the bundles that readers have: with all of them, nothing waits for an approval."""
PARALLEL_PUTS: Final = 32
"""Packs encoded and written together: some 30 MiB of them."""


@dataclass(frozen=True, slots=True)
class BundleBuild:
    """What one materialization did. `objects`, `bytes`: written packs and directory; `reused`: those named again.
    `replacement`: what differs from the bundles that readers had, None of a first build; `pending`: they have them
    still."""

    entities: int
    tokens: int
    objects: int
    bytes: int
    reused: int
    digest: str
    replacement: Replacement | None = None
    pending: bool = False


async def compiled(engine: Engine, spec: Spec) -> CompiledSpec:
    """The spec with its filters parsed and its evidence queries embedded; without their vectors where no text is."""
    try:
        vectors = {text: await engine.embedder.embed_query(text) for text in query_texts(spec)}
    except Invalid as error:
        if error.code != "vector_missing":
            raise
        vectors = {}
    return compile_spec(spec, Evidence(), model=engine.embedder.model, analyzer=ANALYZER, vectors=vectors)


def sources_of(manifest: Manifest, spec: Spec, day: str) -> str:
    """Fingerprint of every event that the bundles of `day` may look at. Pure."""
    first = add_days(day, 1 - spec.lookback_days)
    built = {d for d in manifest.days if first <= d <= day}
    built |= {d for month in manifest.months.values() for d in month.covered if first <= d <= day}
    return sha256_hex(canonical_json([[d, manifest.content(d)] for d in sorted(built)]))[:32]


async def materialize_day(
    engine: Engine,
    reader: Reader,
    tenant: str,
    spec: CompiledSpec,
    day: str,
    *,
    ranges: int = 1,
    change_max: float = CHANGE_MAX,
) -> BundleBuild:
    """Build and commit the bundles of a day, starting over when its sources moved. `ranges`: how many the day was cut
    into; what is staged of them is taken (`materialize_range`), the rest is made here. Where more than `change_max` of
    the bundles that readers have would be others, and no approval is in force, the new ones wait.

    Raises `Conflict(budget_exceeded)`.
    """
    for attempt in range(REBUILDS_MAX):
        manifest = await load_head(engine.store, tenant)
        try:
            built = await _materialize(engine, reader, manifest, spec, day, ranges, change_max)
        except Conflict as error:
            if error.code != "build_stale" or attempt == REBUILDS_MAX - 1:
                raise
            continue
        approved = built.pending and await is_approved(engine, tenant, spec.spec.name, day)
        if not approved or attempt == REBUILDS_MAX - 1:
            return built  # else somebody approved while it was made, and found nothing that waits
    raise AssertionError("the last attempt returns or raises")


async def _materialize(
    engine: Engine,
    reader: Reader,
    manifest: Manifest,
    spec: CompiledSpec,
    day: str,
    ranges: int,
    change_max: float,
) -> BundleBuild:
    started_us = engine.now_us()
    check_model(manifest, engine.embedder)
    name = spec.spec.name
    held = manifest.bundles.get(name, {}).get(day)
    stored = None if held is None else await read_buckets(engine.store, held)
    before = stored if stored and held and held.erasures == manifest.erasures else []
    with scratch_folder() as folder, Spool(folder / "bundles", day) as bundles:
        await _make_bundles(engine, reader, manifest, spec, day, bundles, ranges)
        buckets, written, packs = await _put_packs(engine, manifest.tenant, name, day, bundles, before)
        replacement = None if stored is None else await compare(engine, manifest, spec, day, bundles, stored)
    encoded = encode_directory(buckets)
    directory = await same_object(engine.store, held.directory if before and held else None, encoded.digest)
    if directory is None:
        key = str(BundleKey(manifest.tenant, name, day, built_id(encoded.digest, engine.nonce())))
        await engine.store.put_new(key, encoded.stored)
        written.append(len(encoded.stored))
        directory = pack_ref(key, encoded)
    entry = BundleDay(
        directory=directory,
        packs=_named(buckets),
        spec_fingerprint=spec.fingerprint,
        sources=sources_of(manifest, spec.spec, day),
        entities=len(bundles),
        erasures=manifest.erasures,
        built_us=engine.now_us(),
    )
    pending = await _to_approve(engine, manifest.tenant, name, day, entry, replacement, change_max)

    def mutate(head: Manifest) -> Manifest:
        guards.young_build(engine.now_us(), started_us)
        guards.same_erasures(head, entry.erasures)
        if sources_of(head, spec.spec, day) != entry.sources:
            raise Conflict("build_stale", "a day of the look-back was published meanwhile; build again", day=day)
        there = head.bundles.get(name, {}).get(day)
        if there is not None and there == entry.model_copy(update={"built_us": there.built_us}):
            return dropped(head, name, [day])
        return committed(head, name, day, entry) if pending is None else held_back(head, name, day, pending)

    await commit(engine, manifest.tenant, mutate, known=manifest)
    return BundleBuild(
        entities=len(bundles),
        tokens=bundles.tokens,
        objects=len(written),
        bytes=sum(written),
        reused=packs + 1 - len(written),
        digest=sha256_hex(canonical_json(bundles.digests)),
        replacement=replacement,
        pending=pending is not None,
    )


async def _to_approve(
    engine: Engine,
    tenant: str,
    spec: str,
    day: str,
    bundles: BundleDay,
    replacement: Replacement | None,
    change_max: float,
) -> PendingBundles | None:
    """The bundles as they wait, where they change too much for a build alone to decide."""
    if replacement is None or replacement.changes.share <= change_max or await is_approved(engine, tenant, spec, day):
        return None
    return PendingBundles(
        bundles=bundles, replaces=replacement.replaces, changes=replacement.changes, table=replacement.table
    )


async def rebuilt_digests(reader: Reader, manifest: Manifest, spec: CompiledSpec, day: str) -> list[str]:
    """Content digests of the day's packs by bucket, "" for an empty one, made of the sources again. Writes nothing."""
    with scratch_folder() as folder, Spool(folder / "bundles", day) as bundles:
        seen = await look(reader, _periods(manifest, spec, day))
        await _make_range(reader, manifest, spec, day, seen, (0, len(seen.names)), bundles.add)
        count = bucket_count(len(bundles))
        digests = [""] * count
        for places in await asyncio.to_thread(bundles.places, count):
            for one in await asyncio.to_thread(_packs, bundles, places, count):
                digests[one.bucket] = one.pack.digest
        return digests


async def materialize_range(
    engine: Engine, reader: Reader, tenant: str, spec: CompiledSpec, day: str, number: int, count: int
) -> RangeDone:
    """Make the bundles of range `number` of `count` and stage them. Nothing where it was done before, or the day has
    fewer ranges."""
    manifest = await load_head(engine.store, tenant)
    check_model(manifest, engine.embedder)
    seen = await look(reader, _periods(manifest, spec, day))
    spans = cut(seen.sizes().tolist(), count)
    if number >= len(spans):
        return RangeDone()
    key = _part_key(manifest, spec, day, seen, spans[number])
    if await load_part(engine.store, key) is not None:
        return RangeDone()
    made: list[Bundle] = []
    await _make_range(reader, manifest, spec, day, seen, spans[number], made.append)
    size = await save_part(engine.store, key, await asyncio.to_thread(_encoded, made))
    return RangeDone(made=len(made), objects=1, bytes=size)


async def _make_bundles(
    engine: Engine, reader: Reader, manifest: Manifest, spec: CompiledSpec, day: str, bundles: Spool, ranges: int
) -> None:
    """Every entity's bundle, ascending by entity."""
    seen = await look(reader, _periods(manifest, spec, day))
    for span in cut(seen.sizes().tolist(), ranges):
        staged = None
        if ranges > 1:
            staged = await load_part(engine.store, _part_key(manifest, spec, day, seen, span))
        if staged is None:
            await _make_range(reader, manifest, spec, day, seen, span, bundles.add)
        else:
            await asyncio.to_thread(_add, staged, day, bundles)


async def _make_range(
    reader: Reader,
    manifest: Manifest,
    spec: CompiledSpec,
    day: str,
    seen: Look,
    span: tuple[int, int],
    add: Callable[[Bundle], None],
) -> None:
    erasures = Erasures.of(manifest)
    async for run in runs(reader, seen, begin=span[0], end=span[1]):
        await asyncio.to_thread(_compute, run, erasures, spec, day, add)


def _periods(manifest: Manifest, spec: CompiledSpec, day: str) -> list[Period]:
    """Of the look-back."""
    first_us = day_start_us(add_days(day, 1 - spec.spec.lookback_days))
    return periods_of(manifest, first_us, day_end_us(day))


def _part_key(manifest: Manifest, spec: CompiledSpec, day: str, seen: Look, span: tuple[int, int]) -> str:
    """Where the bundles of a range are staged: they follow from the program, the spec, the sources, and which entities
    they are."""
    first, stop = span
    made_of = [PROGRAM, spec.fingerprint, sources_of(manifest, spec.spec, day), manifest.erasures]
    whom = [seen.names[first], seen.names[stop - 1], stop - first]
    artifact = f"bundles-{spec.spec.name}"
    return str(PartKey(manifest.tenant, day, artifact, sha256_hex(canonical_json([made_of, whom]))[:32]))


def _encoded(bundles: Sequence[Bundle]) -> bytes:
    return orjson.dumps([[each.entity, each.digest, each.tokens, each.body.decode()] for each in bundles])


def _add(staged: bytes, day: str, bundles: Spool) -> None:
    for entity, digest, count, body in orjson.loads(staged):
        bundles.add(Bundle(entity, day, body.encode(), digest, count))


def _compute(run: Run, erasures: Erasures, spec: CompiledSpec, day: str, add: Callable[[Bundle], None]) -> None:
    evidence = Evidence()
    for entity, held in run.blocks():
        parts = [Part(columns.rows, live_mask(columns, period, erasures, {})) for period, columns in held]
        bundle = materialize(spec, entity, day, History(tuple(parts)), evidence)
        if bundle is not None:
            check_budget(bundle, spec.spec.budget_tokens)
            add(bundle)


def check_budget(bundle: Bundle, budget_tokens: int) -> None:
    """The text that readers get keeps the budget, whatever the bundle says of itself. Pure.

    Raises `Conflict(budget_exceeded)`.
    """
    found = max(bundle.tokens, tokens.count(bundle.text))
    if found > budget_tokens:
        detail = "a bundle holds more tokens than its spec allows; mend the materialization, nothing was committed"
        raise Conflict("budget_exceeded", detail, tokens=found, budget_tokens=budget_tokens)


async def _put_packs(
    engine: Engine, tenant: str, spec: str, day: str, bundles: Spool, before: Sequence[Bucket]
) -> tuple[list[Bucket], list[int], int]:
    """The day's buckets, by number, the sizes of the packs that had to be written, and how many packs there are."""
    count = bucket_count(len(bundles))
    known = {bucket.digest: bucket.key for bucket in before if bucket.key}
    buckets = [Bucket("", "", ())] * count
    written: list[int] = []
    packs = 0

    async def put(one: BundlePack) -> None:
        encoded = one.pack
        key = known.get(encoded.digest)
        if key is None or not await is_whole(engine.store, key, sha256_hex(encoded.stored)):
            key = str(BundleKey(tenant, spec, day, built_id(encoded.digest, engine.nonce())))
            await engine.store.put_new(key, encoded.stored)
            written.append(len(encoded.stored))
        entries = tuple(
            BundleEntry(entry.key, entry.offset, entry.length, str(entry.meta[0]), int(entry.meta[1]))
            for entry in encoded.entries
        )
        buckets[one.bucket] = Bucket(key, encoded.digest, entries)

    places = await asyncio.to_thread(bundles.places, count)
    for start in range(0, len(places), PARALLEL_PUTS):
        some = [place for each in places[start : start + PARALLEL_PUTS] for place in each]
        made = await asyncio.to_thread(_packs, bundles, some, count)
        await asyncio.gather(*(put(one) for one in made))
        packs += len(made)
    return buckets, written, packs


def _named(buckets: Sequence[Bucket]) -> tuple[str, ...]:
    """Names of the buckets' packs, where they are few and short enough to be read beside the directory; else none."""
    if len(buckets) > PACKS_NAMED_MAX or any(bucket.bytes > PACK_NAMED_BYTES_MAX for bucket in buckets):
        return ()
    return tuple(bucket.key.rpartition("/")[2] for bucket in buckets)


def _packs(bundles: Spool, places: Sequence[Place], count: int) -> list[BundlePack]:
    return encode_packs(bundles.read(places), count)


def days_to_rebuild(manifest: Manifest, spec: Spec, changed: Iterable[str], rebuild_days: int) -> list[str]:
    """Days whose bundles a change of some days makes stale, the newest `rebuild_days` of the built ones. Pure."""
    built = sorted(manifest.days)
    if not built:
        return []
    window = set(days_between(add_days(built[-1], 1 - rebuild_days), built[-1]))
    affected = {add_days(day, n) for day in changed for n in range(spec.lookback_days)}
    return sorted(window & affected & (set(manifest.bundles.get(spec.name, {})) | set(changed)))
