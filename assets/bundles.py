"""One asset per bundle spec: the materialized contexts of every entity as of a day.

The dependency is on the same day's commit; look-back days are read from one manifest version and are no
Dagster dependencies. Bundles commit by themselves, so a new or changed spec is a backfill of its asset alone.
"""

# No postponed annotations here: Dagster reads those of its functions' parameters as objects.
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import dagster as dg

from assets.bundle_gate import Verdict, check_results, check_specs, metadata_of
from assets.columns import fields_of
from assets.external import explorer_links
from assets.meter import metered
from assets.partitions import GROUP
from assets.plan import VERSION_CHARS, chosen_tenants, weigh
from assets.published import PUBLISHED_DAYS
from assets.ranges import BUNDLE_RANGE_BYTES, count_of, do_with_ranges
from assets.report import Made
from assets.step import Result, daily_asset, failure, held_by, log_errors, result_of
from context_plane.bundle.spec import Spec
from context_plane.bundle_changes import Replacement
from context_plane.catalog.bundles import BundleEntry
from context_plane.catalog.head import load_head
from context_plane.catalog.manifest import Manifest
from context_plane.catalog.named import load_buckets
from context_plane.errors import Conflict
from context_plane.materialize import sources_of
from context_plane.model import add_days, canonical_json, sha256_hex
from context_plane.pending import pending_of, waits
from context_plane.plane import Plane
from context_plane.ranges import RangeDone
from context_plane.settle import commit_pending
from context_plane.store.base import Store
from resources.plane import OpenPlane
from resources.scope import BuildScope
from resources.workers import Workers

PREFIX = "bundles"


def bundle_assets(specs: Mapping[str, Spec]) -> list[dg.AssetsDefinition]:
    """An asset per spec, ascending by name."""
    return [bundle_asset(spec) for _, spec in sorted(specs.items())]


def bundle_asset(spec: Spec) -> dg.AssetsDefinition:
    """The asset `bundles/{spec}`."""
    name = spec.name

    def bundles(
        context: dg.AssetExecutionContext,
        plane: dg.ResourceParam[OpenPlane],
        workers: dg.ResourceParam[Workers],
        scope: BuildScope,
    ) -> Result:
        day, step = context.partition_key, context.asset_key.to_user_string()
        with metered() as meter:
            tenants = plane.run(chosen_tenants(plane.plane, scope))
            weights = plane.run(weigh(plane.plane, tenants, add_days(day, 1 - spec.lookback_days), day))
            counts = {tenant: count_of(size, BUNDLE_RANGE_BYTES) for tenant, size in weights.items()}
            outcome = do_with_ranges(
                plane,
                workers,
                weights,
                {tenant: count for tenant, count in counts.items() if count > 1},
                day,
                step,
                range_work=partial(materialize_range, spec=spec, only_stale=scope.only_dirty),
                work=partial(materialize, spec=spec, only_stale=scope.only_dirty),
            )
            held = held_by(plane, outcome.failed, day, step, partial(load_bundles, spec=spec))
        made = {tenant: item for tenant, item in outcome.made.items() if item.digest}
        log_errors(context, outcome)
        verdicts = {tenant: item.aside for tenant, item in outcome.made.items() if item.aside is not None}
        yield result_of(
            context,
            outcome.only(made),
            meter,
            failed=outcome.failed,
            held={tenant: item for tenant, item in held.items() if item.digest},
            extra="tokens",
            more={**explorer_links(made, name, day), **metadata_of(verdicts)},
            checks=check_results(spec, day, verdicts),
        )
        if outcome.failed:
            raise failure(day, outcome.failed)

    key = dg.AssetKey([PREFIX, name])
    return daily_asset(
        bundles,
        key=key,
        check_specs=check_specs(key),
        deps=[PUBLISHED_DAYS],
        group_name=GROUP,
        kinds={"json", "zstd"},
        tags={"layer": "bundle", "spec": name},
        metadata={
            "budget_tokens": spec.budget_tokens,
            "lookback_days": spec.lookback_days,
            **fields_of(BundleEntry),
        },
        description=spec.description or f"Bundles of {name}, at most {spec.budget_tokens} tokens each.",
    )


async def materialize(
    plane: Plane,
    tenant: str,
    day: str,
    *,
    spec: Spec,
    only_stale: bool,
    ranges: Mapping[str, int] | None = None,
) -> Made:
    """Build and commit one tenant's bundles of a day; nothing where there is nothing to read or to renew, or
    where the tenant's settings leave the spec out. `ranges`:
    into how many those of each large tenant were cut. `aside`: a `Verdict` on what was, or would be, replaced."""
    store = plane.engine.store
    if spec.name not in await plane.specs_of(tenant):
        return Made("")
    manifest = await load_head(store, tenant)
    outdated = is_outdated(manifest, spec.name, plane.bundles.fingerprint(spec.name), day)
    served = not outdated and not is_stale(manifest, spec, day)
    if only_stale and served and pending_of(manifest, spec.name, day) is None:
        return await committed(store, manifest, spec, day)
    if not only_stale and not has_sources(manifest, spec, day):
        return await committed(store, manifest, spec, day)
    if only_stale and not outdated:
        left = await waiting(plane, manifest, spec, day)
        if left is not None:
            return replace(await committed(store, await load_head(store, tenant), spec, day), aside=left)
    try:
        build = await plane.materialize(tenant, spec.name, day, ranges=(ranges or {}).get(tenant, 1))
    except Conflict as error:
        if error.code != "budget_exceeded":
            raise
        over = f"a bundle of {error.fields['tokens']} tokens"
        return replace(await committed(store, manifest, spec, day), aside=Verdict(over_budget=over))
    return replace(
        await committed(store, await load_head(store, tenant), spec, day),
        objects=build.objects,
        reused=build.reused,
        aside=Verdict(replacement=build.replacement, waits=build.pending),
    )


async def materialize_range(
    plane: Plane, tenant: str, day: str, number: int, count: int, *, spec: Spec, only_stale: bool
) -> RangeDone:
    """Make and stage the bundles of one range of the tenant's entities, where `materialize` will want them."""
    if spec.name not in await plane.specs_of(tenant):
        return RangeDone()
    manifest = await load_head(plane.engine.store, tenant)
    due = is_due(manifest, spec, day) or is_outdated(manifest, spec.name, plane.bundles.fingerprint(spec.name), day)
    if not (due if only_stale else has_sources(manifest, spec, day)):
        return RangeDone()
    try:
        return await plane.materialize_range(tenant, spec.name, day, number, count)
    except Conflict as error:
        if error.code != "budget_exceeded":
            raise
        return RangeDone()  # `materialize` finds it again, and says so


async def waiting(plane: Plane, manifest: Manifest, spec: Spec, day: str) -> Verdict | None:
    """What waits for an approval where building it again would make the same; None where it is to be built.

    Where it was approved meanwhile, readers get it here.
    """
    pending = pending_of(manifest, spec.name, day)
    if pending is None or not waits(manifest, spec.name, day, sources_of(manifest, spec, day)):
        return None
    state = await commit_pending(plane.engine, manifest.tenant, await plane.bundles.compiled(spec.name), day)
    if state in ("moved", "nothing"):
        return None
    found = Replacement(pending.replaces, pending.changes, pending.table)
    return Verdict(replacement=found, waits=state == "waits")


async def committed(store: Store, manifest: Manifest, spec: Spec, day: str) -> Made:
    """The day's bundles that readers have, whoever made them; nothing of them written. `digest`: over the contents of
    their packs, empty where there are none."""
    held = manifest.bundles.get(spec.name, {}).get(day)
    if held is None:
        return Made("")
    buckets = await load_buckets(store, held)
    return Made(
        digest=sha256_hex(canonical_json([bucket.digest for bucket in buckets]))[:VERSION_CHARS],
        rows=held.entities,
        entities=held.entities,
        bytes=held.directory.bytes + sum(bucket.bytes for bucket in buckets),
        extra=sum(entry.tokens for bucket in buckets for entry in bucket.entries),
    )


async def load_bundles(plane: Plane, tenant: str, day: str, *, spec: Spec) -> Made:
    store = plane.engine.store
    return await committed(store, await load_head(store, tenant), spec, day)


def built_days(manifest: Manifest) -> set[str]:
    """Days with a published build, open or rolled up. Pure."""
    return {*manifest.days, *(day for month in manifest.months.values() for day in month.covered)}


def has_sources(manifest: Manifest, spec: Spec, day: str) -> bool:
    """Whether any day of the look-back is built. Pure."""
    first = add_days(day, 1 - spec.lookback_days)
    return any(first <= built <= day for built in built_days(manifest))


def is_stale(manifest: Manifest, spec: Spec, day: str) -> bool:
    """Whether the day's bundles are missing (of a built day) or were made from other sources. Pure."""
    held = manifest.bundles.get(spec.name, {}).get(day)
    if held is None:
        return day in built_days(manifest)
    return held.sources != sources_of(manifest, spec, day) or held.erasures != manifest.erasures


def is_outdated(manifest: Manifest, spec: str, fingerprint: str, day: str) -> bool:
    """Whether the day's bundles were made from another text of the spec, or with another model. Pure."""
    held = manifest.bundles.get(spec, {}).get(day)
    return held is not None and held.spec_fingerprint != fingerprint


def is_due(manifest: Manifest, spec: Spec, day: str) -> bool:
    """Whether building would help: what waits for an approval as it is waits for a person. Pure."""
    return is_stale(manifest, spec, day) and not waits(manifest, spec.name, day, sources_of(manifest, spec, day))
