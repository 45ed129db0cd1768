"""What a step tells Dagster: sums under stable metadata names, a bounded table of tenants, a data version.

Names never change, so that the UI draws them as series over partitions. Pure; ids of entities never enter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import dagster as dg

from assets import plots
from assets.cost import Prices, requests_usd, storage_usd_month
from assets.plan import Failed
from context_plane.model import canonical_json, sha256_hex
from context_plane.store.counting import Trace

TABLE_TENANTS_MAX: Final = 50
"""Rows of the table in the UI: the largest tenants; the sums cover all."""
SERIES_MAX: Final = 30
"""Partitions of a plot."""
STATES: Final = "ok: something was written; unchanged: made again, and nothing differs; kept: the run left it alone"
NAMED_MAX: Final = 20
"""Failures spelled out in a message; the table lists more."""


@dataclass(frozen=True, slots=True)
class Made:
    """What one tenant-day comes to in one step. `digest`: of the content. `bytes`: of all of it, as stored. `objects`:
    written. `reused`: objects that are named again."""

    digest: str
    rows: int = 0
    events: int | None = None
    """None where the step does not know; `entities` too."""
    entities: int | None = None
    bytes: int = 0
    objects: int = 0
    reused: int = 0
    seconds: float = 0.0
    extra: int = 0
    """A step's own count: vectors embedded, packs reused."""
    newest_us: int = 0
    """Time of the newest event in it; 0 where the step does not know."""
    waited_us: int | None = None
    """How long the oldest log batch of the day had waited when it was read; None where the step reads none."""
    aside: Any = None
    """What a step tells of the tenant beside counts: a verdict, or why it was left alone."""

    @property
    def unchanged(self) -> bool:
        """Nothing was written for it."""
        return self.objects == 0


def metadata(
    made: Mapping[str, Made],
    failed: Sequence[Failed],
    spent: Trace,
    seconds: float,
    *,
    kept: Mapping[str, Made] | None = None,
) -> dict[str, Any]:
    """Metadata of one materialization: of the whole partition, and beside it what the run wrote. `made`: of tenants
    that it worked on; `kept`: what the partition has of others. `seconds` is wall clock of the step."""
    kept = kept or {}
    values, prices = [*made.values(), *kept.values()], Prices()
    return {
        "dagster/row_count": sum(item.rows for item in values),
        "rows": sum(item.rows for item in values),
        **_known({"events": [item.events for item in values], "entities": [item.entities for item in values]}),
        "bytes": sum(item.bytes for item in values),
        "rows_rebuilt": sum(item.rows for item in values if not item.unchanged),
        "objects": sum(item.objects for item in values),
        "objects_reused": sum(item.reused for item in values),
        "seconds": round(seconds, 3),
        "tenants": len(values),
        "tenants_unchanged": sum(item.unchanged for item in values),
        "failed": len({item.tenant for item in failed}),
        "gets": spent.gets,
        "puts": spent.puts,
        "lists": spent.lists,
        "bytes_read": spent.bytes_read,
        "bytes_written": spent.bytes_written,
        "requests_usd": round(requests_usd(spent, prices), 9),
        "storage_usd_month": round(storage_usd_month(sum(item.bytes for item in values), prices), 9),
        "tenant_days": _table(made, kept, failed),
        **_freshness(values),
    }


def _known(counts: Mapping[str, Sequence[int | None]]) -> dict[str, int]:
    """Sums of what the step knows of any tenant."""
    told = {name: [value for value in values if value is not None] for name, values in counts.items()}
    return {name: sum(values) for name, values in told.items() if values}


def _freshness(values: Sequence[Made]) -> dict[str, Any]:
    """Of the steps that know it: the newest event, and the longest that a write had waited for this build."""
    newest_us = max((item.newest_us for item in values), default=0)
    waited_us = [item.waited_us for item in values if item.waited_us is not None]
    told: dict[str, Any] = {"oldest_unbuilt_s": round(max(waited_us) / 1e6, 3)} if waited_us else {}
    return {**told, "newest_event": dg.MetadataValue.timestamp(newest_us / 1e6)} if newest_us else told


def plot(whole: Mapping[str, Made], before: Mapping[str, float], partition: str) -> dict[str, dg.MetadataValue[Any]]:
    """Plots of a partition: rows by tenant, and rows of it and of the partitions `before`. Empty of no rows."""
    rows = {tenant: float(item.rows) for tenant, item in whole.items() if item.rows}
    series = sorted({**before, partition: sum(rows.values())}.items())[-SERIES_MAX:]
    drawn = {"rows_by_tenant": plots.bars(rows, unit="rows"), "rows_by_partition": plots.line(series, unit="rows")}
    return {name: dg.MetadataValue.md(text) for name, text in drawn.items() if text}


def data_version(digests: Mapping[str, str]) -> dg.DataVersion:
    """Tenant -> content digest. The same contents have the same version, whatever part of them a run rebuilt."""
    held = sorted((tenant, digest) for tenant, digest in digests.items() if digest)
    return dg.DataVersion(sha256_hex(canonical_json(held))[:32])


def name_failures(day: str, failed: Sequence[Failed]) -> str:
    """`acme 2026-03-04: corrupt_object in segments; …`, bounded."""
    named = [f"{item.tenant} {day}: {item}" for item in failed[:NAMED_MAX]]
    more = len(failed) - len(named)
    return "; ".join([*named, f"and {more} more"] if more > 0 else named)


def _table(made: Mapping[str, Made], kept: Mapping[str, Made], failed: Sequence[Failed]) -> dg.TableMetadataValue:
    largest = sorted({**kept, **made}.items(), key=lambda item: (-item[1].rows, item[0]))[:TABLE_TENANTS_MAX]
    rows = [_record(item.tenant, Made(""), str(item)) for item in failed[:TABLE_TENANTS_MAX]]
    for tenant, item in largest:
        state = "unchanged" if item.unchanged else "ok"
        rows.append(_record(tenant, item, state if tenant in made else "kept"))
    return dg.MetadataValue.table(rows, schema=_SCHEMA)


def _record(tenant: str, made: Made, state: str) -> dg.TableRecord:
    return dg.TableRecord(
        {
            "tenant": tenant,
            "state": state,
            "rows": made.rows,
            "events": made.events,
            "entities": made.entities,
            "bytes": made.bytes,
            "objects": made.objects,
            "seconds": round(made.seconds, 3),
            "version": made.digest[:12],
        }
    )


_SCHEMA: Final = dg.TableSchema(
    columns=[
        dg.TableColumn("tenant", "string"),
        dg.TableColumn("state", "string", description=STATES),
        dg.TableColumn("rows", "int"),
        dg.TableColumn("events", "int"),
        dg.TableColumn("entities", "int"),
        dg.TableColumn("bytes", "int", description="of all of it, as stored"),
        dg.TableColumn("objects", "int", description="written by the run"),
        dg.TableColumn("seconds", "float"),
        dg.TableColumn("version", "string", description="digest of the content, its first twelve digits"),
    ]
)
