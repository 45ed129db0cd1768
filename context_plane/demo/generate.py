"""Write the export of N invented customers over D days: CRM, support, usage and billing.

Files: `accounts.csv`, `crm_activities.jsonl`, `tickets.csv`, `ticket_messages.jsonl`, `usage_daily.parquet`,
`invoices.csv`, and `truth.json` (who deserves contact and why: for evaluation, no mapping takes it).
Same arguments, same bytes: every account draws from its own generator, seeded by (seed, account), so a
larger export contains the smaller one. Accounts are active on some days only; all they do falls there.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import orjson
import polars as pl

from context_plane.demo import grammar, texts
from context_plane.demo.stories import PLANS, STORIES, Story, Talk
from context_plane.errors import Invalid

CUSTOMERS_DEFAULT: Final = 1_000
DAYS_DEFAULT: Final = 30
CUSTOMERS_MAX: Final = 100_000
"""All rows are held in memory before they are written: about 1.5 KB an event."""
DAYS_MAX: Final = 730

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Summary:
    """Rows per file, and the customers that deserve contact."""

    rows: Mapping[str, int]
    contacts: int


@dataclass(frozen=True, slots=True)
class _Account:
    """One customer while its rows are made. `days`: its active days, ascending; never empty."""

    id: str
    rng: Random
    story: Story
    first: dt.date
    span: int
    days: Sequence[dt.date]
    plan: str
    seats: int
    fill: float
    facts: Mapping[str, str]
    role_of_contact: str


@dataclass(frozen=True, slots=True)
class _Tables:
    accounts: Rows = field(default_factory=list)
    activities: Rows = field(default_factory=list)
    tickets: Rows = field(default_factory=list)
    messages: Rows = field(default_factory=list)
    usage: Rows = field(default_factory=list)
    invoices: Rows = field(default_factory=list)
    truth: dict[str, dict[str, object]] = field(default_factory=dict)


def generate(
    folder: Path, *, until: dt.date, customers: int = CUSTOMERS_DEFAULT, days: int = DAYS_DEFAULT, seed: int = 7
) -> Summary:
    """Write the files into `folder` (made when absent), their last day being `until`. Blocking.

    Raises `Invalid(query_invalid)` for sizes out of range.
    """
    if not (1 <= customers <= CUSTOMERS_MAX and 7 <= days <= DAYS_MAX):
        detail = f"customers run from 1 to {CUSTOMERS_MAX}, days from 7 to {DAYS_MAX}"
        raise Invalid("query_invalid", detail, customers=customers, days=days)
    tables = _Tables()
    first = until - dt.timedelta(days=days - 1)
    for number, story_name in enumerate(_cast(customers, seed), start=1):
        account = _account(number, story_name, first, days, seed)
        tables.truth[account.id] = {"story": story_name, "contact": account.story.contact}
        _profile(account, tables)
        _usage(account, tables)
        _activities(account, tables)
        _tickets(account, tables)
        _invoices(account, tables)
    return _write(folder, tables)


def _cast(customers: int, seed: int) -> list[str]:
    """A story per account: shares hold within each block of 100, in a seeded order."""
    block = [name for name, story in STORIES.items() for _ in range(round(story.share))]
    cast: list[str] = []
    for number in range(-(-customers // len(block))):
        shuffled = list(block)
        Random(f"{seed}:cast:{number}").shuffle(shuffled)
        cast += shuffled
    return cast[:customers]


def _account(number: int, story_name: str, first: dt.date, span: int, seed: int) -> _Account:
    rng = Random(f"{seed}:{number}")
    story = STORIES[story_name]
    plan = rng.choices(list(PLANS), [50, 38, 12])[0]
    if story.contact:  # nobody upgrades from the largest plan, and a tiny account is not worth a rescue
        plan = "Growth"
    price, fewest, most = PLANS[plan]
    seats = rng.randint(fewest, most)
    contact, champion = texts.person(rng), texts.person(rng)
    role = rng.choice(("Head of Operations", "IT Manager", "Data Lead", "Finance Director", "Team Lead", "CTO"))
    facts = {
        "contact": contact,
        "first": contact.split()[0],
        "champion": champion,
        "role": role,
        "owner": rng.choice(("Sales", "Success", "Account manager")),
        "feature": rng.choice([name for name in grammar.FEATURES if name != "exports"]),
        "seats": str(seats),
        "active": str(round(seats * 0.97)),
        "amount": f"${price * seats:,}",
    }
    days = [
        day
        for offset in range(span)
        if rng.random() < story.activity * (1 if (day := first + dt.timedelta(days=offset)).weekday() < 5 else 0.12)
    ]
    fill = rng.uniform(*story.seat_fill)
    return _Account(f"acct-{number:04d}", rng, story, first, span, days or [first], plan, seats, fill, facts, role)


def _profile(account: _Account, tables: _Tables) -> None:
    rng, price = account.rng, PLANS[account.plan][0]
    since = account.first - dt.timedelta(days=rng.randint(40, 1_500))
    tables.accounts.append(
        {
            "account_id": account.id,
            "name": texts.company(rng),
            "industry": rng.choice(grammar.INDUSTRIES),
            "country": rng.choice(("US", "DE", "FR", "UK", "NL", "SE", "CA", "AU")),
            "plan": account.plan,
            "seats": account.seats,
            "mrr": price * account.seats,
            "customer_since": since.isoformat(),
            "renewal_on": (account.first + dt.timedelta(days=account.span + rng.randint(5, 330))).isoformat(),
            "contact": account.facts["contact"],
            "contact_role": account.role_of_contact,
            "updated_on": account.first.isoformat(),
        }
    )


def _usage(account: _Account, tables: _Tables) -> None:
    rng, story = account.rng, account.story
    per_seat = rng.uniform(6, 18)
    favourites = rng.sample(grammar.FEATURES, 3)
    exports_fail = "export_fails" in story.tickets
    for day in account.days:
        progress = (day - account.first).days / max(1, account.span - 1)
        level = story.slope**progress * rng.uniform(0.9, 1.1)
        # Seats fill more slowly than use grows: those who are there do more before others join.
        active = max(1, min(account.seats, round(account.seats * account.fill * level**0.45)))
        events = max(1, round(account.seats * account.fill * per_seat * level))
        shares = {"workspace": 1.0, **{name: rng.uniform(0.1, 0.5) for name in favourites[: rng.randint(1, 3)]}}
        for feature, share in shares.items():
            failing = exports_fail and feature in ("exports", "workspace") and progress > 0.3
            tables.usage.append(
                {
                    "account_id": account.id,
                    "date": day,
                    "feature": feature,
                    "active_seats": max(1, round(active * min(1.0, share + 0.3))),
                    "seats": account.seats,
                    "events": max(1, round(events * share)),
                    "errors": rng.randint(2, 9) if failing else int(rng.random() < 0.06),
                }
            )


def _activities(account: _Account, tables: _Tables) -> None:
    rng = account.rng
    for talk in account.story.talks:
        for _ in range(rng.randint(*talk.count)):
            number = len(tables.activities) + 1
            tables.activities.append(_activity(account, talk, rng.choice(talk.forms), number))


def _activity(account: _Account, talk: Talk, form: str, number: int) -> dict[str, Any]:
    rng = account.rng
    tags = [talk.tag] if rng.random() < 0.9 else []  # people forget to tag
    return {
        "activity_id": f"crm-{account.id[5:]}-{number}",
        "account_id": account.id,
        "at": _moment(account, _day(account, talk.start)),
        "type": form,
        "contact": {"name": account.facts["contact"], "role": account.role_of_contact},
        "subject": texts.subject(rng, talk.topic, account.facts),
        "body": texts.body(rng, talk.topic, form, account.facts),
        "tags": tags,
    }


def _tickets(account: _Account, tables: _Tables) -> None:
    for topic, (low, high) in account.story.tickets.items():
        for _ in range(account.rng.randint(low, high)):
            _ticket(account, topic, tables)


def _ticket(account: _Account, topic: str, tables: _Tables) -> None:
    rng, facts = account.rng, account.facts
    ticket_id = f"tk-{account.id[5:]}-{len(tables.tickets) + 1}"
    opened_on = _day(account, 0.3 if topic == "export_fails" else 0.0)
    opened = _moment(account, opened_on)
    later = [day for day in account.days if day > opened_on][:6]
    closed_on = rng.choice(later) if later and rng.random() < (0.4 if topic == "export_fails" else 0.85) else None
    category = {"export_fails": "export", "card_failed": "billing", "onboarding_stuck": "setup"}.get(topic, "question")
    tables.tickets.append(
        {
            "ticket_id": ticket_id,
            "account_id": account.id,
            "opened_at": opened,
            "closed_at": None if closed_on is None else f"{closed_on.isoformat()} {rng.randint(18, 21)}:15",
            "category": category,
            "priority": rng.choice(("high", "urgent") if topic == "export_fails" else ("low", "normal", "normal")),
            "subject": texts.subject(rng, topic, facts),
            "description": texts.expand(rng, rng.choice(grammar.GRAMMAR[topic]), facts),
            "satisfaction": rng.randint(3, 5) if closed_on is not None and rng.random() < 0.6 else None,
        }
    )
    for turn in range(rng.randint(1, 4)):
        by_support = turn % 2 == 0
        symbol = "support_reply" if by_support else "customer_reply"
        # Answers follow the question within its day; 12 minutes are the fastest turn.
        at = dt.datetime.fromisoformat(opened) + dt.timedelta(minutes=12 + 35 * turn + rng.randint(0, 20))
        tables.messages.append(
            {
                "message_id": f"{ticket_id}-{turn + 1}",
                "ticket_id": ticket_id,
                "at": at.isoformat(),
                "author": "Support" if by_support else facts["contact"],
                "author_role": "support" if by_support else account.role_of_contact,
                "body": texts.expand(rng, f"{{{symbol}}}", facts),
            }
        )


def _invoices(account: _Account, tables: _Tables) -> None:
    """One invoice every 30 days, on an active day near its due one; a failing account runs into dunning."""
    rng, price = account.rng, PLANS[account.plan][0]
    for month in range(-(-account.span // 30)):
        start = month * 30 / account.span
        issued = _day(account, start, min(1.0, start + 0.5))
        later = [day for day in account.days if day > issued]
        after = later[0] if later else issued
        fails = account.story.payment_fails
        paid = None if fails or (not later and rng.random() < 0.5) else after
        tables.invoices.append(
            {
                "invoice_id": f"inv-{account.id[5:]}-{month + 1}",
                "issued_on": issued.isoformat(),
                "account_id": account.id,
                "plan": account.plan,
                "seats": account.seats,
                "amount": f"{price * account.seats}.00",
                "status": "failed" if fails else "paid" if paid else "open",
                "paid_on": paid.isoformat() if paid else None,
                "failed_on": after.isoformat() if fails else None,
                "failure": rng.choice(("card_expired", "insufficient_funds", "card_declined")) if fails else None,
                "dunning_step": rng.randint(1, 3) if fails else None,
            }
        )


def _day(account: _Account, low: float, high: float = 1.0) -> dt.date:
    """An active day within fractions of the span; the nearest later, else last, active day when there is none."""
    inside = [day for day in account.days if low <= (day - account.first).days / account.span <= high]
    if inside:
        return account.rng.choice(inside)
    return next((day for day in account.days if (day - account.first).days / account.span >= low), account.days[-1])


def _moment(account: _Account, day: dt.date) -> str:
    """A time in office hours, early enough for the answers of the same day."""
    rng = account.rng
    return dt.datetime(day.year, day.month, day.day, rng.randint(7, 15), rng.randint(0, 59), tzinfo=dt.UTC).isoformat()


def _write(folder: Path, tables: _Tables) -> Summary:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "accounts.csv").write_bytes(_csv(tables.accounts))
    (folder / "tickets.csv").write_bytes(_csv(tables.tickets))
    (folder / "invoices.csv").write_bytes(_csv(tables.invoices))
    (folder / "crm_activities.jsonl").write_bytes(_jsonl(tables.activities))
    (folder / "ticket_messages.jsonl").write_bytes(_jsonl(tables.messages))
    pl.DataFrame(tables.usage).write_parquet(folder / "usage_daily.parquet", compression="zstd")
    (folder / "truth.json").write_bytes(orjson.dumps(tables.truth, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
    rows = {
        "accounts.csv": len(tables.accounts),
        "crm_activities.jsonl": len(tables.activities),
        "invoices.csv": len(tables.invoices),
        "ticket_messages.jsonl": len(tables.messages),
        "tickets.csv": len(tables.tickets),
        "usage_daily.parquet": len(tables.usage),
    }
    return Summary(rows, sum(bool(truth["contact"]) for truth in tables.truth.values()))


def _csv(rows: Rows) -> bytes:
    out = io.StringIO()
    if rows:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return out.getvalue().encode()


def _jsonl(rows: Rows) -> bytes:
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
