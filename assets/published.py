"""The data commit: per tenant one manifest that names the day's new segments and shards, after the gate.

What the gate withholds is named and stays unpublished; every other tenant-day becomes visible; then the check
fails. Tenants that failed in an earlier step of the run are named here too, and fail this step last.
"""

# No postponed annotations here: Dagster reads those of its functions' parameters as objects.
import warnings
from typing import Final

import dagster as dg

from assets.days import ENTITY_SHARDS, FULLTEXT_SHARDS, SEGMENTS, VECTOR_SHARDS
from assets.gate import CHECK, Withheld, check_result, judge
from assets.partitions import DAILY, GROUP
from assets.plan import digests_of, load_plan, save_plan
from assets.report import Made
from assets.step import PUBLISHED, Result, daily_asset, each_tenant, failure, log_errors, result_of, run_of
from context_plane.model import canonical_json, sha256_hex
from context_plane.plane import Plane
from context_plane.publish import publish_staged
from resources.plane import OpenPlane
from resources.scope import BuildScope


async def publish(plane: Plane, tenant: str, day: str, withheld: list[Withheld]) -> Made:
    """Judge and commit one tenant-day; one that is withheld is appended and made nothing of."""
    verdict = await judge(plane, tenant, day)
    if verdict is not None:
        withheld.append(verdict)
        return Made("")
    manifest = await publish_staged(plane.engine, tenant, day)
    entry = manifest.days[day]
    digest = version_of(digests_of(entry))
    if entry.shards is None:
        return Made(digest)
    shards = entry.shards
    return Made(digest, rows=shards.rows, events=shards.events, entities=shards.entities, objects=1)


def version_of(digests: dict[str, str]) -> str:
    return sha256_hex(canonical_json(digests))[:32]


def _published(context: dg.AssetExecutionContext, plane: dg.ResourceParam[OpenPlane], scope: BuildScope) -> Result:
    day = context.partition_key
    plan = plane.run(load_plan(plane.plane, scope, run_of(context), day))
    withheld: list[Withheld] = []

    async def work(opened: Plane, tenant: str, of_day: str) -> Made:
        return await publish(opened, tenant, of_day, withheld)

    judged = plan.left()
    outcome = plane.run(each_tenant(plane.plane, judged, day, "published", work))
    withheld.sort(key=lambda item: item.tenant)
    out = {item.tenant for item in withheld}
    visible = {tenant: made for tenant, made in outcome.made.items() if tenant not in out}
    plan = plan.with_failed(outcome.failed)
    plane.run(save_plan(plane.plane.engine.store, plan))
    log_errors(context, outcome)
    digests = {tenant: version_of(dict(found)) for tenant, found in plan.unchanged.items()}
    digests |= {tenant: made.digest for tenant, made in visible.items()}
    shown = outcome.only(visible)
    yield result_of(shown, digests, failed=plan.failed, checks=[check_result(day, len(judged), withheld)])
    if plan.failed:
        raise failure(day, plan.failed)


def _check_spec() -> dg.AssetCheckSpec:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.AssetCheckSpec(
            CHECK,
            asset=PUBLISHED,
            blocking=True,
            partitions_def=DAILY,
            description=(
                "Rows of the three shards and events of the segments agree, counted from the stored objects before "
                "the commit. A tenant-day that fails is withheld; the others are published; then this check fails."
            ),
        )


PUBLISHED_DAYS: Final = daily_asset(
    _published,
    key=PUBLISHED,
    deps=[SEGMENTS, VECTOR_SHARDS, ENTITY_SHARDS, FULLTEXT_SHARDS],
    group_name=GROUP,
    kinds={"manifest"},
    tags={"layer": "commit"},
    check_specs=[_check_spec()],
    description=(
        "The data commit. Until here everything is an unreferenced object; with the next manifest of a tenant the "
        "day's segments and shards become visible together, and the log up to the covered number is done with."
    ),
)
