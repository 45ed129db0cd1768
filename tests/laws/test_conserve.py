"""What a day must hold, derived beside the fold, agrees with the fold; and tells every way of differing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from context_plane.conserve import Held, after, compared, conservation
from context_plane.erase import erase_entity
from context_plane.fold import fold_day
from context_plane.index.blocks import line_digest
from context_plane.layout.batch import WriteLine
from context_plane.reindex import build_day, index_entities, index_fulltext, index_vectors
from context_plane.reread import reread
from context_plane.staging import load_staged
from tests.laws.plane_world import DAY, TENANT, World, delete_of, event, puts

IDS = st.sampled_from(["a", "b", "c"])
LINES = st.lists(st.tuples(IDS, IDS, st.one_of(st.none(), st.binary(min_size=1, max_size=3))), max_size=20)


def grouped(lines: Sequence[tuple[str, str, bytes | None]]) -> dict[str, list[WriteLine]]:
    found: dict[str, list[WriteLine]] = {}
    for entity, id, line in lines:
        found.setdefault(entity, []).append(WriteLine(entity, 0, id, line))
    return found


@given(LINES)
def test_the_last_write_of_an_identity_wins(lines: list[tuple[str, str, bytes | None]]) -> None:
    last = {(entity, id): line for entity, id, line in lines}
    wanted = {key: line_digest(line) for key, line in last.items() if line is not None}
    assert after({}, grouped(lines)) == wanted


@given(
    st.dictionaries(st.tuples(IDS, IDS), st.binary(max_size=1)),
    st.dictionaries(st.tuples(IDS, IDS), st.binary(max_size=1)),
)
def test_every_difference_is_counted(expected: Held, found: Held) -> None:
    told = compared(expected, found)
    assert (told.missing, told.surplus) == (len(expected.keys() - found), len(found.keys() - expected))
    assert told.holds == (expected == found)


async def test_a_staged_day_holds_what_it_must(world: World) -> None:
    """Over a first build, one with changes and deletes, one whose shard was lost, and after an erasure."""
    plane = world.plane()

    async def staged() -> int:
        await fold_day(plane.engine, TENANT, DAY)
        await index_vectors(plane.engine, tenant=TENANT, day=DAY)
        await index_entities(plane.engine, tenant=TENANT, day=DAY)
        await index_fulltext(plane.engine, tenant=TENANT, day=DAY)
        stages = await load_staged(plane.engine.store, TENANT, DAY)
        columns = (await reread(plane.engine.store, stages)).columns
        found = await conservation(plane.engine, stages, columns)
        assert found is not None
        assert found.holds, found
        return found.expected

    many = [event(n, id=f"e{n}", entity=f"acct-{n % 3}") for n in range(9)]
    await world.write(plane, puts(many))
    assert await staged() == 9
    await plane.build(TENANT, [DAY], specs=())
    published = await load_staged(plane.engine.store, TENANT, DAY)
    assert await conservation(plane.engine, published, None) is None, "published since it was staged"
    await world.write(
        plane, [*puts([replace(many[3], text="another"), event(40, id="e40", entity="acct-7")]), delete_of(many[5])]
    )
    assert await staged() == 9
    await plane.build(TENANT, [DAY], specs=())
    keys = [info.key async for info in plane.engine.store.list(f"tenants/{TENANT}/indexes/")]
    await plane.engine.store.delete(keys)
    assert await staged() == 9
    await plane.build(TENANT, [DAY], specs=())
    await erase_entity(plane.engine, TENANT, "acct-0", build_day=build_day)
    assert await staged() == 6
