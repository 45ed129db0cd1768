"""Given vectors: a store of any dimension whose vectors all come from its callers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from commands.doctor import tenants
from context_plane import plane
from context_plane.embed.open import EmbedderSettings, open_embedder
from context_plane.errors import Invalid
from context_plane.model import Event, Put, Vector, day_start_us
from context_plane.recall.values import OnDemandRequest, SearchRequest
from context_plane.settings import Settings
from context_plane.tenants import TenantSettings, put_tenant

TENANT, DAY, SPEC = "acme", "2026-03-01", "customer_context_v0"
DIM = 5
SETTINGS = EmbedderSettings(kind="given", model="our-own", dim=DIM)


def axis(number: int) -> Vector:
    vector = np.zeros(DIM, np.float32)
    vector[number] = 1
    return vector


def event(number: int, vector: Vector | None, text: str | None = "the export fails again") -> Event:
    ts_us = day_start_us(DAY) + number
    return Event("acct-1", ts_us, f"e{number}", "crm", "call", text=text, vector=vector)


@pytest.mark.parametrize("missing", ["model", "dim"])
def test_settings_are_complete(missing: str) -> None:
    given = {"model": "our-own", "dim": DIM}
    with pytest.raises(ValidationError, match="need model and dim"):
        EmbedderSettings.model_validate({"kind": "given", **{k: v for k, v in given.items() if k != missing}})


async def test_no_text_is_embedded() -> None:
    """A query says what to do instead, and nothing of it is remembered."""
    embedder = open_embedder(SETTINGS)
    assert (embedder.model, embedder.dim) == (f"our-own/{DIM}", DIM)
    rows = await embedder.embed_documents(["a", ""])
    assert rows.shape == (2, DIM)
    assert rows.dtype == np.float32
    assert not rows.any()
    for _ in range(2):
        with pytest.raises(Invalid, match=r"vector_missing.*mode text"):
            await embedder.embed_query("a")


@pytest.mark.parametrize("built", [False, True], ids=["tail", "built"])
async def test_events_are_found_by_what_they_brought(tmp_path: Path, built: bool) -> None:
    """The vector leg finds exactly the events that have a vector. Seen to fail with `embed_documents` answering
    unit rows: the event without a vector came back."""
    settings = Settings(store=(tmp_path / "store").as_uri(), cache_dir=tmp_path / "cache", embedder=SETTINGS)
    events = [event(0, axis(0)), event(1, axis(1)), event(2, None), event(3, axis(3), text=None)]
    async with plane.open(settings) as made:
        await made.warm_up()
        await put_tenant(made.engine, TENANT, TenantSettings())
        await made.write(TENANT, [Put(each) for each in events], body_bytes=1000)
        if built:
            await made.build(TENANT, [DAY])

        async def ids(**request: object) -> list[str]:
            return [hit.id for hit in (await made.search(TENANT, SearchRequest(**request))).hits]  # type: ignore[arg-type]  # of a SearchRequest

        for entities in (None, ("acct-1",)):
            found = await ids(vector=axis(1), mode="vector", entities=entities)
            assert found[0] == "e1"
            assert set(found) == {"e0", "e1", "e3"}
            assert set(await ids(text="export", mode="text", entities=entities)) == {"e0", "e1", "e2"}
            assert (await ids(text="export", vector=axis(0), entities=entities))[0] == "e0"
            with pytest.raises(Invalid, match="vector_missing"):
                await ids(text="export", entities=entities)


async def test_bundles_rank_their_evidence_by_text(tmp_path: Path) -> None:
    """The shipped spec asks hybrid questions: it is built, served, and answers questions that bring a vector.

    Seen to fail with the spec's queries embedded: nothing could be built."""
    settings = Settings(store=(tmp_path / "store").as_uri(), cache_dir=tmp_path / "cache", embedder=SETTINGS)
    async with plane.open(settings) as made:
        await put_tenant(made.engine, TENANT, TenantSettings())
        await made.write(TENANT, [Put(event(0, axis(0))), Put(event(1, None))], body_bytes=1000)
        await made.build(TENANT, [DAY], specs=[SPEC])
        assert b"export fails" in (await made.bundle(TENANT, "acct-1", spec=SPEC)).json_bytes
        asked = await made.context_on_demand(TENANT, OnDemandRequest("acct-1", SPEC, text="export", vector=axis(0)))
        assert b"export fails" in asked.json_bytes
        with pytest.raises(Invalid, match="vector_missing"):
            await made.context_on_demand(TENANT, OnDemandRequest("acct-1", SPEC, text="export"))
        assert (await tenants.model(made)).state == "ok"
