"""The command line from outside: what it prints, and how it ends."""

from __future__ import annotations

import datetime as dt
import os
import re
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from commands import outcome
from context_plane.errors import Conflict, Corrupt, PlaneError, Unavailable
from tests.commands.cli import LOAD, PROGRAM, ROOT, Cli

pytestmark = pytest.mark.xdist_group("commands")


def test_loading_again_writes_nothing(cli: Cli) -> None:
    """Seen to fail with a random idempotency key (as `--again` makes one)."""
    before = sorted(path.name for path in (cli.folder / "store/tenants/acme/log").iterdir())
    assert cli.json(*LOAD, code=outcome.DEFECTS)["events"] == 3
    assert sorted(path.name for path in (cli.folder / "store/tenants/acme/log").iterdir()) == before


def test_an_export_holds_the_tail_and_what_is_built(cli: Cli) -> None:
    """Seen to fail with an export of segments alone."""
    for _ in range(2):
        lines = [orjson.loads(line) for line in cli("export").splitlines()]
        assert [(line["entity"], line["id"]) for line in lines] == [("acme", "t1"), ("acme", "t2"), ("beta", "t4")]
        assert lines[1]["attrs"] == {"seats": 6}
        cli("build", "--until", "2026-03-01")


def test_reads_before_and_after_the_build(cli: Cli) -> None:
    hits = cli.json("search", "export fails", "--limit", "5")["hits"]
    assert {hit["id"] for hit in hits[:2]} == {"t1", "t4"}
    cli("context", "beta", code=3)
    built = cli.json("build")
    assert {day["day"] for day in built["days"]} >= {"2026-03-02", "2026-03-03"}
    assert cli.json("build")["days"] == []
    again = cli("build", "--since", "2026-03-02", "--until", "2026-03-03")
    assert "unchanged: 2 days" in again, "and no object written"
    assert "acme as of 2026-03-03" in cli("context", "acme")
    where = '{"gte": ["attrs.seats", 6]}'
    assert [hit["id"] for hit in cli.json("search", "export fails", "--where", where, "--mode", "text")["hits"]] == [
        "t4"
    ]
    assert [event["id"] for event in cli.json("timeline", "acme")["events"]] == ["t2", "t1"]
    assert [entity["entity"] for entity in cli.json("entities")["entities"]] == ["acme", "beta"]
    assert cli.json("snapshot")["pending_events"] == 0


def test_a_day_without_a_partition_is_named_and_stops_no_other(tmp_path: Path) -> None:
    """Seen to fail with every dirty day handed to the assets: none was built."""
    made = Cli(tmp_path)
    row = '{{"entity": "acct-1", "ts": "{day}T09:00:00Z", "source": "s", "kind": "note", "text": "x"}}\n'
    (tmp_path / "rows.jsonl").write_text("".join(row.format(day=f"{year}-12-31") for year in (1998, 1999, 2025)))
    made("ingest", "rows.jsonl", "--tenant", "acme")
    told = made.json("build", code=outcome.DEFECTS)
    assert [day["day"] for day in told["days"]] == ["2025-12-31"]
    assert [left["day"] for left in told["not_built"]] == ["1998-12-31", "1999-12-31"]
    assert {"set CONTEXT_PLANE_FIRST_DAY=1998-12-31" in left["problem"] for left in told["not_built"]} == {True}
    again = made("build", code=outcome.DEFECTS)
    assert "built 0 days of acme, in" in again
    assert "not built: 1998-12-31 and 1 more: it lies before the first partition; set CONTEXT" in again
    made.environment["CONTEXT_PLANE_FIRST_DAY"] = "1998-12-31"
    told = made.json("build")
    assert ([day["day"] for day in told["days"]], told["not_built"]) == (["1998-12-31", "1999-12-31"], [])
    assert made.json("snapshot")["pending_events"] == 0


@pytest.mark.parametrize(("words", "field"), [(("entities",), "entities"), (("timeline", "acme"), "events")])
def test_a_list_that_was_cut_goes_on_with_its_cursor(cli: Cli, words: tuple[str, ...], field: str) -> None:
    """Seen to fail with a cursor of null, which is the end."""
    whole = cli.json(*words)
    first = cli.json(*words, "--limit", "1")
    assert f"--cursor {first['cursor']}" in cli(*words, "--limit", "1").splitlines()[-1]
    rest = cli.json(*words, "--limit", "1", "--cursor", first["cursor"])
    assert first[field] + rest[field] == whole[field]
    assert (len(first[field]), whole["cursor"], rest["cursor"]) == (1, None, None)
    cli(*words, "--cursor", "x", code=outcome.USAGE)
    assert "cursor_invalid" in cli.error


def test_rows_ahead_of_the_horizon_are_refused_as_the_service_would(tmp_path: Path) -> None:
    """Seen to fail with the two days of the default kept."""
    made = Cli(tmp_path)
    ahead = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=30)).isoformat()
    row = {"entity": "acct-1", "ts": ahead, "source": "s", "kind": "note", "text": "x"}
    (tmp_path / "rows.jsonl").write_bytes(orjson.dumps(row))
    load = ("ingest", "rows.jsonl", "--tenant", "acme", "--again")
    for days, rejects in (("1", 1), ("2", 0)):
        made.environment["CONTEXT_PLANE_HORIZON_DAYS"] = days
        assert made.json(*load, code=outcome.DEFECTS if rejects else 0)["rejects"] == rejects


def test_explain_prints_the_plan(cli: Cli) -> None:
    cli("build")
    shown = " ".join(cli("search", "export fails", "--entity", "beta", "--explain").split())
    assert re.search(
        r"plan: blocks of \d periods?; \d pruned; ranking exact; cold about \d+ GETs, [\d,]+ bytes in 3 round trips, "
        "without the tail",
        shown,
    )
    assert "plan: vectors of" in " ".join(cli("search", "export fails", "--explain").split())


def test_a_month_is_rolled_up_once(cli: Cli) -> None:
    cli("build")
    before = cli("timeline", "beta", "--json")
    (told,) = cli.json("rollup", "--month", "2026-03")["months"]
    assert (told["tenant"], told["state"], told["events"]) == ("acme", "due", 3)
    assert "no day changed since" in cli("rollup", "--month", "2026-03")
    assert "nothing of the month is built" in cli("rollup", "--month", "2026-02")
    assert orjson.loads(cli("timeline", "beta", "--json"))["events"] == orjson.loads(before)["events"]


def test_keys_are_shown_once_and_end(cli: Cli) -> None:
    made = cli.json("keys", "create", "--tenant", "acme", "--scope", "read", "--days", "1")
    assert made["token"].startswith(f"cp_{made['id']}_")
    assert made["token"] not in cli("keys", "list", "--json")
    ended = cli.json("keys", "revoke", made["id"])
    assert (ended["id"], ended["revoked"] is not None) == (made["id"], True)
    assert cli.json("keys", "list")["keys"] == [ended]
    assert cli("keys", "revoke", made["id"]) == f"{made['id']} is revoked\n"
    cli("keys", "revoke", "0" * 16, code=3)


def test_a_rotated_key_is_followed_by_one_like_it_and_all_of_it_is_audited(cli: Cli) -> None:
    """And the tenant that the first load made. Seen to fail with the audit left out of a rotation, and with a tenant
    that the process is said to have made."""
    old = cli.json("keys", "create", "--tenant", "acme", "--scope", "write", "--requests-per-s", "5", "--note", "ci")
    new = cli.json("keys", "rotate", old["id"], "--grace-hours", "1")
    assert {name for name in new if new[name] != old[name]} <= {"id", "token", "created"}
    listed = {key["id"]: key for key in cli.json("keys", "list")["keys"]}
    assert listed[old["id"]]["expires"] is not None
    assert listed[new["id"]]["expires"] is None
    calls = cli.json("audit", "--tenant", "acme")["calls"]
    assert {(call["action"], call["subject"]) for call in calls} >= {
        ("key_create", old["id"]), ("key_create", new["id"]), ("key_rotate", old["id"])
    }  # fmt: skip
    assert {call["actor"] for call in calls if call["subject"] == old["id"]} == {"command"}
    assert {call["actor"] for call in calls if call["action"] == "tenant_put"} == {"command"}
    written = cli.json("audit", "--tenant", "acme", "--writes")["batches"]
    assert {request["actor"] for batch in written for request in batch["requests"]} == {"command"}
    cli("audit", "--operator", "--writes", code=2)
    cli("audit", "--operator", "--tenant", "acme", code=2)


def test_a_tenant_of_the_environment_is_not_one_that_was_typed(tmp_path: Path) -> None:
    """Seen to fail with both options as they stand, whoever gave them: a flag alone erased the tenant."""
    made = Cli(tmp_path)
    (tmp_path / "one.jsonl").write_text(
        '{"entity": "acct-1", "ts": "2026-03-01T09:00:00Z", "source": "s", "kind": "note", "text": "x"}'
    )
    made("ingest", "one.jsonl", "--tenant", "acme")
    made.environment["CONTEXT_PLANE_TENANT"] = "acme"
    made("erase", "--whole-tenant", code=2)
    assert "acct-1" in made("entities")
    made("audit", "--operator")
    key = made.json("keys", "create", "--tenant", "acme", "--scope", "read")["id"]
    made("erase", "--whole-tenant", "--tenant", "acme")
    made("entities", code=3)
    calls = made.json("audit", "--tenant", "acme")["calls"]
    assert ("key_revoke", key) in {(call["action"], call["subject"]) for call in calls}, "it outlives the tenant"
    (batch,) = made.json("audit", "--tenant", "acme", "--writes")["batches"]
    assert batch["requests"][0]["actor"] == "command"
    made("keys", "create", "--tenant", "acme", "--scope", "read", code=outcome.EXIT_CODES[Conflict])
    made("audit", "--tenant", "nobody", code=3)


def test_erased_again_after_writes_they_go_too(tmp_path: Path) -> None:
    """The first request stays open, for a landed file holds the entity. Seen to fail with the open request carried out:
    it does not reach what was written since."""
    made = Cli(tmp_path)
    row = '{"entity": "acct-1", "ts": "2026-03-01T09:00:00Z", "source": "s", "kind": "note", "text": "%s"}'
    (tmp_path / "rows.jsonl").write_text(row % "one")
    made("ingest", "rows.jsonl", "--tenant", "acme")
    landed = tmp_path / "store/tenants/acme/landing/desk/2026/03/01/one.jsonl"
    landed.parent.mkdir(parents=True)
    landed.write_text(row % "one")
    made("erase", "acct-1", code=outcome.DEFECTS)
    (tmp_path / "rows.jsonl").write_text(row % "two")
    made("ingest", "rows.jsonl", "--tenant", "acme")
    landed.unlink()
    made("erase", "acct-1")
    assert made.json("entities")["entities"] == []


def test_a_request_that_fails_stops_no_other(tmp_path: Path) -> None:
    """Seen to fail with requests one after another. Where all fail, the first says why."""
    made = Cli(tmp_path)
    row = '{"entity": "acct-1", "ts": "2026-03-01T09:00:00Z", "source": "s", "kind": "note", "text": "one"}'
    (tmp_path / "rows.jsonl").write_text(row)
    made("ingest", "rows.jsonl", "--tenant", "acme")
    request = made.json("erase", "acct-1", "--later")["request"]
    bad = "0" * 32
    (tmp_path / f"store/tenants/acme/control/erasure-requests/{bad}.json").write_text("{}")
    told = made.json("erase", code=outcome.DEFECTS)
    assert [each["receipt"]["erasure"] for each in told["erasures"]] == [request]
    assert [(each["request"], each["code"]) for each in told["failed"]] == [(bad, "format_unknown")]
    made("erase", code=outcome.EXIT_CODES[Corrupt])


def test_an_erased_entity_is_gone_and_the_receipt_does_not_name_it(tmp_path: Path) -> None:
    made = Cli(tmp_path)
    (tmp_path / "rows.jsonl").write_text(
        '{"entity": "acct-1", "ts": "2026-03-01T09:00:00Z", "source": "s", "kind": "note", "text": "one"}\n'
        '{"entity": "acct-2", "ts": "2026-03-01T09:00:00Z", "source": "s", "kind": "note", "text": "two"}\n'
    )
    made("ingest", "rows.jsonl", "--tenant", "acme")
    request = made.json("erase", "acct-1", "--later")["request"]
    assert {item["entity"] for item in made.json("entities")["entities"]} == {"acct-1", "acct-2"}
    [done] = made.json("erase", "acct-1")["erasures"]
    assert (done["receipt"]["erasure"], done["problems"]) == (request, [])
    assert "acct-1" not in str(done)
    assert made.json("erase")["failed"] == []
    assert {item["entity"] for item in made.json("entities")["entities"]} == {"acct-2"}
    assert "no request is open" in made("erase")
    made("erase", "--later", code=2)


def test_bundles_that_wait_are_listed_let_through_and_dropped(tmp_path: Path) -> None:
    made = Cli(tmp_path)
    made.environment["CONTEXT_PLANE_BUNDLE_CHANGE_MAX"] = "0"
    days = ("--since", "2026-03-01", "--until", "2026-03-01")
    ends = (dt.datetime.now(dt.UTC) + dt.timedelta(days=1)).date().isoformat()

    def write(id: str, text: str) -> None:
        fields = {"entity": "acct-1", "id": id, "ts": f"2026-03-01T0{id}:00:00Z", "source": "s", "kind": "note"}
        (tmp_path / f"{id}.jsonl").write_bytes(orjson.dumps({**fields, "text": text}))
        made("ingest", f"{id}.jsonl", "--tenant", "acme")

    write("1", "the export fails")
    made("build")
    assert "nothing waits" in made("approve")
    write("2", "the export works again")
    assert "would change" in str(made.json("build", code=outcome.DEFECTS))
    [waiting] = made.json("approve")["waiting"]
    assert (waiting["spec"], waiting["day"], waiting["share"]) == ("customer_context_v0", "2026-03-01", 1.0)
    assert [(row["entity"], row["change"]) for row in waiting["entities"]] == [("acct-1", "changed")]
    assert "100.0%" in made("approve")
    assert "works again" not in made("context", "acct-1")
    made("approve", "customer_context_v0", *days, code=2)
    for end in ("2026-01-01", "9999-12-31"):
        made("approve", "customer_context_v0", *days, "--expires", end, code=2)
    made("approve", "nonsense_v0", *days, "--expires", ends, code=3)
    made("reject", "customer_context_v0", code=2)
    assert made.json("reject", "customer_context_v0", *days)["rejected"] == ["2026-03-01"]
    made("build", *days, code=outcome.DEFECTS)
    done = made.json("approve", "customer_context_v0", *days, "--expires", ends)
    assert done == {"committed": ["2026-03-01"], "rebuilt": []}
    assert "works again" in made("context", "acct-1")


def test_the_doctor_finds_nothing_to_mend(cli: Cli) -> None:
    told = cli.json("doctor")
    names = {finding["name"] for finding in told["findings"]}
    of_the_store = {"store", "permissions", "creates", "clock", "room"}
    assert names == {"settings", "versions", "cache", "model", "keys", "tenant acme"} | of_the_store
    assert told["ok"]
    assert [finding for finding in told["findings"] if finding["state"] == "fail"] == []


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("timeline", "nobody"), 3, "entity_not_found"),
        (("search", "x", "--tenant", "nope"), 3, "known: acme"),
        (("search", "x", "--where", '{"like": ["kind", "t"]}'), 2, "unknown operator"),
        (("search", "x", "--where", "{"), 2, "--where is not JSON"),
        (("search", "x", "--store", "ftp://x/y"), 2, "file, s3, gs, az"),
        (("build", "--since", "yesterday"), 2, "YYYY-MM-DD"),
        (("search", "x", "--until", "9999-12-31"), 2, "name an earlier day"),
        (("timeline", "acme", "--since", "9999-12-32"), 2, "YYYY-MM-DD"),
        (("rollup", "--month", "March"), 2, "YYYY-MM"),
        (
            ("ingest", "rows.csv", "--mapping", "desk.yaml", "--tenant", "acme", "--url", "http://127.0.0.1:9"),
            4,
            "running",
        ),
        (("keys", "create"), 2, "operator"),
        (("nonsense",), 2, "no such command 'nonsense'; see context-plane --help"),
        (("search",), 2, "missing argument 'TEXT'; see context-plane search --help"),
        (("search", "x", "--limt", "3"), 2, "--limit"),
        (("export", "--out", "no/such/folder/x"), 2, "no/such/folder/x: no such file or directory; mend the path"),
        (("verify", "--tenant", "nope"), 3, "tenant_not_found"),
        (("cost", "--tenant", "nope"), 3, "known: acme"),
        (("collect", "--snapshot-hours", "1"), 2, "24"),
    ],
)
def test_errors_are_one_line_that_says_what_to_do(cli: Cli, words: tuple[str, ...], code: int, says: str) -> None:
    assert cli(*words, code=code) == ""
    assert says in cli.error
    assert cli.error.startswith("context-plane: ")
    assert len(cli.error.strip().splitlines()) == 1


def test_a_traceback_is_shown_to_whoever_asks(cli: Cli) -> None:
    words = [*PROGRAM, "timeline", "nobody"]
    for asked, shown in (("1", True), ("0", False)):
        env = {**cli.environment, outcome.DEBUG: asked}
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 3
        assert ("Traceback" in done.stderr) == shown


def test_an_interrupt_that_comes_before_the_program_is_imported_ends_it_alike(cli: Cli) -> None:
    """Seen to fail (a traceback) with `commands.main` as the start."""
    script = """
import os, signal, sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
"""
    start = [PROGRAM[0], "-c", script + PROGRAM[-1]]
    done = subprocess.run(start, env=cli.environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (outcome.INTERRUPTED, "")


def test_what_is_printed_is_printed_as_it_is(tmp_path: Path) -> None:
    """Seen to fail with rich's markup and emoji on: `team`, and exit code 1."""
    made = Cli(tmp_path)
    row = '{{"entity": "{id}", "ts": "2026-03-01T09:00:00Z", "source": "s", "kind": "note", "text": "x"}}\n'
    names = ["a[/b]", "team[vip]", ":key:"]
    (tmp_path / "[r].jsonl").write_text("".join(row.format(id=name) for name in [*names, ""]))
    told = made("ingest", "[r].jsonl", "--tenant", "acme", "--rejects", "[no].jsonl", code=outcome.DEFECTS)
    assert "[r].jsonl" in told
    assert "every one is in [no].jsonl" in told
    assert {line.split()[0] for line in made("entities").splitlines()[1:]} == set(names)
    made("keys", "create", "--tenant", "acme", "--note", "ci[/x] [old]")
    assert "ci[/x] [old]" in made("keys", "list")


@pytest.mark.parametrize("words", [("entities",), ("entities", "--json"), ("export",)])
def test_a_reader_that_goes_away_is_no_defect(cli: Cli, words: tuple[str, ...]) -> None:
    """Seen to fail with the libraries' own code, 1, which means a defect."""
    process = subprocess.Popen(
        [*PROGRAM, *words], env=cli.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait(60) == outcome.PIPE_CLOSED
    assert process.stderr.read() == ""
    process.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is full")
@pytest.mark.parametrize("words", [("entities",), ("export",)])
def test_output_without_room_is_no_defect(cli: Cli, words: tuple[str, ...]) -> None:
    """Seen to fail with 1, and (120) with what is buffered left to the interpreter."""
    done = _redirected(cli, ">/dev/full", *words)
    assert (done.returncode, done.stdout) == (outcome.EXIT_CODES[Unavailable], "")
    assert done.stderr == "context-plane: output: no space left on device; make room, then run it again\n"


@pytest.mark.parametrize(
    ("redirection", "words", "code"),
    [(">&-", ("search", "export"), 0), ("2>&-", ("timeline", "nobody"), 3)],
)
def test_streams_that_are_closed_take_nothing(cli: Cli, redirection: str, words: tuple[str, ...], code: int) -> None:
    """Seen to fail (1) without a file in the place of standard output, and (the error on it) of standard error."""
    done = _redirected(cli, redirection, *words)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_an_error_that_nobody_reads_keeps_its_code(cli: Cli) -> None:
    """Seen to fail (1) with a line that has to be printed, and (120) with what is buffered left to the interpreter."""
    read, write = os.pipe()
    os.close(read)
    words = [*PROGRAM, "timeline", "nobody"]
    done = subprocess.run(words, env=cli.environment, stdout=write, stderr=write, check=False)
    os.close(write)
    assert done.returncode == 3


def _redirected(cli: Cli, redirection: str, *words: str) -> subprocess.CompletedProcess[str]:
    shell = ["sh", "-c", f'exec "$@" {redirection}', "sh", *PROGRAM, *words]
    return subprocess.run(shell, env=cli.environment, capture_output=True, text=True, check=False)


def test_every_family_of_errors_has_a_code_of_its_own() -> None:
    families = {family for family in PlaneError.__subclasses__() if family.__module__ == PlaneError.__module__}
    assert set(outcome.EXIT_CODES) == families
    assert len(set(outcome.EXIT_CODES.values())) == len(outcome.EXIT_CODES)


def test_the_documentation_tells_every_exit_code() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    codes = {int(code): meaning for code, meaning in re.findall(r"^\| (\d+) \| (.+) \|$", text, re.MULTILINE)}
    assert codes == dict(outcome.MEANINGS)


def test_help_imports_none_of_the_heavy_libraries() -> None:
    """Seen to fail with a module-level import of the engine's plane in a command."""
    script = (
        "import sys, commands.main; print([m for m in ('dagster', 'fastapi', 'numpy', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
