"""Re-embedding: every built day of a tenant gets vectors of the configured embedder, in one commit."""

# No postponed annotations here: Dagster reads those of its functions' parameters as objects.
from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from assets.operations.operate import AS_TOLD, Tenants, Told, operate
from context_plane.plane import Plane
from context_plane.reembed import reembed
from resources.plane import OpenPlane

COUNTS = ("days", "rows", "embedded", "reused_days", "months_opened", "bytes", "of_this_model")
ADVICE = (
    "A tenant that failed keeps its old model whole, and what was embedded is staged. Mend the cause, then run the job "
    "again within a day: it goes on where it stopped."
)


class ReembedConfig(Tenants):
    """A dry run by default: counts what would be embedded. The model is the embedder's of this deployment."""

    dry_run: bool = Field(default=True, description="only count; false: embed and switch")


async def reembed_tenant(plane: Plane, tenant: str, *, dry_run: bool) -> Told:
    done = await reembed(plane.engine, tenant, dry_run=dry_run)
    if not done.changed:
        return Told({"of_this_model": 1}, note="of this model" if done.before else "nothing is built")
    plane.snapshots.forget(tenant)
    counts = {
        "days": done.days,
        "rows": done.rows,
        "embedded": done.embedded,
        "reused_days": done.reused,
        "months_opened": done.months_opened,
        "bytes": done.bytes,
    }
    return Told(counts, note=f"{done.before} to {done.after}")


@dg.op(name="reembed", out=dg.Out(dg.Nothing), description="Embeds every day anew, then switches the tenant's model.")
def _reembed(
    context: dg.OpExecutionContext, config: ReembedConfig, plane: dg.ResourceParam[OpenPlane]
) -> Iterator[dg.Output[None]]:
    async def work(opened: Plane, tenant: str) -> Told:
        return await reembed_tenant(opened, tenant, dry_run=config.dry_run)

    told = {"dry_run": config.dry_run, "model": plane.plane.engine.embedder.model}
    yield from operate(context, plane, config.tenants, work, counts=COUNTS, advice=ADVICE, more=told)


@dg.job(
    name="reembed_tenants",
    config=dg.RunConfig(ops={"reembed": ReembedConfig()}),
    tags=AS_TOLD,
    description=(
        "Moves tenants to the model of this deployment's embedder: new shards for every day, visible in one commit. A "
        "dry run by default. Services with the old model refuse vector searches of the tenant from then on."
    ),
)
def reembed_tenants() -> None:
    _reembed()
