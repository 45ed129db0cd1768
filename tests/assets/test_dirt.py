"""The sensor's arithmetic: what a tick asks for, over any dirt and any history of ticks."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from assets.automation import SCHEDULE_DAYS_MAX, schedule_requests
from assets.dirt import (
    BUNDLES_JOB,
    DAY_JOB,
    DIRT_AGE_US,
    ROLLUPS_JOB,
    Dirt,
    Tick,
    decode_cursor,
    encode_cursor,
    plan_tick,
    run_key,
)
from context_plane.model import add_days

NOW_US = 1_800_000_000_000_000
TENANTS = ["acme", "beta", "gamma", "delta"]
DAYS = [add_days("2026-03-01", n) for n in range(12)]

dirt_items = st.builds(
    Dirt,
    job=st.sampled_from([DAY_JOB, BUNDLES_JOB]),
    tenant=st.sampled_from(TENANTS),
    day=st.sampled_from(DAYS),
    digest=st.sampled_from(["a", "b", "c"]),
    oldest_us=st.integers(NOW_US - 3 * DIRT_AGE_US, NOW_US),
    urgent=st.booleans(),
)
dirts = st.lists(dirt_items, max_size=30, unique_by=lambda item: (item.job, item.tenant, item.day))


def tick(dirt: list[Dirt], **options: object) -> Tick:
    given_options: dict[str, object] = {"now_us": NOW_US, "asked": ()} | options
    return plan_tick(dirt, **given_options)  # type: ignore[arg-type]  # values are those of plan_tick


def is_due(item: Dirt) -> bool:
    return item.urgent or NOW_US - item.oldest_us >= DIRT_AGE_US


@given(dirts, st.integers(1, 10))
def test_a_tick_asks_for_due_dirt_only_within_its_bound_whatever_the_order(dirt: list[Dirt], most: int) -> None:
    """Seen to fail without sorting the tenants' queues, and with the bound checked per turn only."""
    found = tick(dirt, requests_max=most)
    assert len(found.requests) <= most
    assert len({request.run_key for request in found.requests}) == len(found.requests)
    due = {(item.job, item.day) for item in dirt if is_due(item)}
    assert {(request.job, request.day) for request in found.requests} <= due
    assert found.left == len(due) - len(found.requests)
    assert len(found.requests) == min(most, len(due))
    shuffled = random.Random(1).sample(dirt, len(dirt))
    assert tick(shuffled, requests_max=most) == found


@given(dirts)
def test_every_tenant_has_its_turn_before_any_has_its_next(dirt: list[Dirt]) -> None:
    """Seen to fail when days were taken oldest first over all tenants."""
    waiting = {item.tenant for item in dirt if is_due(item)}
    found = tick(dirt, requests_max=max(1, len(waiting)))
    served = {tenant for request in found.requests for tenant in request.tenants}
    assert waiting <= served


@given(dirts, st.integers(1, 3))
def test_dirt_that_stays_is_asked_for_once_and_hides_nothing(dirt: list[Dirt], most: int) -> None:
    """A day whose run failed stays dirty with the same input: ticks go on to the others. Seen to fail with a
    cursor that forgot what earlier ticks had asked for."""
    asked: tuple[str, ...] = ()
    seen: list[str] = []
    for _ in range(len(dirt) + 2):
        found = tick(dirt, asked=asked, requests_max=most)
        seen += [request.run_key for request in found.requests]
        asked = decode_cursor(encode_cursor(found.asked))
    assert len(seen) == len(set(seen))
    assert len(seen) == len({(item.job, item.day) for item in dirt if is_due(item)})


@given(dirts.filter(bool), st.data())
def test_new_input_of_a_day_is_asked_for_again(dirt: list[Dirt], data: st.DataObject) -> None:
    first = tick(dirt, requests_max=99)
    changed = data.draw(st.sampled_from(dirt))
    after = [Dirt(i.job, i.tenant, i.day, "new" if i is changed else i.digest, NOW_US - DIRT_AGE_US) for i in dirt]
    second = tick(after, asked=first.asked, requests_max=99)
    assert (changed.job, changed.day) in {(request.job, request.day) for request in second.requests}


@given(dirts)
def test_what_is_built_leaves_the_cursor(dirt: list[Dirt]) -> None:
    found = tick(dirt, requests_max=99)
    assert tick([], asked=found.asked).asked == ()


def test_a_day_under_way_is_left_alone() -> None:
    item = Dirt(DAY_JOB, "acme", DAYS[0], "a", NOW_US, urgent=True)
    assert tick([item], running={DAYS[0]}).requests == ()
    assert len(tick([item]).requests) == 1


def test_a_month_that_is_rolled_up_is_left_alone_and_its_first_day_is_not() -> None:
    """Seen to fail with the key of the month compared with days."""
    items = [Dirt(job, "acme", DAYS[0], "a", NOW_US, urgent=True) for job in (DAY_JOB, ROLLUPS_JOB)]
    assert [request.job for request in tick(items, running={"2026-03"}).requests] == [DAY_JOB]
    assert [request.job for request in tick(items, running={DAYS[0]}).requests] == [ROLLUPS_JOB]


def renewal(tenant: str, day: str, spec: str = "notes_v0") -> Dirt:
    return Dirt(BUNDLES_JOB, tenant, day, "a", 0, spec=spec, backfill=True)


@given(dirts, st.lists(st.sampled_from(DAYS), unique=True), st.integers(1, 10), st.integers(0, 10))
def test_backfills_take_the_room_that_is_left_newest_days_first(
    dirt: list[Dirt], days: list[str], most: int, others: int
) -> None:
    """Seen to fail with backfills among the rest, which waited the longest, and without the days under way."""
    late = [renewal("acme", add_days(day, -400)) for day in days]
    running = {add_days("2020-01-01", n) for n in range(others)}
    without = tick(dirt, requests_max=most, running=running)
    found = tick([*dirt, *late], requests_max=most, running=running)
    assert found.requests[: len(without.requests)] == without.requests
    asked = [request.day for request in found.requests[len(without.requests) :]]
    room = max(0, most - len(without.requests) - others)
    assert asked == sorted((item.day for item in late), reverse=True)[:room]


def test_days_ahead_of_a_persons_backfill_are_built_and_not_backfilled_twice() -> None:
    """Seen to fail with renewals asked for that the other backfill will make."""
    new = Dirt(DAY_JOB, "acme", DAYS[0], "a", NOW_US, urgent=True)
    found = tick([new, renewal("acme", DAYS[1]), renewal("acme", DAYS[2])], ahead=set(DAYS[:2]))
    assert [(request.job, request.day) for request in found.requests] == [(DAY_JOB, DAYS[0]), (BUNDLES_JOB, DAYS[2])]


def test_a_run_of_bundles_is_of_the_specs_that_some_tenant_lacks() -> None:
    lacking = [renewal("acme", DAYS[0]), renewal("beta", DAYS[0], "risks_v2"), renewal("beta", DAYS[0])]
    (request,) = tick(lacking).requests
    assert (request.specs, request.tenants) == (("notes_v0", "risks_v2"), ("acme", "beta"))
    mixed = [*lacking, Dirt(BUNDLES_JOB, "acme", DAYS[0], "b", NOW_US - DIRT_AGE_US, spec="news_v1")]
    assert tick(mixed, requests_max=1, running=set(DAYS[1:])).requests[0].specs == ("news_v1", "notes_v0", "risks_v2")


@given(st.permutations([renewal(tenant, day) for tenant in TENANTS[:3] for day in DAYS[:4]]))
def test_backfills_are_fair_over_tenants(dirt: list[Dirt]) -> None:
    many = [renewal("delta", add_days("2027-01-01", n)) for n in range(50)]
    served = {tenant for request in tick([*many, *dirt], requests_max=4).requests for tenant in request.tenants}
    assert served == set(TENANTS)


def test_dirt_rests_until_the_tail_fills() -> None:
    fresh = Dirt(DAY_JOB, "acme", DAYS[0], "a", NOW_US - DIRT_AGE_US + 1)
    assert tick([fresh]).requests == ()
    assert len(tick([Dirt(DAY_JOB, "acme", DAYS[0], "a", fresh.oldest_us, urgent=True)]).requests) == 1


@given(dirts)
def test_run_keys_tell_inputs_apart(dirt: list[Dirt]) -> None:
    keys = {run_key(DAY_JOB, DAYS[0], subset) for subset in ([], dirt, dirt[:1])}
    assert len(keys) == len({tuple(sorted((i.tenant, i.digest) for i in s)) for s in ([], dirt, dirt[:1])})


@given(dirts)
def test_the_schedule_asks_for_every_dirty_day_anew_each_night(dirt: list[Dirt]) -> None:
    requests = schedule_requests(dirt, "2026-03-14")
    dirty = {item.day for item in dirt if item.job == DAY_JOB}
    assert {r.day for r in requests} == dirty | {"2026-03-12", "2026-03-13", "2026-03-14"}, "exports land on these"
    again = schedule_requests(dirt, "2026-03-15")
    assert not {r.run_key for r in requests} & {r.run_key for r in again}
    running = {"2026-03-13", *DAYS[:4]}
    assert {r.day for r in schedule_requests(dirt, "2026-03-14", running)} == {r.day for r in requests} - running
    many = [Dirt(DAY_JOB, "acme", add_days("2020-01-01", n), "a", 0) for n in range(3 * SCHEDULE_DAYS_MAX)]
    assert len(schedule_requests(many, "2026-03-14")) == SCHEDULE_DAYS_MAX


def test_no_day_that_keeps_failing_keeps_others_from_the_schedule() -> None:
    """A tenant whose newest days fail every night, and of which one failed once, as one of another tenant did. Seen to
    fail with the newest days of all, and (the tenant's own) with those that wait the longest."""
    failing = [Dirt(DAY_JOB, "acme", add_days("2026-01-01", n), "a", n) for n in range(2 * SCHEDULE_DAYS_MAX)]
    old = Dirt(DAY_JOB, "beta", "2025-06-01", "b", 10**6)
    nights = [add_days("2026-03-14", n) for n in range(30)]
    asked = [{r.day for r in schedule_requests([*failing, old], night)} for night in nights]
    assert all(old.day in days for days in asked)
    assert {item.day for item in failing} <= set().union(*asked)
    assert {len(days) for days in asked} == {SCHEDULE_DAYS_MAX}
