"""`context-plane cost`: what a store holds, by tenant and kind of object, and what that comes to in dollars.

Counted: objects and bytes by listing; the objects written lately, each of them a PUT; and the requests of cold reads,
by making them. Not counted, because nothing keeps them: PUTs of objects that were collected since, and GETs of
services and builds, which `/metrics` and the Dagster UI tell.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from commands import show
from commands.options import AsJson, Store, Tenants, run, settings_of, uncached

if TYPE_CHECKING:
    from assets.cost import Prices
    from context_plane.plane import Plane
    from context_plane.retrieval.fuse import Mode
    from context_plane.settings import Settings
    from context_plane.store.base import ObjectInfo

DAY_US: Final = 86_400_000_000
THOUSAND: Final = 1000
"""A single read is too cheap to be told in dollars."""
QUESTION: Final = "what went wrong lately"
"""Of the search that is measured: the requests of a search do not depend on its words."""
OUTSIDE: Final = "other"
"""Kind of a key that the layout does not know."""


@dataclass(slots=True)
class Held:
    """Objects of one kind. `puts`: of those, written within the window."""

    objects: int = 0
    bytes: int = 0
    puts: int = 0

    def add(self, other: Held) -> None:
        self.objects += other.objects
        self.bytes += other.bytes
        self.puts += other.puts


@dataclass(frozen=True, slots=True)
class Read:
    """Requests of one kind of read on empty caches: the mean of those measured."""

    read: str
    measured: int
    gets: float
    lists: float
    bytes: float
    round_trips: float
    usd_1000: float


def cost(
    days: Annotated[int, typer.Option("--days", min=1, max=3650, metavar="N", help="count PUTs of this long")] = 30,
    reads: Annotated[
        int, typer.Option("--reads", min=0, max=1000, metavar="N", help="entities of each tenant to read cold; 0: none")
    ] = 1,
    tenants: Tenants = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Objects, bytes, PUTs and GETs by tenant and kind, and what they cost.

    Prices are those of S3 Standard unless CONTEXT_PLANE_PRICE_PUTS_1000, …GETS_1000 and …GB_MONTH say otherwise."""
    from assets.cost import Prices

    prices = Prices()

    async def work() -> dict[str, Any]:
        with uncached(settings_of(store)) as settings:
            return await _told(settings, tenants, days, reads, prices)

    told = run(work())
    if as_json:
        show.json(told)
    else:
        _print(told)


def kind_of(key: str) -> tuple[str, str]:
    """(tenant or "", kind) of an object's key. Pure."""
    from context_plane.errors import Corrupt
    from context_plane.layout import keys

    try:
        parsed = keys.parse(key)
    except Corrupt:
        return key.split("/")[1] if key.startswith("tenants/") else "", OUTSIDE
    match parsed:
        case keys.ShardKey():
            return parsed.tenant, f"{parsed.kind} shard"
        case keys.ShardFileKey(shard=shard):
            return shard.tenant, f"{shard.kind} shard"
        case keys.ManifestKey() | keys.LatestKey() | keys.ListKey():
            return parsed.tenant, "manifest"
        case keys.LogKey():
            return parsed.tenant, "log"
        case keys.SegmentKey():
            return parsed.tenant, "segment"
        case keys.BundleKey():
            return parsed.tenant, "bundle"
        case keys.StagingKey() | keys.PartKey() | keys.BundleDiffKey():
            return parsed.tenant, "staging"
        case keys.LandingKey():
            return parsed.tenant, "landing"
        case keys.ErasureKey():
            return parsed.tenant, "control"
        case keys.AuditKey() | keys.AuditedBatchesKey():
            return parsed.tenant or "", "audit"
        case keys.ControlKey(tenant=tenant):
            return tenant or "", "control"


def count(objects: Sequence[ObjectInfo], since_us: int, into: Mapping[tuple[str, str], Held]) -> None:
    """Add objects to what is held by (tenant, kind). `into` makes what it lacks. Pure but for that."""
    for info in objects:
        into[kind_of(info.key)].add(Held(1, info.size, int(info.modified_us >= since_us)))


# --- what is there ------------------------------------------------------------------------------


async def _told(
    settings: Settings, tenants: Sequence[str] | None, days: int, reads: int, prices: Prices
) -> dict[str, Any]:
    from context_plane import plane
    from context_plane.errors import NotFound
    from context_plane.layout.keys import tenant_prefix
    from context_plane.tenants import list_tenants

    async with plane.open(settings, probe_store=False) as opened:
        known = await list_tenants(opened.store)
        missing = sorted(set(tenants or ()) - set(known))
        if missing:
            raise NotFound(
                "tenant_not_found", f"no such tenant in this store; known: {', '.join(known)}", tenant=missing
            )
        names = sorted(set(tenants or known))
        prefixes = [tenant_prefix(name) for name in names] if tenants else ["tenants/", "control/"]
        since_us = opened.engine.now_us() - days * DAY_US
        with opened.store.trace() as spent:
            held = await _listed(opened, prefixes, since_us)
        measured = {name: await _reads(opened, name, reads, prices) if reads else [] for name in names}
    tenants_told = [_tenant(name, held, measured.get(name, []), prices) for name in sorted({*names, *_owners(held)})]
    total = Held()
    for each in held.values():
        total.add(each)
    return {
        "store": settings.store_url,
        "days": days,
        "prices": prices.model_dump(),
        "tenants": tenants_told,
        "total": _priced(total, prices),
        "lists": spent.lists,
    }


def _owners(held: Mapping[tuple[str, str], Held]) -> set[str]:
    return {tenant for tenant, _ in held}


async def _listed(opened: Plane, prefixes: Sequence[str], since_us: int) -> Mapping[tuple[str, str], Held]:
    held: defaultdict[tuple[str, str], Held] = defaultdict(Held)
    page: list[ObjectInfo] = []
    with show.progress() as bar:
        task = bar.add_task("listing objects", total=None)
        for prefix in prefixes:
            async for info in opened.store.list(prefix):
                page.append(info)
                if len(page) == THOUSAND:
                    count(page, since_us, held)
                    bar.advance(task, len(page))
                    page.clear()
        count(page, since_us, held)
    return held


async def _reads(opened: Plane, tenant: str, number: int, prices: Prices) -> list[Read]:
    """Cold reads of some entities: the newest bundle of each, and a search of its whole history."""
    from context_plane.recall.values import SearchRequest

    entities = [info.entity for info in (await opened.entities(tenant, limit=number)).entities]
    specs = (await opened.snapshot_info(tenant)).bundles
    words: Mode = "text" if opened.settings.embedder.kind == "given" else "hybrid"
    found = []
    if specs:
        spec = min(specs)
        bundles = await _measured("bundle", opened, entities, lambda one: opened.bundle(tenant, one, spec=spec), prices)
        found.append(bundles)

    async def search(entity: str) -> object:
        return await opened.search(tenant, SearchRequest(text=QUESTION, mode=words, entities=(entity,)))

    found.append(await _measured("search of an entity", opened, entities, search, prices))
    return [read for read in found if read is not None]


async def _measured(
    name: str, opened: Plane, entities: Sequence[str], read: Callable[[str], Awaitable[object]], prices: Prices
) -> Read | None:
    """None where no entity could be read so: a bundle that is not built."""
    from assets.cost import requests_usd
    from context_plane.errors import NotFound
    from context_plane.store.counting import Trace

    sums = Trace()
    trips = done = 0
    for entity in entities:
        await opened.empty_caches()
        try:
            with opened.store.trace() as spent:
                await read(entity)
        except NotFound:
            continue
        sums.include(spent)
        trips += spent.round_trips
        done += 1
    if not done:
        return None
    usd = requests_usd(sums, prices) / done * THOUSAND
    return Read(name, done, sums.gets / done, sums.lists / done, sums.bytes_read / done, trips / done, usd)


# --- what it costs ------------------------------------------------------------------------------


def _priced(held: Held, prices: Prices) -> dict[str, Any]:
    from assets.cost import requests_usd, storage_usd_month
    from context_plane.store.counting import Trace

    return {
        **asdict(held),
        "usd_kept_month": storage_usd_month(held.bytes, prices),
        "usd_puts": requests_usd(Trace(puts=held.puts), prices),
    }


def _tenant(name: str, held: Mapping[tuple[str, str], Held], reads: Sequence[Read], prices: Prices) -> dict[str, Any]:
    kinds = {kind: each for (tenant, kind), each in sorted(held.items()) if tenant == name}
    total = Held()
    for each in kinds.values():
        total.add(each)
    return {
        "tenant": name or None,
        **_priced(total, prices),
        "kinds": [{"kind": kind, **_priced(each, prices)} for kind, each in kinds.items()],
        "reads": [asdict(read) for read in reads],
    }


def _print(told: Mapping[str, Any]) -> None:
    out = show.console()
    rows: list[list[str]] = []
    for tenant in told["tenants"]:
        name = tenant["tenant"] or "(no tenant)"
        rows += [_row(name if first else "", each["kind"], each) for first, each in _marked(tenant["kinds"])]
        if len(tenant["kinds"]) > 1:
            rows.append(_row("", "all", tenant))
    if len(told["tenants"]) > 1:
        rows.append(_row("all", "", told["total"]))
    puts = f"PUTs, {told['days']} d"
    columns = ["tenant", "kind", ">objects", ">bytes", ">$ a month", f">{puts}", ">$"]
    out.print(show.table(columns, rows) if rows else "the store is empty")
    reads = [
        [
            tenant["tenant"],
            read["read"],
            f"{read['gets']:,.1f}",
            f"{read['lists']:,.1f}",
            show.size(round(read["bytes"])),
            f"{read['round_trips']:.1f}",
            show.dollars(read["usd_1000"]),
        ]
        for tenant in told["tenants"]
        for read in tenant["reads"]
    ]
    if reads:
        out.print()
        out.print(show.table(["tenant", "cold read", ">GETs", ">LISTs", ">bytes", ">rounds", ">$ a thousand"], reads))
    prices = told["prices"]
    out.print(
        f"\nat ${prices['puts_1000']:g} a thousand PUTs or LISTs, ${prices['gets_1000']:g} a thousand GETs, "
        f"${prices['gb_month']:g} a GB-month; this listing took {show.count(told['lists'], 'LIST')}. Not in it: PUTs "
        "of objects collected since, requests of services (/metrics) and builds (the Dagster UI), transfer, compute.",
        style="dim",
    )


def _marked(kinds: Sequence[Mapping[str, Any]]) -> list[tuple[bool, Mapping[str, Any]]]:
    return [(number == 0, each) for number, each in enumerate(kinds)]


def _row(tenant: str, kind: str, held: Mapping[str, Any]) -> list[str]:
    return [
        tenant,
        kind,
        f"{held['objects']:,}",
        show.size(held["bytes"]),
        show.dollars(held["usd_kept_month"]),
        f"{held['puts']:,}",
        show.dollars(held["usd_puts"]),
    ]
