"""Retention: days older than a tenant's `retain_days` leave its manifest, and so do bundles of specs that no file
defines any more; a collection deletes them a day later."""

# No postponed annotations here: Dagster reads those of its functions' parameters as objects.
from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from assets.operations.operate import AS_TOLD, Tenants, Told, operate
from context_plane.plane import Plane
from context_plane.retention import first_kept_day, retire_days, retire_specs
from context_plane.tenants import load_tenant
from resources.plane import OpenPlane

COUNTS = ("days", "events", "bytes", "bundle_days", "months_opened", "kept_for_ever")
ADVICE = "A tenant's days leave together or not at all. Mend the cause, then run the job again."
SPEC_COUNTS = ("specs", "bundle_days")
SPEC_ADVICE = "Bundles of a tenant leave together or not at all. Mend the cause, then run the job again."


class RetainConfig(Tenants):
    """A dry run by default: counts what would leave. How long is a setting of each tenant, not of the run."""

    dry_run: bool = Field(default=True, description="only count; false: retire")


async def retire(plane: Plane, tenant: str, *, dry_run: bool) -> Told:
    """Apply the tenant's setting; a tenant without one keeps everything."""
    record = await load_tenant(plane.engine.store, tenant)
    days = record.settings.retain_days if record is not None else None
    if days is None:
        return Told({"kept_for_ever": 1}, note="keeps all")
    first = first_kept_day(plane.engine.now_us(), days)
    found = await retire_days(plane.engine, tenant, first, dry_run=dry_run)
    counts = {
        "days": found.days,
        "events": found.events,
        "bytes": found.bytes,
        "bundle_days": found.bundle_days,
        "months_opened": found.months_opened,
    }
    return Told(counts, note=f"keeps {first} and later")


@dg.op(name="retain", out=dg.Out(dg.Nothing), description="Takes days out of each manifest, all of a tenant at once.")
def _retain(
    context: dg.OpExecutionContext, config: RetainConfig, plane: dg.ResourceParam[OpenPlane]
) -> Iterator[dg.Output[None]]:
    async def work(opened: Plane, tenant: str) -> Told:
        return await retire(opened, tenant, dry_run=config.dry_run)

    told = {"dry_run": config.dry_run}
    yield from operate(context, plane, config.tenants, work, counts=COUNTS, advice=ADVICE, more=told)


@dg.job(
    name="retire_old_days",
    config=dg.RunConfig(ops={"retain": RetainConfig()}),
    tags=AS_TOLD,
    description=(
        "Days older than a tenant's setting `retain_days` leave its manifest, rolled months opened where they hold "
        "one. A dry run by default. What they held is deleted by a later collection."
    ),
)
def retire_old_days() -> None:
    _retain()


class RetireSpecsConfig(Tenants):
    """A dry run by default: counts and names what would leave. Which specs are defined is a matter of their files."""

    dry_run: bool = Field(default=True, description="only count; false: retire")


async def retire_undefined(plane: Plane, tenant: str, *, dry_run: bool) -> Told:
    found = await retire_specs(plane.engine, tenant, plane.specs.keys(), dry_run=dry_run)
    if not found:
        return Told({}, note="every spec has a file")
    plane.snapshots.forget(tenant)
    return Told({"specs": len(found), "bundle_days": sum(found.values())}, note=", ".join(found))


@dg.op(name="retire", out=dg.Out(dg.Nothing), description="Takes bundles of specs without a file out of each manifest.")
def _retire(
    context: dg.OpExecutionContext, config: RetireSpecsConfig, plane: dg.ResourceParam[OpenPlane]
) -> Iterator[dg.Output[None]]:
    async def work(opened: Plane, tenant: str) -> Told:
        return await retire_undefined(opened, tenant, dry_run=config.dry_run)

    told = {"dry_run": config.dry_run, "defined": ", ".join(sorted(plane.plane.specs))}
    yield from operate(context, plane, config.tenants, work, counts=SPEC_COUNTS, advice=SPEC_ADVICE, more=told)


@dg.job(
    name="retire_old_specs",
    config=dg.RunConfig(ops={"retire": RetireSpecsConfig()}),
    tags=AS_TOLD,
    description=(
        "Bundles of specs that no file of the specs folder defines any more leave every manifest. A dry run by "
        "default. A later collection deletes them; for a file that comes back, backfill its asset."
    ),
)
def retire_old_specs() -> None:
    _retire()
