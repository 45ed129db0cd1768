"""What the demo prints: a line per step with its time, then the answer, its grounds and its price."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from commands import show

if TYPE_CHECKING:
    from commands.demo.stage import Wanted

USD_PER_GET: Final = 0.40e-6
"""S3 Standard, us-east-1: $0.0004 per 1,000 GETs."""
USD_PER_PUT_OR_LIST: Final = 5.0e-6
"""S3 Standard, us-east-1: $0.005 per 1,000 PUTs or LISTs."""
USD_PER_GB_MONTH: Final = 0.023
PLAYS: Final[Mapping[str, str]] = {"save": "call before the renewal", "expand": "offer the larger plan"}
PRICES: Final = "at S3 Standard prices in us-east-1: GET $0.40, PUT and LIST $5.00 a million, $0.023 a GB-month"
NAME_WIDTH: Final = 8


@dataclass(frozen=True, slots=True)
class Contact:
    """One customer worth contacting. `sources`: (event id, day, stored line) behind the reasons."""

    entity: str
    facts: Mapping[str, str]
    score: float
    play: str
    reasons: tuple[str, ...]
    sources: tuple[tuple[str, str, str], ...]

    def record(self) -> dict[str, Any]:
        sources = [{"id": event, "day": day, "stored": place} for event, day, place in self.sources]
        record = {"entity": self.entity, "play": self.play, "score": self.score, "reasons": list(self.reasons)}
        return {**record, "profile": dict(self.facts), "sources": sources}


@dataclass(frozen=True, slots=True)
class Cost:
    """Requests and bytes of the agent's run on empty caches; objects and bytes of the tenant."""

    gets: int
    lists: int
    bytes_read: int
    round_trips: int
    objects: int
    bytes_held: int


@dataclass(frozen=True, slots=True)
class Run:
    """The agent's run. `due`: the customers that deserve contact, by the stories they were invented from."""

    customers: int
    tokens: int
    seconds: float
    contacts: Sequence[Contact]
    due: Collection[str]
    cost: Cost
    saved: Path


@dataclass(slots=True)
class Step:
    text: str = ""

    def done(self, text: str) -> None:
        self.text = text


@dataclass(slots=True)
class Report:
    """Prints as things happen; `told` is the same for a program."""

    out: Console = field(default_factory=show.console)
    started_s: float = field(default_factory=time.perf_counter)
    told: dict[str, Any] = field(default_factory=lambda: {"steps": []})

    def opening(self, store_url: str) -> None:
        self.told["store"] = store_url
        self.out.print(Text.assemble(("\nContext Plane demo", "bold"), ("  over ", "dim"), (store_url, "dim")))
        self.out.print()

    @contextmanager
    def step(self, name: str, doing: str | None) -> Iterator[Step]:
        """A step with a spinner while it runs (None: it draws its own bar) and its time when it is done."""
        step = Step()
        started_s = time.perf_counter()
        if doing is None:
            yield step
        else:
            with self.out.status(f"{doing} …"):
                yield step
        self._line(name, step.text, time.perf_counter() - started_s)

    def line(self, name: str, text: str) -> None:
        self._line(name, text, None)

    def _line(self, name: str, text: str, seconds: float | None) -> None:
        self.told["steps"].append({"step": name, "told": text, "seconds": seconds})
        took = "" if seconds is None else f"  {seconds:.1f} s"
        self.out.print(
            Text.assemble(("✓ ", "green"), (name.ljust(NAME_WIDTH), "bold"), text, (took, "dim")), soft_wrap=True
        )

    def run(self, run: Run) -> None:
        out = self.out
        share = len(run.contacts) / run.customers
        out.print()
        out.print(
            Text.assemble(
                ("Worth contacting: ", "bold"),
                (f"{len(run.contacts)} of {run.customers:,} customers ({share:.1%})", f"bold {show.ACCENT}"),
            )
        )
        for play, headline in PLAYS.items():
            chosen = [contact for contact in run.contacts if contact.play == play]
            if chosen:
                out.print()
                out.print(_contacts(headline, chosen))
        out.print()
        self._grounds(run)

    def _grounds(self, run: Run) -> None:
        out = self.out
        found = sum(contact.entity in run.due for contact in run.contacts)
        precision = found / len(run.contacts) if run.contacts else 0.0
        recall = found / len(run.due) if run.due else 1.0
        cost = run.cost
        usd = cost.gets * USD_PER_GET + cost.lists * USD_PER_PUT_OR_LIST
        wrote = cost.objects * USD_PER_PUT_OR_LIST
        rest = cost.bytes_held / 1e9 * USD_PER_GB_MONTH
        self.told |= {"customers": run.customers, "tokens": run.tokens, "precision": precision, "recall": recall}
        self.told |= {"contacts": [contact.record() for contact in run.contacts], "cost": {**asdict(cost), "usd": usd}}
        rows = [
            (
                "against the truth",
                f"precision {precision:.2f}, recall {recall:.2f}: {found} of the {len(run.due)} customers "
                "that were invented to deserve it",
            ),
            ("read", f"{run.tokens:,} tokens, {run.tokens / run.customers:.0f} a customer, in {run.seconds:.2f} s"),
            (
                "asked of the store",
                f"{cost.gets:,} GETs, {show.count(cost.lists, 'LIST')}, {cost.bytes_read / 1e6:.1f} MB "
                f"in {cost.round_trips} round trips when every cache is empty",
            ),
            ("price of the run", f"${usd:.5f}"),
            (
                "price of the data",
                f"{cost.objects:,} objects, {cost.bytes_held / 1e6:.1f} MB: "
                f"${wrote:.2f} once to write, ${rest:.4f} a month to keep",
            ),
            ("", PRICES),
            ("all of it", f"{run.saved}: every reason with its sources"),
        ]
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column()
        for name, value in rows:
            grid.add_row(name, Text(value, style="" if name else "dim"))
        out.print(grid)
        if run.contacts and run.contacts[0].sources:
            event, day, place = run.contacts[0].sources[0]
            out.print()
            first = f"{run.contacts[0].entity}: event {event} of {day}"
            out.print(Text.assemble(("one citation, followed  ", "dim"), first))
            out.print(Text(f"  {place}", style="dim"), soft_wrap=True)

    def live(self, *, entity: str, question: str, place: int, citation: str, write_ms: float, search_ms: float) -> None:
        self.told["fresh"] = {"entity": entity, "place": place, "write_ms": write_ms, "search_ms": search_ms}
        out = self.out
        out.print()
        out.print(
            Text.assemble(
                ("Fresh without waiting: ", "bold"),
                f"a new ticket of {entity}, durable in {write_ms:.0f} ms, is hit {place} of the next search "
                f"“{question}” ({search_ms:.0f} ms) before anything is built",
            )
        )
        out.print(Text(f"  {citation}", style="dim"), soft_wrap=True)

    def closing(self, wanted: Wanted) -> None:
        out = self.out
        took = time.perf_counter() - self.started_s
        self.told |= {"tenant": wanted.tenant, "key_file": str(wanted.key_file), "seconds": took}
        out.print()
        out.print(Text.assemble((f"Done in {took:.0f} s. ", "bold"), "Look around:"))
        grid = Table.grid(padding=(0, 2))
        for command, meaning in (
            ("make up", "the explorer on http://127.0.0.1:8080 and the Dagster UI on :3000"),
            (f"context-plane context {self_example(wanted)}", "one customer's context, as a prompt takes it"),
            ('context-plane search "price too high"', "a question across all customers"),
            ("context-plane doctor", "is all well?"),
        ):
            grid.add_row(Text(f"  {command}", style=show.ACCENT), Text(meaning, style="dim"))
        out.print(grid)
        out.print(Text(f"  API key of tenant {wanted.tenant}: {wanted.key_file}", style="dim"))


def self_example(wanted: Wanted) -> str:
    return f"acct-{min(wanted.customers, 42):04d}"


def _contacts(headline: str, chosen: Sequence[Contact]) -> Table:
    made = Table(
        title=f"{headline} ({len(chosen)})",
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        header_style="dim",
    )
    made.add_column("customer", no_wrap=True, style=show.ACCENT)
    made.add_column("score", justify="right")
    made.add_column("why", overflow="fold")
    made.add_column("source", overflow="ellipsis", no_wrap=True, style="dim")
    for contact in chosen:
        event, day, _ = contact.sources[0] if contact.sources else ("", "", "")
        more = f" +{len(contact.sources) - 1}" if len(contact.sources) > 1 else ""
        name = contact.facts.get("account_name", "").removeprefix("name ")
        reasons = "; ".join(reason.partition(",")[0] for reason in contact.reasons)
        made.add_row(f"{contact.entity}  {name}", f"{contact.score:.1f}", reasons, f"{day[5:]} {event}{more}")
    return made
