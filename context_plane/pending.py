"""Pending bundles: those that would change too much of what readers have, and wait for a person. Pure mutations.

    built ── few changes, or approved ──► committed
       └──── many ──► pending ── approved, nothing moved ──► committed
                          └───── rejected, built again, sources moved, erasure, retention ──► dropped

The manifest names what waits, so a collector leaves it; readers look at `bundles` alone. Each function takes a manifest
and gives the next one, or raises `Conflict(build_stale)`: read again, and build.
"""

from __future__ import annotations

from collections.abc import Collection

from context_plane.catalog import guards
from context_plane.catalog.manifest import BundleDay, Manifest, PendingBundles
from context_plane.errors import Conflict


def pending_of(manifest: Manifest, spec: str, day: str) -> PendingBundles | None:
    return manifest.pending.get(spec, {}).get(day)


def waits(manifest: Manifest, spec: str, day: str, sources: str) -> bool:
    """Whether something waits that is made of what is there now: building it again would give the same bytes, unless
    the spec changed. `sources`: of the day's look-back."""
    pending, held = pending_of(manifest, spec, day), manifest.bundles.get(spec, {}).get(day)
    if pending is None or held is None or held.directory.key != pending.replaces:
        return False
    return (pending.bundles.sources, pending.bundles.erasures) == (sources, manifest.erasures)


def committed(manifest: Manifest, spec: str, day: str, bundles: BundleDay) -> Manifest:
    """Readers get these bundles; what waited for their place is dropped."""
    mine = {**manifest.bundles.get(spec, {}), day: bundles}
    after = manifest.model_copy(update={"bundles": {**manifest.bundles, spec: mine}})
    return dropped(after, spec, [day])


def held_back(manifest: Manifest, spec: str, day: str, pending: PendingBundles) -> Manifest:
    """Readers keep what they have; these wait, in place of what waited before."""
    same_bundles(manifest, spec, day, pending.replaces)
    mine = {**manifest.pending.get(spec, {}), day: pending}
    return manifest.model_copy(update={"pending": {**manifest.pending, spec: mine}})


def approved(
    manifest: Manifest, spec: str, day: str, pending: PendingBundles, *, fingerprint: str, sources: str
) -> Manifest:
    """Readers get what waited, which is what whoever approved has seen, made of what is there still.

    No age is asked for: the manifest names its objects, so no collector has touched them.
    """
    if pending_of(manifest, spec, day) != pending:
        raise Conflict("build_stale", "what waited was built again, rejected or committed meanwhile", day=day)
    same_bundles(manifest, spec, day, pending.replaces)
    guards.same_erasures(manifest, pending.bundles.erasures)
    if pending.bundles.spec_fingerprint != fingerprint:
        raise Conflict("build_stale", "the spec changed since its bundles were made; build them again", day=day)
    if pending.bundles.sources != sources:
        raise Conflict("build_stale", "a day of the look-back was published meanwhile; build again", day=day)
    return committed(manifest, spec, day, pending.bundles)


def dropped(manifest: Manifest, spec: str, days: Collection[str]) -> Manifest:
    """Nothing waits for these days any more. The manifest itself where nothing did."""
    waiting = manifest.pending.get(spec, {})
    left = {day: pending for day, pending in waiting.items() if day not in days}
    if len(left) == len(waiting):
        return manifest
    return manifest.model_copy(update={"pending": {**manifest.pending, spec: left}})


def same_bundles(manifest: Manifest, spec: str, day: str, directory: str) -> None:
    """Readers have the bundles that the new ones were compared with."""
    held = manifest.bundles.get(spec, {}).get(day)
    if held is None or held.directory.key != directory:
        raise Conflict("build_stale", "the day's bundles were replaced meanwhile; build them again", day=day)
