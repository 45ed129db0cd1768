"""Erasing: open erasure requests are carried out, checked and closed.

The request object under the tenant holds the entity; a run knows the request's id. File one with `DELETE
…/entities/{entity}` or `context-plane erase ENTITY --later`. Erasures of whole tenants that were interrupted are
finished too, and what came after their receipts is deleted.
"""

# No postponed annotations here: Dagster reads those of its functions' parameters as objects.
from collections import Counter
from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from assets.operations.operate import AS_TOLD, Tenants, Told, operate
from assets.plan import Failed
from assets.units import Gathered, gathered
from context_plane.audit import JOB
from context_plane.erase_tenant import finish_all
from context_plane.erasure_requests import open_requests
from context_plane.errors import CODES
from context_plane.fulfil import Fulfilled, fulfil, kind_of
from context_plane.plane import Plane
from context_plane.reindex import build_day
from resources.plane import OpenPlane

COUNTS = (
    "erasures",
    "days_rebuilt",
    "months_opened",
    "bundle_days_dropped",
    "objects",
    "bytes",
    "batches_redacted",
    "manifests_redacted",
    "tenants_erased",
    "late_objects",
)
ADVICE = "Mend the above, then run the job again: a request stays open until its erasure is complete and checked."


class EraseConfig(Tenants):
    """Without ids every open request of the tenants is worked off."""

    requests: list[str] = Field(default=[], description="ids of erasure requests, of one tenant; empty: every open one")


async def erase(plane: Plane, tenant: str, requests: list[str], errors: list[str]) -> Told:
    """Fulfil the requests of one tenant, one after another. One that fails is a remark, with its code, and stops no
    other; what the log is told of it is added to `errors`."""
    counts: Counter[str] = Counter()

    async def one(request: str) -> Fulfilled:
        return await fulfil(plane.engine, tenant, request, build_day=build_day, actor=JOB)

    asked = requests or await open_requests(plane.engine.store, tenant)
    found = await gathered(asked, f"of {tenant}", "erase", one, at_once=1)
    errors += [f"request {error}" for error in found.errors]
    problems = [f"request {failed.tenant}: {failed.code}, {CODES[failed.code]}" for failed in found.failed]
    for request, done in found.done.items():
        receipt = done.receipt
        counts["erasures"] += 1
        counts["days_rebuilt"] += receipt.days_rebuilt
        counts["months_opened"] += receipt.months_opened
        counts["bundle_days_dropped"] += receipt.bundle_days_dropped
        counts["objects"] += receipt.objects_deleted
        counts["bytes"] += receipt.bytes_deleted
        counts["batches_redacted"] += receipt.batches_redacted
        counts["manifests_redacted"] += receipt.manifests_redacted
        kinds = Counter(kind_of(problem) for problem in done.problems)
        problems += [f"request {request}: {kind} ({number})" for kind, number in sorted(kinds.items())]
    return Told(counts, remarks=tuple(problems))


async def finish_tenants(plane: Plane) -> Gathered[Told]:
    """Complete erasures of whole tenants, and tell whose; of one that nothing was left of, nothing."""
    finished = await finish_all(plane.engine, actor=JOB)
    done: dict[str, Told] = {}
    for tenant, gone in finished.deleted.items():
        kind = {"late_objects": gone.objects} if gone.late else {"tenants_erased": 1}
        note = "came after its receipt" if gone.late else "erased"
        done[tenant] = Told({"objects": gone.objects, "bytes": gone.bytes, **kind}, note=note)
    failed = tuple(Failed(tenant=tenant, step="erase", code=code) for tenant, code in finished.failed)
    errors = tuple(f"the erasure of the tenant {item.tenant} stopped: {item.code}" for item in failed)
    return Gathered(done, failed, errors)


@dg.op(
    name="erase", out=dg.Out(dg.Nothing), description="Tombstone, rebuild, delete and redact; then check each receipt."
)
def _erase(
    context: dg.OpExecutionContext, config: EraseConfig, plane: dg.ResourceParam[OpenPlane]
) -> Iterator[dg.Output[None]]:
    if config.requests and len(set(config.tenants)) != 1:
        raise dg.Failure("request ids belong to one tenant; name it in `tenants`", allow_retries=False)

    errors: list[str] = []

    async def work(opened: Plane, tenant: str) -> Told:
        return await erase(opened, tenant, config.requests, errors)

    before = None if config.tenants else finish_tenants
    try:
        yield from operate(context, plane, config.tenants, work, counts=COUNTS, advice=ADVICE, before=before)
    finally:
        for error in errors:
            context.log.error(error)


@dg.job(
    name="erase_entities",
    config=dg.RunConfig(ops={"erase": EraseConfig()}),
    tags=AS_TOLD,
    description=(
        "Carries out erasure requests: the entity leaves the log, segments, indexes, bundles and snapshots, a receipt "
        "says what was done, every object is read to check it, and the request is deleted."
    ),
)
def erase_entities() -> None:
    _erase()
