"""How every operation runs: each tenant in turn, failures named, the counts summed up for the UI.

One tenant's failure does not stop the others; the run fails last, with what to do. Names of metadata never change.
Error messages stay out of logs and metadata: they may quote keys, and keys hold entities. The code and the frames of
the traceback are kept.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import dagster as dg
from pydantic import Field

from assets.cost import Prices, requests_usd
from assets.plan import Failed
from assets.units import Gathered, gathered
from context_plane.errors import CODES, NotFound
from context_plane.plane import Plane
from context_plane.store.counting import Trace, trace
from context_plane.tenants import list_tenants
from resources.plane import OpenPlane

AS_TOLD: Final = {"dagster/retry_on_asset_or_op_failure": "false"}
"""A run that ended with what to do is not run again by Dagster: nobody has done it yet. One whose process died is."""
ROWS_MAX: Final = 50
"""Rows of the table in the UI: what failed first, then the largest; the sums cover all."""
REMARKS_MAX: Final = 20
"""Remarks spelled out in the error; the step's log has every one."""


@dataclass(frozen=True, slots=True)
class Told:
    """What one tenant came to. `remarks`: what is wrong and needs a person; they fail the run."""

    counts: Mapping[str, int]
    note: str = ""
    remarks: tuple[str, ...] = ()


Work: TypeAlias = Callable[[Plane, str], Awaitable[Told]]
"""(plane, tenant) -> what was done. Raises `PlaneError` for this tenant alone."""
Before: TypeAlias = Callable[[Plane], Awaitable[Gathered[Told]]]
"""(plane) -> what was done of whoever is no tenant any more."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    told: Mapping[str, Told]
    failed: tuple[Failed, ...]
    errors: tuple[str, ...]
    spent: Trace


class Tenants(dg.Config):
    """Which tenants an operation is about."""

    tenants: list[str] = Field(default=[], description="names of tenants; empty: all")


def operate(
    context: dg.OpExecutionContext,
    opened: OpenPlane,
    tenants: Sequence[str],
    work: Work,
    *,
    counts: Sequence[str],
    advice: str,
    more: Mapping[str, Any] | None = None,
    before: Before | None = None,
) -> Iterator[dg.Output[None]]:
    """Run `before`, then `work` on every tenant, and tell Dagster. `counts`: metadata names, in the table's order.
    `advice`: what to do when a tenant failed. `more`: further metadata, which stands first; of a `dry_run` the table
    says so."""
    step = context.op.name
    started = time.perf_counter()
    outcome = opened.run(_each(opened.plane, tenants, step, work, before))
    for error in outcome.errors:
        context.log.error(error)
    remarks = [f"{tenant}: {remark}" for tenant, told in outcome.told.items() for remark in told.remarks]
    for remark in remarks:
        context.log.warning(remark)
    told = _metadata(outcome, counts, more or {}, time.perf_counter() - started)
    yield dg.Output(None, metadata=told)
    if outcome.failed or remarks:
        raise dg.Failure(_failure(outcome.failed, remarks, advice), allow_retries=False)


async def _each(plane: Plane, named: Sequence[str], step: str, work: Work, before: Before | None) -> _Outcome:
    async def one(tenant: str) -> Told:
        if named and not await plane.tenant_exists(tenant):
            raise NotFound("tenant_not_found", "no such tenant in this store", tenant=tenant)
        return await work(plane, tenant)

    with trace() as spent:
        first: Gathered[Told] = await before(plane) if before is not None else Gathered({}, (), ())
        tenants = sorted(set(named)) or await list_tenants(plane.engine.store)
        found = await gathered(tenants, step, step, one)
    told = {**first.done, **found.done}
    return _Outcome(told, (*first.failed, *found.failed), (*first.errors, *found.errors), spent)


def _metadata(outcome: _Outcome, counts: Sequence[str], more: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """In the order of the run's page: what kind of run it was, the table, the sums, the cost. Pure."""
    spent = outcome.spent
    sums = {name: sum(told.counts.get(name, 0) for told in outcome.told.values()) for name in counts}
    return {
        **more,
        "summary": _table(outcome, counts, dry_run=bool(more.get("dry_run"))),
        **sums,
        "tenants": len(outcome.told),
        "failed": len(outcome.failed),
        "remarks": sum(len(told.remarks) for told in outcome.told.values()),
        "seconds": round(seconds, 3),
        "gets": spent.gets,
        "puts": spent.puts,
        "lists": spent.lists,
        "deletes": spent.deletes,
        "requests_usd": round(requests_usd(spent, Prices()), 9),
    }


def _table(outcome: _Outcome, counts: Sequence[str], *, dry_run: bool = False) -> dg.TableMetadataValue:
    """Failed tenants, those with remarks, then those with the greatest counts; how many more there are. Pure."""
    rows = [_record(item.tenant, item.code, counts, {}) for item in outcome.failed]
    ordered = sorted(
        outcome.told.items(), key=lambda item: (-len(item[1].remarks), [-item[1].counts.get(n, 0) for n in counts])
    )
    for tenant, told in ordered:
        done = "; ".join(part for part in ("dry run" if dry_run else "", told.note) if part) or "ok"
        state = f"{len(told.remarks)} to mend" if told.remarks else done
        rows.append(_record(tenant, state, counts, {name: told.counts.get(name, 0) for name in counts}))
    hidden = len(rows) - ROWS_MAX
    more = [_record(f"{hidden} more tenants", "in the sums", counts, {})] if hidden > 0 else []
    columns = [dg.TableColumn("tenant"), dg.TableColumn("state"), *(dg.TableColumn(name, "int") for name in counts)]
    return dg.MetadataValue.table([*rows[:ROWS_MAX], *more], schema=dg.TableSchema(columns=columns))


def _record(tenant: str, state: str, counts: Sequence[str], known: Mapping[str, int]) -> dg.TableRecord:
    return dg.TableRecord({"tenant": tenant, "state": state, **{name: known.get(name) for name in counts}})


def _failure(failed: Sequence[Failed], remarks: Sequence[str], advice: str) -> str:
    """Which tenants, what, and what to do; bounded. Pure."""
    parts = []
    if failed:
        named = ", ".join(f"{item.tenant} ({item.code})" for item in failed[:REMARKS_MAX])
        meaning = "; ".join(f"{code}: {CODES[code]}" for code in sorted({item.code for item in failed}))
        parts.append(f"{len(failed)} tenants failed, the others were processed: {named}. {meaning}.")
    if remarks:
        more = f"; and {len(remarks) - REMARKS_MAX} more" if len(remarks) > REMARKS_MAX else ""
        parts.append(f"to mend: {'; '.join(remarks[:REMARKS_MAX])}{more}.")
    return " ".join([*parts, advice])
