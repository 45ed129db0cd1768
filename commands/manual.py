"""The manual: an example or two for every command, and what its `--json` holds.

Shown by `--help`, written into docs/cli.md by `commands.reference`, and run by the tests, so that none can lag.
Examples are made for the store of `context-plane demo`; lines stay below 76 characters, for a narrow terminal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rich.markup import escape


@dataclass(frozen=True, slots=True)
class Entry:
    """`json`: the fields of the document. `inner`: what those that hold more are made of, in words."""

    examples: tuple[str, ...]
    json: tuple[str, ...]
    inner: str = ""


_KEY: Final = ("id", "tenant", "scopes", "created", "expires", "revoked", "requests_per_s", "bytes_per_s", "note")

ENTRIES: Final[Mapping[str, Entry]] = {
    "demo": Entry(
        ("context-plane demo --customers 60 --days 7",),
        (
            "store",
            "steps",
            "customers",
            "tokens",
            "precision",
            "recall",
            "contacts",
            "cost",
            "fresh",
            "tenant",
            "key_file",
            "seconds",
        ),
        "what is otherwise printed; `contacts` have `entity`, `play`, `score`, `reasons`, `profile`, `sources`",
    ),
    "up": Entry(("context-plane up --port 8080 --ui-port 3000",), ("url", "dagster", "store", "logs")),
    "serve": Entry(
        ("context-plane serve --workers 2",),
        ("url", "store", "workers", "keys"),
        "`keys`: whether API keys guard the store",
    ),
    "mcp": Entry(
        ("context-plane mcp --tenant demo", "context-plane mcp --url http://127.0.0.1:8080"),
        (),
        "none: it speaks MCP over standard input and output",
    ),
    "ingest": Entry(
        (
            "context-plane ingest events.jsonl --tenant demo",
            "context-plane ingest tickets.csv --mapping desk.yaml --tenant demo",
        ),
        ("tenant", "rows", "events", "rejects", "days", "rejected"),
        "`rejected` by `file`, `code`, `column`: `rows` and a `detail`",
    ),
    "build": Entry(
        ("context-plane build", "context-plane build --since 2026-03-01 --until 2026-03-31"),
        ("tenant", "days", "not_built", "seconds"),
        "`days` have `day`, `run_ids`, `seconds`, `events`, `rows`, `bundles`, `problems`; `not_built` (days without a "
        "partition) `day`, `problem`",
    ),
    "rollup": Entry(
        ("context-plane rollup --month 2026-03",),
        ("months",),
        "`months` have `tenant`, `month`, `state`, `days`, `events`; state `due` was rolled up now",
    ),
    "search": Entry(
        (
            'context-plane search "price too high" --limit 3',
            "context-plane search webhooks --entity acct-0042 --explain",
            """context-plane search export --where '{"eq": ["kind", "ticket_opened"]}'""",
        ),
        ("hits", "snapshot", "partial", "missing_days", "stats"),
        "as `POST …/search` answers; with `--explain` its `explain`, too",
    ),
    "context": Entry(
        ("context-plane context acct-0042", 'context-plane context acct-0042 --query "why might they leave?"'),
        (
            "as_of",
            "budget_tokens",
            "citations",
            "entity",
            "format",
            "sections",
            "signals",
            "spec",
            "spec_fingerprint",
            "tokens",
        ),
        "as `GET …/entities/{entity}/context` answers",
    ),
    "timeline": Entry(
        ("context-plane timeline acct-0042 --limit 5",),
        ("events", "cursor", "snapshot"),
        "as `GET …/timeline` answers",
    ),
    "entities": Entry(
        ("context-plane entities --prefix acct-00 --limit 5",),
        ("entities", "cursor", "snapshot"),
        "as `GET …/entities` answers",
    ),
    "snapshot": Entry(
        ("context-plane snapshot",),
        (
            "snapshot",
            "max_event_time",
            "days",
            "dirty_days",
            "pending_log_objects",
            "pending_events",
            "index_lag_s",
            "model",
            "bundles",
        ),
        "as `GET …/snapshot` answers",
    ),
    "export": Entry(("context-plane export --out events.ndjson",), (), "none: an export is NDJSON, an event a line"),
    "verify": Entry(
        ("context-plane verify --seed 7", "context-plane verify --all --embed-rows 0"),
        ("seed", "tenants", "failed"),
        "`tenants` have `tenant`, `mismatches`, `days`, `months`, `bundle_days`, `stale_bundle_days`, `events`, "
        "`rows`, `embedded`, `bytes`, and `findings` with `period`, `artefact`, `detail`; "
        "`failed` have `tenant`, `code`, `detail`",
    ),
    "collect": Entry(
        ("context-plane collect", "context-plane collect --delete --tenant demo"),
        ("dry_run", "tenants", "failed"),
        "`tenants` have `tenant`, `objects`, `bytes`, `spared`, and `kinds`: `objects` and `bytes` of each",
    ),
    "cost": Entry(
        ("context-plane cost", "context-plane cost --days 7 --reads 3"),
        ("store", "days", "prices", "tenants", "total", "lists"),
        "`tenants` (null: of no tenant) have `objects`, `bytes`, `puts`, `usd_kept_month`, `usd_puts`, the same for "
        "each of their `kinds`, and `reads`: `read`, `measured`, `gets`, `lists`, `bytes`, `round_trips`, `usd_1000`",
    ),
    "bench": Entry(
        ("context-plane bench", "context-plane bench startup --quick"),
        ("scenarios",),
        "`scenario` and what it `measures`; of a scenario, the result as benchmarks/results holds it",
    ),
    "doctor": Entry(
        ("context-plane doctor",),
        ("ok", "findings"),
        "`findings` have `name`, `state` (`ok`, `warn`, `fail`), `fact`, `means`, `advice`",
    ),
    "keys create": Entry(
        ("context-plane keys create --tenant demo --scope read --days 90",),
        (*_KEY, "token"),
    ),
    "keys list": Entry(("context-plane keys list",), ("keys",), f"`keys` have {', '.join(f'`{n}`' for n in _KEY)}"),
    "keys rotate": Entry(('context-plane keys rotate "$KEY_ID" --grace-hours 48',), (*_KEY, "token")),
    "keys revoke": Entry(('context-plane keys revoke "$KEY_ID"',), _KEY),
    "erase": Entry(
        ("context-plane erase acct-0042 --later", "context-plane erase"),
        ("erasures", "failed"),
        "an erasure is a `receipt` and `problems`, one that failed a `request`, `code` and `detail`; with `--later` "
        "the id of the `request` instead; with `--whole-tenant` the tenant's receipt",
    ),
    "approve": Entry(
        ("context-plane approve",),
        ("waiting",),
        "each a `spec` and `day`, `share`, `changes`, the key of its `table` and its `entities`; with SPEC the days "
        "`committed` as they waited and those `rebuilt` instead",
    ),
    "reject": Entry(("context-plane reject customer_context_v0 --since 2026-03-04",), ("rejected",)),
    "audit": Entry(
        ("context-plane audit --tenant demo --writes", "context-plane audit --tenant demo --since 2026-01-01"),
        ("calls",),
        "with `--writes` the `batches` instead",
    ),
}


def epilog(name: str) -> str:
    """What the help of a command ends with; "" for one that has no entry. Rich markup."""
    entry = ENTRIES.get(name)
    if entry is None:
        return ""
    lines = [f"[dim]$[/dim] {escape(example)}" for example in entry.examples]
    return "\n".join([f"[bold]{'Example' if len(lines) == 1 else 'Examples'}[/bold]", *lines])
