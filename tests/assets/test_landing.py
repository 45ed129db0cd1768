"""Landed files: each read once, whatever happens, and nothing of one lost."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from context_plane import landing as module
from context_plane.catalog.log import list_log
from context_plane.landing import Landing, land_day
from context_plane.layout.keys import ControlKey, LandingKey
from context_plane.recall.values import TimelineRequest
from tests.assets.world import World

DAY = "2026-03-04"
MAPPING = """
version: 1
source: helpdesk
streams:
  - name: tickets
    files: "tickets*.csv"
    events:
      - {kind: ticket, entity: account, id: number, ts: opened, text: "{{ subject }}"}
"""
TICKETS = """number,account,opened,subject
1,acct-1,2026-03-04T09:00:00Z,Export fails
2,acct-2,not a time,Lost
3,acct-1,2026-03-03T09:00:00Z,Invoice is wrong
"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.local(tmp_path)


def put(world: World, key: object, text: str) -> None:
    with world.open() as opened:
        opened.run(opened.plane.engine.store.put(str(key), text.encode()))


def land(world: World, tenant: str = "acme", day: str = DAY) -> Landing:
    with world.open() as opened:
        return opened.run(land_day(opened.plane, tenant, day))


def batches(world: World, tenant: str = "acme") -> int:
    with world.open() as opened:
        return len(opened.run(list_log(opened.plane.engine.store, tenant, after=0)))


def with_tickets(world: World, text: str = TICKETS) -> None:
    put(world, ControlKey("acme", "mappings/helpdesk.yaml"), MAPPING)
    put(world, LandingKey("acme", "helpdesk", DAY, "tickets.csv"), text)


def test_a_file_is_read_once_and_its_refused_rows_are_kept(world: World) -> None:
    """Seen to fail without the record (a second batch)."""
    with_tickets(world)
    (landed,) = land(world).landed
    assert (landed.rows, landed.events, landed.rejected) == (3, 2, 1)
    assert landed.days == ("2026-03-03", "2026-03-04")
    assert landed.rejects is not None
    with world.open() as opened:
        refused = json.loads(opened.run(opened.plane.engine.store.get(landed.rejects)))
    assert (refused["line"], refused["column"], refused["code"]) == (3, "opened", "ts_invalid")
    again = land(world)
    assert again.landed == ()
    assert again.known == (landed,)
    assert batches(world) == 1


def test_the_same_bytes_under_another_name_are_the_same_file(world: World) -> None:
    with_tickets(world)
    land(world)
    put(world, LandingKey("acme", "helpdesk", DAY, "tickets-copy.csv"), TICKETS)
    assert land(world).landed == ()


def test_two_files_of_like_names_both_land(world: World) -> None:
    """Seen to fail when a folder's `/` became `_`: the second file took the place of the first."""
    header, *rows = TICKETS.splitlines(keepends=True)
    with_tickets(world, header + rows[0])
    put(world, LandingKey("acme", "helpdesk", DAY, "tickets/a.csv"), header + rows[1])
    put(world, LandingKey("acme", "helpdesk", DAY, "tickets_a.csv"), header + rows[2])
    assert sorted((item.events, item.rejected) for item in land(world).landed) == [(0, 1), (1, 0), (1, 0)]


def test_the_same_bytes_of_two_sources_are_two_files_read_once_each(world: World) -> None:
    """Seen to fail with one record for both: each landing read both again, for ever."""
    with_tickets(world)
    put(world, ControlKey("acme", "mappings/phone.yaml"), MAPPING.replace("helpdesk", "phone"))
    put(world, LandingKey("acme", "phone", DAY, "tickets.csv"), TICKETS)
    assert sorted(item.source for item in land(world).landed) == ["helpdesk", "phone"]
    again = land(world)
    assert (again.landed, len(again.known)) == ((), 2)


def test_a_day_of_too_many_bytes_is_refused_before_it_is_fetched(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DAY_BYTES_MAX", len(TICKETS) - 1)
    with_tickets(world)
    ((source, error),) = land(world).failed
    assert (source, error.code) == ("helpdesk", "body_too_large")


def test_a_landing_that_died_before_its_record_writes_nothing_twice(world: World) -> None:
    """Seen to fail without the idempotency key."""
    with_tickets(world)
    (landed,) = land(world).landed

    async def forget(plane: Any) -> None:
        await plane.engine.store.delete([str(ControlKey("acme", f"landing/helpdesk/{DAY}/{landed.digest}.json"))])

    with world.open() as opened:
        opened.run(forget(opened.plane))
    (again,) = land(world).landed
    assert again == landed
    assert batches(world) == 1


def test_large_files_become_several_batches(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_EVENTS_MAX", 10)
    rows = "".join(f"{n},acct-{n % 3},2026-03-04T09:00:00Z,Subject {n}\n" for n in range(35))
    with_tickets(world, "number,account,opened,subject\n" + rows)
    (landed,) = land(world).landed
    assert landed.events == 35
    assert len(landed.batches) == batches(world) == 4


def test_a_mended_mapping_reads_the_file_again(world: World) -> None:
    with_tickets(world)
    land(world)
    mended = MAPPING.replace("ts: opened", "ts: {column: opened, format: ['%Y-%m-%dT%H:%M:%SZ']}")
    put(world, ControlKey("acme", "mappings/helpdesk.yaml"), mended)
    assert len(land(world).landed) == 1


def texts(world: World) -> list[str | None]:
    """Of an account with two tickets, newest first, as built."""
    with world.open() as opened:
        opened.run(opened.plane.build("acme", ["2026-03-03", DAY], specs=()))
        answer = opened.run(opened.plane.timeline("acme", TimelineRequest("acct-1")))
    return [event.text for event in answer.events]


def test_a_mapping_that_comes_back_is_what_the_file_says_again(world: World) -> None:
    """Seen to fail with keys of file and content alone: the third landing was answered with the batch of the first."""
    with_tickets(world)
    for text in ("subject", "number", "subject"):
        put(world, ControlKey("acme", "mappings/helpdesk.yaml"), MAPPING.replace("subject", text))
        assert len(land(world).landed) == 1
    assert texts(world) == ["Export fails", "Invoice is wrong"]


def test_an_export_that_says_what_an_older_one_said_lands_again(world: World) -> None:
    """Seen to fail with files known by their bytes whatever their day: the export between them stayed for ever.

    And with the day left out of the idempotency key: the third landing was answered with the batch of the first."""
    put(world, ControlKey("acme", "mappings/helpdesk.yaml"), MAPPING)
    exports = {DAY: TICKETS, "2026-03-05": TICKETS.replace("fails", "works"), "2026-03-06": TICKETS}
    for day, text in exports.items():
        put(world, LandingKey("acme", "helpdesk", day, "tickets.csv"), text)
        assert [item.day for item in land(world, day=day).landed] == [day]
    assert texts(world) == ["Export fails", "Invoice is wrong"]
    for day in exports:
        assert land(world, day=day).landed == ()
    assert batches(world) == 3


def test_an_export_that_stays_the_same_is_written_once(world: World) -> None:
    """Each day's record leads to the next. Seen to fail with days by themselves, and with no record of a known one."""
    put(world, ControlKey("acme", "mappings/helpdesk.yaml"), MAPPING)
    days = ("2026-03-04", "2026-03-05", "2026-03-06")
    for n, day in enumerate(days):
        put(world, LandingKey("acme", "helpdesk", day, f"tickets-{day}.csv"), TICKETS)
        found = land(world, day=day)
        assert (len(found.landed), len(found.known)) == ((1, 0) if n == 0 else (0, 1))
        assert [(item.day, item.file) for item in found.landed + found.known] == [(day, f"tickets-{day}.csv")]
    assert batches(world) == 1


def test_an_export_that_comes_back_behind_another_of_its_day_lands(world: World) -> None:
    """Beside the other, or in its place. Seen to fail with each file compared with the day before by itself."""
    put(world, ControlKey("acme", "mappings/helpdesk.yaml"), MAPPING)
    put(world, LandingKey("acme", "helpdesk", "2026-03-04", "tickets.csv"), TICKETS)
    put(world, LandingKey("acme", "helpdesk", "2026-03-05", "tickets.csv"), TICKETS.replace("fails", "works"))
    for day in ("2026-03-04", "2026-03-05"):
        assert len(land(world, day=day).landed) == 1
    put(world, LandingKey("acme", "helpdesk", "2026-03-05", "tickets.csv"), TICKETS)
    assert len(land(world, day="2026-03-05").landed) == 1
    assert texts(world) == ["Export fails", "Invoice is wrong"]


def test_a_later_landing_that_died_before_its_record_writes_nothing_twice(world: World) -> None:
    """Seen to fail with a nonce in the key."""
    with_tickets(world)
    (first,) = land(world).landed
    put(world, ControlKey("acme", "mappings/helpdesk.yaml"), MAPPING.replace("subject", "number"))
    for _ in range(2):
        (later,) = land(world).landed
        assert later.batches == (2,)
        put(world, ControlKey("acme", f"landing/helpdesk/{DAY}/{first.digest}.json"), first.model_dump_json())


def test_landed_rows_may_lie_as_far_ahead_as_others(world: World) -> None:
    """Seen to fail with the two days of the default kept."""
    ahead = (dt.datetime.now(dt.UTC) + dt.timedelta(days=5)).isoformat()
    with_tickets(world, TICKETS.replace("2026-03-03T09:00:00Z", ahead))
    wider = replace(world, settings=world.settings.model_copy(update={"horizon_days": 6}))
    assert [item.rejected for item in land(wider).landed] == [1]


def test_a_file_without_a_mapping_is_named_and_the_others_land(world: World) -> None:
    with_tickets(world)
    put(world, LandingKey("acme", "unknown", DAY, "rows.csv"), "a,b\n1,2\n")
    put(world, LandingKey("acme", "helpdesk", DAY, "strange.csv"), "a,b\n1,2\n")
    found = land(world)
    assert [item.file for item in found.landed] == ["tickets.csv"]
    assert {(name, error.code) for name, error in found.failed} == {
        ("helpdesk/strange.csv", "mapping_invalid"),
        ("unknown", "mapping_invalid"),
    }


def test_landed_files_are_built_by_the_same_run(world: World) -> None:
    """Seen to fail (bundles were left to a second run) when `published` failed in the name of the file."""
    with_tickets(world)
    put(world, LandingKey("acme", "unknown", DAY, "rows.csv"), "a,b\n1,2\n")
    (built,) = world.build([DAY])
    assert built.events == 1
    assert built.bundles == 1
    assert len(built.run_ids) == 1, "and so are their bundles"
    assert not built.ok, "the file that did not land is named, and keeps nothing from being built"
    assert f"acme {DAY}: mapping_invalid in landing" in built.problems[0]
