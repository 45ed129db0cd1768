"""The reads: search, context, timeline, entities, snapshot, export. Straight from the store; `--json` as the API."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import orjson
import typer

from commands import show
from commands.options import AsJson, Since, Snapshot, Spec, Store, Tenant, Until, opened, run, tenant_of

if TYPE_CHECKING:
    from context_plane.recall.values import EntitiesAnswer, FoundEvent, SearchAnswer, SnapshotInfo

DEFAULT_SPEC = "customer_context_v0"
Mode: TypeAlias = Literal["hybrid", "text", "vector"]
Format: TypeAlias = Literal["text", "json"]
Limit = Annotated[int, typer.Option("--limit", min=1, max=1000, metavar="N", help="at most so many")]
Cursor = Annotated[str | None, typer.Option("--cursor", metavar="CURSOR", help="go on where the last page ended")]


def search(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="what to look for")],
    entity: Annotated[list[str] | None, typer.Option("--entity", metavar="ID", help="only these; repeat it")] = None,
    where: Annotated[
        str | None, typer.Option("--where", metavar="JSON", help='such as {"eq": ["source", "zendesk"]}')
    ] = None,
    mode: Annotated[Mode, typer.Option("--mode", help="hybrid, words alone, or meaning alone")] = "hybrid",
    since: Since = None,
    until: Until = None,
    limit: Limit = 10,
    explain: Annotated[bool, typer.Option("--explain", help="ranks, scores, the plan, and what the read cost")] = False,
    snapshot: Snapshot = None,
    tenant: Tenant = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Search events; each hit cites its source. Filters apply before ranking."""
    body: dict[str, Any] = {"text": text, "mode": mode, "limit": limit, "explain": explain, "snapshot": snapshot}
    body |= {"entities": entity or None, "where": None if where is None else _json(where, "--where")}
    body |= {"since": _start(since), "until": _end(until), "deadline_ms": 60_000}

    async def work() -> None:
        from context_plane.tenants import TenantSettings, load_tenant
        from serving import answers, wire

        async with opened(store) as plane:
            name = await tenant_of(plane, tenant)
            record = await load_tenant(plane.engine.store, name)
            weights = (record.settings if record else TenantSettings()).weights
            asked = wire.read(wire.SearchBody, orjson.dumps(body))
            request = asked.to_request(dim=plane.engine.embedder.dim, weights=weights)
            answer = await plane.search(name, request)
            if as_json:
                show.json(answers.search_answer(answer, request.include))
            else:
                _print_hits(answer, explain)

    run(work())


def context(
    entity: Annotated[str, typer.Argument(metavar="ENTITY", help="whose")],
    spec: Spec = DEFAULT_SPEC,
    as_of: Annotated[str | None, typer.Option("--as-of", metavar="DAY", help="default: the newest built")] = None,
    form: Annotated[Format, typer.Option("--format", help="what a prompt takes, or canonical JSON")] = "text",
    query: Annotated[
        str | None, typer.Option("--query", metavar="TEXT", help="a bundle for this question, made now")
    ] = None,
    budget: Annotated[
        int | None, typer.Option("--budget", metavar="TOKENS", help="with --query: at most so many")
    ] = None,
    snapshot: Snapshot = None,
    tenant: Tenant = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """The context of one entity, with its sources.

    --json is --format json."""

    async def work() -> None:
        from context_plane.bundle.render import render_text
        from context_plane.errors import Invalid
        from context_plane.recall.values import OnDemandRequest

        if query is None and budget is not None:
            raise Invalid("query_invalid", "--budget needs --query: built bundles have the budget of their spec")
        async with opened(store) as plane:
            name = await tenant_of(plane, tenant)
            if query is None:
                bundle = await plane.bundle(name, entity, spec=spec, as_of=as_of, snapshot=snapshot)
            else:
                asked = OnDemandRequest(
                    entity, spec, text=query, until_us=_end_us(as_of), snapshot=snapshot, budget_tokens=budget
                )
                bundle = await plane.context_on_demand(name, asked)
            if as_json or form == "json":
                print(bundle.json_bytes.decode())
                return
            print(render_text(bundle.json_bytes, sources=True))
            if bundle.freshness != "fresh":
                show.console(stderr=True).print(f"{bundle.freshness}: newer events wait; context-plane build")

    run(work())


def timeline(
    entity: Annotated[str, typer.Argument(metavar="ENTITY", help="whose")],
    since: Since = None,
    until: Until = None,
    source: Annotated[list[str] | None, typer.Option("--source", metavar="NAME", help="only these; repeat it")] = None,
    kind: Annotated[list[str] | None, typer.Option("--kind", metavar="NAME", help="only these; repeat it")] = None,
    limit: Limit = 20,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="instead of the newest")] = False,
    cursor: Cursor = None,
    tenant: Tenant = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Events of one entity, newest first, each with its citation."""

    async def work() -> None:
        from rich.text import Text

        from context_plane.recall.values import TimelineRequest
        from serving import answers, cursors

        async with opened(store) as plane:
            name = await tenant_of(plane, tenant)
            listing = cursors.of_timeline(name, entity, "asc" if oldest_first else "desc")
            position = None
            if cursor is not None:
                ts_us, event_id = cursors.read(listing, cursor, int, str)
                position = (ts_us, event_id)
            request = TimelineRequest(
                entity=entity,
                since_us=_start_us(since),
                until_us=_end_us(until),
                sources=frozenset(source or ()) or None,
                kinds=frozenset(kind or ()) or None,
                limit=limit,
                cursor=position,
                descending=not oldest_first,
            )
            answer = await plane.timeline(name, request)
            following = None if answer.next_cursor is None else cursors.write(listing, list(answer.next_cursor))
            if as_json:
                show.json(answers.timeline(answer, following))
                return
            out = show.console()
            for event in answer.events:
                out.print(Text.assemble((_moment(event.ts_us), "bold"), f"  {event.kind}  {event.id}"))
                out.print(Text(f"    {_what(event)}"))
                out.print(Text(f"    {_place(event)}", style="dim"), soft_wrap=True)
            if following is not None:
                out.print(f"there is more: raise --limit, or go on with --cursor {following}", soft_wrap=True)

    run(work())


def entities(
    prefix: Annotated[str, typer.Option("--prefix", metavar="TEXT", help="only ids that start so")] = "",
    limit: Limit = 100,
    cursor: Cursor = None,
    tenant: Tenant = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Entities in key order, with their number of events and the time of the last."""

    async def work() -> None:
        from serving import answers, cursors

        async with opened(store) as plane:
            name = await tenant_of(plane, tenant)
            listing = cursors.of_entities(name, prefix)
            after = None if cursor is None else cursors.read(listing, cursor, str)[0]
            answer = await plane.entities(name, prefix=prefix, limit=limit, cursor=after)
            following = None if answer.next_cursor is None else cursors.write(listing, [answer.next_cursor])
            if as_json:
                show.json(answers.entities(answer, following))
            else:
                _print_entities(answer, following)

    run(work())


def snapshot(tenant: Tenant = None, store: Store = None, as_json: AsJson = False) -> None:
    """What is built, what waits, and for how long."""

    async def work() -> None:
        from serving import answers

        async with opened(store) as plane:
            info = await plane.snapshot_info(await tenant_of(plane, tenant))
            if as_json:
                show.json(answers.snapshot(info))
            else:
                _print_snapshot(info)

    run(work())


def export(
    since: Since = None,
    until: Until = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="default: standard output")] = None,
    snapshot: Snapshot = None,
    tenant: Tenant = None,
    store: Store = None,
) -> None:
    """Every event as NDJSON, by day, entity and time: ready to be ingested again."""

    async def work() -> None:
        import sys

        from context_plane.wire import export_line

        async with opened(store) as plane:
            name = await tenant_of(plane, tenant)
            _, events = await plane.export(name, since_us=_start_us(since), until_us=_end_us(until), snapshot=snapshot)
            with sys.stdout.buffer if out is None else out.open("wb") as stream:
                async for event in events:
                    stream.write(export_line(event))

    run(work())


# --- leaves -------------------------------------------------------------------------------------


def _print_hits(answer: SearchAnswer, explain: bool) -> None:
    from rich.text import Text

    out = show.console()
    for number, hit in enumerate(answer.hits, start=1):
        head = Text.assemble(
            (f"{number:>2}  ", "dim"), (hit.entity, f"bold {show.ACCENT}"), f"  {_moment(hit.ts_us)}  {hit.kind}"
        )
        if explain:
            head.append(f"  score {hit.score:.4f}  text {_leg(hit.text_rank, hit.text_score)}", "dim")
            head.append(f"  vector {_leg(hit.vector_rank, hit.vector_score)}", "dim")
        out.print(head)
        if hit.text:
            out.print(Text(f"    {_short(hit.text, 240)}"))
        out.print(Text(f"    {_place(hit)}", style="dim"), soft_wrap=True)
    if not answer.hits:
        out.print("nothing found; loosen --where or the window, or look at `context-plane snapshot`")
    if answer.partial:
        out.print(f"partial: {', '.join(answer.missing_days)} did not answer in time")
    if explain:
        stats = answer.stats
        out.print(
            f"\nsnapshot {answer.snapshot}; {stats.rows_scored:,} rows scored in {show.count(stats.shards, 'shard')}, "
            f"{stats.tail_events:,} unbuilt; {stats.gets} GETs, {stats.bytes_read:,} bytes in {stats.round_trips} "
            f"round trips; {stats.ms.get('total', 0.0):,.0f} ms ({stats.cache})"
        )
        if answer.explain is not None:
            out.print(_plan(answer.explain))


def _plan(explain: Mapping[str, Any]) -> str:
    """What was to be read, and at about what cost."""
    forms = sorted(Counter(read["form"] for read in explain["reads"]).items())
    reads = ", ".join(f"{form} of {show.count(number, 'period')}" for form, number in forms) or "nothing"
    cost = explain["expected"]
    return (
        f"plan: {reads}; {explain['pruned']} pruned; ranking {explain['path']}; cold about {cost['gets']:,} GETs, "
        f"{cost['bytes']:,} bytes in {cost['round_trips']} round trips, without the tail"
    )


def _print_entities(answer: EntitiesAnswer, following: str | None) -> None:
    out = show.console()
    rows = [[info.entity, f"{info.events:,}", _moment(info.last_ts_us)] for info in answer.entities]
    out.print(show.table(["entity", ">events", "last"], rows))
    if following is not None:
        out.print(f"there are more: raise --limit, or go on with --cursor {following}", soft_wrap=True)


def _print_snapshot(info: SnapshotInfo) -> None:
    days = f"{len(info.days):,}, {info.days[0]} to {info.days[-1]}" if info.days else "none"
    waiting = f"{info.pending_events:,} in {show.count(info.pending_log_objects, 'log object')}"
    rows = [
        ["snapshot", info.snapshot],
        ["newest event", "none" if info.max_event_us is None else _moment(info.max_event_us)],
        ["built days", days],
        ["visible and unbuilt", waiting],
        ["days they touch", ", ".join(info.dirty_days) or "none"],
        ["index lag", f"{info.index_lag_s:,.0f} s"],
        ["model", info.model or "none yet"],
        *([f"bundles {name}", f"newest {day}"] for name, day in info.bundles.items()),
    ]
    show.console().print(show.table(["", ""], rows))


def _leg(rank: int | None, score: float | None) -> str:
    return "-" if rank is None or score is None else f"#{rank} {score:.3f}"


def _what(event: FoundEvent) -> str:
    if event.text:
        return _short(event.text, 240)
    return " ".join(f"{name}={value}" for name, value in (event.attrs or {}).items())[:240]


def _place(event: FoundEvent) -> str:
    return f"{event.citation.segment} line {event.citation.line}"


def _short(text: str, chars: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= chars else line[: chars - 1].rstrip() + "…"


def _moment(ts_us: int) -> str:
    from context_plane.model import format_time

    return format_time(ts_us - ts_us % 1_000_000).replace("T", " ").replace("Z", "")


def _json(text: str, option: str) -> Any:
    from context_plane.errors import Invalid

    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Invalid("malformed_json", f"{option} is not JSON: {error}") from error


def _start(day: str | None) -> str | None:
    from context_plane.model import day_start_us, format_edge

    return None if day is None else format_edge(day, day_start_us)


def _end(day: str | None) -> str | None:
    from context_plane.model import day_end_us, format_edge

    return None if day is None else format_edge(day, day_end_us)


def _start_us(day: str | None) -> int | None:
    from context_plane.model import day_start_us

    return None if day is None else day_start_us(day)


def _end_us(day: str | None) -> int | None:
    from context_plane.model import day_end_us

    return None if day is None else day_end_us(day)
