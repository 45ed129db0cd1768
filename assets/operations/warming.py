"""Warming: a read service is told which days are going to be read, and fetches them ahead.

The job runs apart from the services, so it asks over HTTP: by default the service that `CONTEXT_PLANE_READ_URL` names.
The API key is in an environment variable, of which the run names the name. Entities are not named: their ids would be
in the run's configuration.
"""

# No postponed annotations here: Dagster reads those of its functions' parameters as objects.
import os
from collections.abc import Iterator
from typing import Final

import dagster as dg
import httpx
import orjson
from pydantic import Field

from assets.external import READ_DEFAULT, READ_VARIABLE, without_credentials
from assets.operations.operate import AS_TOLD, Tenants, Told, operate
from context_plane.catalog.days import load_days
from context_plane.catalog.head import load_head
from context_plane.catalog.manifest import Manifest
from context_plane.errors import CODES, Denied, Invalid, NotFound, PlaneError, Unavailable
from context_plane.plane import Plane
from context_plane.warm import HINT_DAYS_MAX
from resources.plane import OpenPlane

KEY_VARIABLE: Final = "CONTEXT_PLANE_WARM_KEY"
TIMEOUT_S: Final = 30.0
"""A hint is answered before it is followed."""
COUNTS = ("hints", "days", "bytes")
ADVICE = (
    "Is the service running at `url`, and does the key in the environment variable `key_variable` open the tenants for "
    "reading? Then run the job again; a hint that was followed costs nothing the second time."
)


class WarmConfig(Tenants):
    """The newest built days of each tenant."""

    url: str = Field(default="", description=f"base URL of the read service; empty: that of {READ_VARIABLE}")
    key_variable: str = Field(
        default=KEY_VARIABLE, description="environment variable that holds the API key; unset: no key"
    )
    days: int = Field(default=7, ge=1, le=HINT_DAYS_MAX, description="newest built days of each tenant")


async def warm(plane: Plane, tenant: str, client: httpx.AsyncClient, days: int) -> Told:
    """Send one hint. `bytes`: of the shards the days have, some of which the service may hold already. A service that
    does not answer is a remark: of the codes none says so."""
    manifest = await load_head(plane.engine.store, tenant)
    sizes = await _newest(plane, manifest, days)
    if not sizes:
        return Told({}, note="nothing is built")
    try:
        await post_hint(client, tenant, list(sizes))
    except httpx.HTTPError as error:
        asked = without_credentials(str(client.base_url)).rstrip("/")
        return Told({}, remarks=(f"nothing answers at {asked} ({type(error).__name__})",))
    return Told({"hints": 1, "days": len(sizes), "bytes": sum(sizes.values())})


async def post_hint(client: httpx.AsyncClient, tenant: str, days: list[str]) -> None:
    """`POST /v1/tenants/{tenant}/warm`. Raises the error that a refusal stands for, and `httpx.HTTPError`."""
    body = orjson.dumps({"days": days})
    answer = await client.post(f"/v1/tenants/{tenant}/warm", content=body, headers={"content-type": "application/json"})
    if answer.status_code != httpx.codes.ACCEPTED:
        raise _refusal(answer)


def _refusal(answer: httpx.Response) -> PlaneError:
    try:
        code = str(orjson.loads(answer.content)["code"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        code = "internal"
    if code not in CODES:
        code = "internal"
    family = {401: Denied, 403: Denied, 404: NotFound}.get(answer.status_code, Unavailable)
    return family(code, "the read service refused the hint", status=answer.status_code)


async def _newest(plane: Plane, manifest: Manifest, count: int) -> dict[str, int]:
    """The newest days with rows -> bytes of their shards, ascending."""
    built = {day: e.shards.bytes for day, e in manifest.days.items() if e.shards is not None}
    if len(built) < count and manifest.months:
        every = await load_days(plane.engine.store, manifest)
        built = {day: e.shards.bytes for day, e in every.items() if e.shards is not None}
    return {day: built[day] for day in sorted(built)[-count:]}


def _client(url: str, key: str | None) -> httpx.AsyncClient:
    headers = {} if not key else {"authorization": f"Bearer {key}"}
    try:
        return httpx.AsyncClient(base_url=url, headers=headers, timeout=TIMEOUT_S)
    except httpx.InvalidURL:
        raise Invalid("settings_invalid", "a service URL reads http://host:port", url=url) from None


@dg.op(name="warm", out=dg.Out(dg.Nothing), description="Posts one hint for each tenant.")
def _warm(
    context: dg.OpExecutionContext, config: WarmConfig, plane: dg.ResourceParam[OpenPlane]
) -> Iterator[dg.Output[None]]:
    url = config.url or os.environ.get(READ_VARIABLE) or READ_DEFAULT
    client, told = _client(url, os.environ.get(config.key_variable)), {"url": without_credentials(url)}

    async def work(opened: Plane, tenant: str) -> Told:
        return await warm(opened, tenant, client, config.days)

    try:
        yield from operate(context, plane, config.tenants, work, counts=COUNTS, advice=ADVICE, more=told)
    finally:
        plane.run(client.aclose())


@dg.job(
    name="warm_services",
    config=dg.RunConfig(ops={"warm": WarmConfig()}),
    tags=AS_TOLD,
    description=(
        "Tells a read service to fetch the newest days of every tenant ahead of the reads: after it was started or "
        "moved, or before a campaign reads everybody."
    ),
)
def warm_services() -> None:
    _warm()
