"""Bars: what the project promised to reach, and the judgement of committed results against it. Pure.

A bar is a value; `judge(results)` gives one verdict for each row of a result that a bar speaks of, so two cases
of one scenario are two verdicts, and nothing is averaged away. A bar that no row speaks of is `not measured`,
never met. Only rows of `context-plane` over HTTP with `eventual` consistency are held against latencies; only
rows of the same case, in process, are held against peers, and a peer counts at recall@10 >= 0.95.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

from benchmarks.scenario import Row

OURS: Final = "context-plane"
RECALL_COUNTS: Final = 0.95
"""A peer that finds less of its own exact ranking answers another question."""
WARM: Final = ("vector_warm", "text_warm", "hybrid_warm", "vector_100k", "hybrid_filters")
SLOW_PEERS: Final = ("lancedb", "chroma")
SLOW_PEER_FACTOR: Final = 3.0
BUNDLE_RATIO_MIN: Final = 0.60
MEMORY_RATIO_MAX: Final = 1.25
UNIT_MS_MAX: Final = 50
ANN_RECALL_MIN: Final = 0.97
PROPOSED: Final = ("ann", "tenant_1m")
"""Scenarios whose rows an index proposes, which are held against the bar of approximate searches."""
EXACT_RECALL_MIN: Final = 0.995
QUALITY_LOSS_MAX: Final = 0.005
"""Each leg within 0.005 of brute force."""
STALLED_FACTOR: Final = 1.5
STALLED_GETS: Final = 1.1
"""What a store that stalls now and then may add to a cold read's p99, and to its requests."""

State: TypeAlias = Literal["met", "missed", "not measured"]
Results: TypeAlias = Mapping[str, Sequence[Row]]
"""Scenario -> rows."""


@dataclass(frozen=True, slots=True)
class Bar:
    """At most these, over HTTP; None is not asked. Round trips and GETs are those of the dearest answer."""

    scenario: str
    p50_ms: float
    p99_ms: float
    round_trips: float | None = None
    gets: float | None = None
    case: str = ""
    """Regular expression that a row's case must contain."""
    but: str | None = None
    """... and must not."""
    goal: bool = False
    """Reported rather than promised."""
    prototype: str = "–"
    """p50 / p99 of the prototype that this project answers."""
    label: str = "all"
    """What it is called while nothing was measured."""

    def speaks(self, case: str) -> bool:
        return bool(re.search(self.case, case)) and not (self.but and re.search(self.but, case))


@dataclass(frozen=True, slots=True)
class Verdict:
    scenario: str
    what: str
    asked: str
    measured: str
    state: State
    goal: bool = False
    prototype: str = "–"


STALL: Final = r"stall"
COLD: Final = r"cold"


def _stalled(bar: Bar, p99_ms: float | None = None) -> Bar:
    """The bar of the same read where the store stalls."""
    assert bar.gets is not None
    gets, p99_ms = int(bar.gets * STALLED_GETS), p99_ms or bar.p99_ms * STALLED_FACTOR
    label = f"{bar.label}, stalls"
    case = bar.case + r".*stall"
    return replace(bar, p99_ms=p99_ms, gets=gets, case=case, but=None, label=label, prototype="–")


_ONE_DAY: Final = Bar("entity_cold", 260, 340, 4, 6, case=r"(?<!\d)1\D*day", but=STALL, label="1 day")
_MONTH: Final = Bar("entity_cold", 320, 450, 4, 64, case=r"(?<!\d)30\D*day", but=STALL, label="30 days")
_YEAR: Final = Bar("entity_cold", 350, 500, 4, 90, case=r"365", but=STALL, label="365 days")
_HYBRID: Final = Bar("hybrid_cold", 320, 450, 4, 64, but=STALL, prototype="71 / 28,700")
BARS: Final = (
    Bar("vector_warm", 1.5, 5, prototype="2.80 / 15.2"),
    Bar("text_warm", 1.5, 5, prototype="4.74 / 18.2"),
    Bar("hybrid_warm", 2.5, 8, prototype="27.7 / 130"),
    _HYBRID,
    _stalled(_HYBRID, 700),
    Bar("vector_100k", 2.0, 7, prototype="2.54 / 18.9"),
    Bar("hybrid_filters", 4.0, 15, prototype="4.00 / 630"),
    Bar("bundle_cold", 190, 260, 3, 4, but=STALL),
    Bar("bundle_cold", 190, 260 * STALLED_FACTOR, case=STALL, label="with stalls"),
    Bar("fleet", 1000, 1000, case=r"10,000.*warm", label="10,000 bundles, warm"),
    Bar("fleet", 3000, 3000, case=r"10,000.*cold", label="10,000 bundles, cold"),
    *(bar for each in (_ONE_DAY, _MONTH, _YEAR) for bar in (each, _stalled(each))),
    Bar("tenant_cold", 700, 1000, 4, 150, but=STALL, goal=True),
    Bar("tenant_1m", 14, 27, case=r"hybrid", but=COLD, goal=True, label="hybrid, warm"),
    Bar("tenant_1m", 870, 1600, 4, 150, case=COLD, goal=True, label="cold"),
)


def judge(results: Results) -> list[Verdict]:
    """Every verdict, in the order of the bars."""
    found = [verdict for bar in BARS for verdict in _latency(bar, results.get(bar.scenario, ()))]
    found += [verdict for name in WARM for verdict in _peers(name, results.get(name, ()))]
    found += _bundle(results.get("bundle_warm", ()))
    found += _build(results.get("build", ()))
    found += _tenants(results.get("tenants", ()))
    found += _quality(results.get("quality", ()))
    exact = (*WARM, "tenant_cold")
    found += [verdict for name in exact for verdict in _recall(name, results.get(name, ()), EXACT_RECALL_MIN)]
    return found + [verdict for name in PROPOSED for verdict in _recall(name, results.get(name, ()), ANN_RECALL_MIN)]


# --- latency ------------------------------------------------------------------------------------


def _latency(bar: Bar, rows: Sequence[Row]) -> Iterator[Verdict]:
    asked = f"{shown(bar.p50_ms)} / {shown(bar.p99_ms)} ms"
    if bar.round_trips is not None and bar.gets is not None:
        asked += f", {shown(bar.round_trips)} round trips, {shown(bar.gets)} GETs"
    spoken = [
        row for row in rows if over_http(row) and number(row, "p50_ms") is not None and bar.speaks(str(row["case"]))
    ]
    if not spoken:
        yield Verdict(bar.scenario, bar.label, asked, "–", "not measured", bar.goal, bar.prototype)
    for row in spoken:
        pairs = [(most_of(row, name), getattr(bar, name)) for name in ("p50_ms", "p99_ms", "round_trips", "gets")]
        wanted = [(got, most) for got, most in pairs if most is not None]
        known = [(got, most) for got, most in wanted if got is not None]
        state: State = "missed" if any(got > most for got, most in known) else "met"
        if state == "met" and len(known) < len(wanted):
            state = "not measured"
        measured = f"{shown(number(row, 'p50_ms'))} / {shown(number(row, 'p99_ms'))} ms"
        if bar.gets is not None:
            measured += f", {shown(most_of(row, 'round_trips'))} round trips, {shown(most_of(row, 'gets'))} GETs"
        yield Verdict(bar.scenario, str(row["case"]), asked, measured, state, bar.goal, bar.prototype)


def over_http(row: Row) -> bool:
    """One of our own rows that a latency bar may be held against."""
    where, consistency = row.get("where", "http"), row.get("consistency", "eventual")
    return row.get("system") == OURS and where == "http" and consistency == "eventual"


# --- peers --------------------------------------------------------------------------------------


def _peers(scenario: str, rows: Sequence[Row]) -> Iterator[Verdict]:
    asked = "p50 in process no slower than the fastest peer that counts"
    asked_slow = f"at least {shown(SLOW_PEER_FACTOR)}× faster at p50 than {{}}"
    cases = dict.fromkeys(str(row["case"]) for row in rows)
    pairs = [(case, _of_case(rows, case)) for case in cases]
    compared = [(case, own) for case, own in pairs if _in_process(own) is not None and any(counting(own))]
    if not compared:
        yield Verdict(scenario, "peers", asked, "–", "not measured")
    for case, own in compared:
        ours = _in_process(own)
        assert ours is not None
        p50, name = min((_p50(row), str(row["system"])) for row in counting(own))
        measured = f"{shown(ours)} ms beside {shown(p50)} ms ({name})"
        yield Verdict(scenario, f"{case}, peers", asked, measured, "met" if ours <= p50 else "missed")
        for row in counting(own):
            if any(slow in str(row["system"]).lower() for slow in SLOW_PEERS):
                factor = _p50(row) / ours if ours else float("inf")
                said = f"{shown(factor)}× ({shown(ours)} ms beside {shown(_p50(row))} ms)"
                state: State = "met" if factor >= SLOW_PEER_FACTOR else "missed"
                yield Verdict(scenario, f"{case}, {row['system']}", asked_slow.format(row["system"]), said, state)


def _of_case(rows: Sequence[Row], case: str) -> list[Row]:
    return [row for row in rows if row["case"] == case]


def _in_process(rows: Sequence[Row]) -> float | None:
    own = [_p50(r) for r in rows if r["system"] == OURS and r.get("where") == "in_process" and number(r, "p50_ms")]
    return max(own, default=None)


def counting(rows: Sequence[Row]) -> Iterator[Row]:
    """The peers that answered the same question: timed, and with a recall that counts."""
    for row in rows:
        recall = number(row, "recall_at_10")
        timed = number(row, "p50_ms") is not None
        if row["system"] != OURS and timed and recall is not None and recall >= RECALL_COUNTS:
            yield row


def _p50(row: Row) -> float:
    value = number(row, "p50_ms")
    assert value is not None
    return value


# --- bundles, builds, recall --------------------------------------------------------------------


def _bundle(rows: Sequence[Row]) -> list[Verdict]:
    """Per case that both have."""
    asked = f"at least {BUNDLE_RATIO_MIN:.0%} of the requests a second of a bare app that sends the same bytes"
    found: list[Verdict] = []
    for case in dict.fromkeys(str(row["case"]) for row in rows):
        own = _rates(rows, case, "saturation_qps", lambda system: system == OURS)
        bare = _rates(rows, case, "saturation_qps", lambda system: "bare" in system)
        if own and bare:
            share = min(own) / max(bare)
            measured = f"{share:.0%} ({shown(min(own))} of {shown(max(bare))})"
            state: State = "met" if share >= BUNDLE_RATIO_MIN else "missed"
            found.append(Verdict("bundle_warm", case, asked, measured, state))
    return found or [Verdict("bundle_warm", "beside a bare app", asked, "–", "not measured")]


def _build(rows: Sequence[Row]) -> list[Verdict]:
    """Per number of entities that both have built: events a second, embedding excluded on both sides."""
    asked = "no slower than LanceDB's ingest, text and vector index of the same rows"
    found: list[Verdict] = []
    for entities in dict.fromkeys(row.get("entities") for row in rows):
        alike = [row for row in rows if row.get("entities") == entities]
        own = _whole(alike, "build", lambda system: system == OURS)
        other = _whole(alike, "indexes", lambda system: "lancedb" in system.lower())
        if own and other:
            measured = f"{shown(min(own))} events/s beside {shown(max(other))}"
            state: State = "met" if min(own) >= max(other) else "missed"
            found.append(Verdict("build", f"{shown(entities)} entities", asked, measured, state))
    found = found or [Verdict("build", "beside LanceDB", asked, "–", "not measured")]
    asked = f"at most {MEMORY_RATIO_MAX} times"
    ratios = [(str(row["case"]), value) for row in rows if (value := number(row, "ratio_of_peak")) is not None]
    found += [
        Verdict("build", case, asked, shown(value), "met" if value <= MEMORY_RATIO_MAX else "missed")
        for case, value in ratios
    ]
    return found if ratios else [*found, Verdict("build", "memory", asked, "–", "not measured")]


def _whole(rows: Sequence[Row], case: str, of: Callable[[str], bool]) -> list[float]:
    """Events a second of the rows that tell of the whole, not of one artefact."""
    names = [str(row["case"]) for row in rows if str(row["case"]).startswith(case)]
    return [rate for name in names for rate in _rates(rows, name, "events_per_s", of)]


def _quality(rows: Sequence[Row]) -> list[Verdict]:
    """Each leg beside brute force over the same rows."""
    asked = f"nDCG@10 within {QUALITY_LOSS_MAX} of brute force, recall@10 at least {EXACT_RECALL_MIN}"
    found: list[Verdict] = []
    means = {str(row["system"]): row for row in rows if row["case"] == "all"}
    for leg in ("text", "vector"):
        own, wanted = means.get(leg, {}), means.get(f"{leg}_brute_force", {})
        got, best, recall = number(own, "ndcg_at_10"), number(wanted, "ndcg_at_10"), number(own, "recall_at_10")
        if got is None or best is None or recall is None:
            found.append(Verdict("quality", leg, asked, "–", "not measured"))
            continue
        state: State = "met" if abs(got - best) <= QUALITY_LOSS_MAX and recall >= EXACT_RECALL_MIN else "missed"
        found.append(Verdict("quality", leg, asked, f"{got:.4f} beside {best:.4f}, recall {recall:.4f}", state))
    return found


def _tenants(rows: Sequence[Row]) -> list[Verdict]:
    """Memory beside that of a tenth of the tenants, and what a unit costs by itself."""
    bars = (
        ("ratio_of_peak", f"at most {MEMORY_RATIO_MAX} times", MEMORY_RATIO_MAX),
        ("ratio_of_worker_peak", f"at most {MEMORY_RATIO_MAX} times, of a worker", MEMORY_RATIO_MAX),
        ("ms_per_unit", f"less than {UNIT_MS_MAX} ms", UNIT_MS_MAX),
    )
    found = [
        Verdict("tenants", str(row["case"]), asked, shown(value), "met" if value <= most else "missed")
        for name, asked, most in bars
        for row in rows
        if (value := number(row, name)) is not None
    ]
    return found or [Verdict("tenants", "memory, and a unit's cost", "bounded", "–", "not measured")]


def _rates(rows: Iterable[Row], case: str, name: str, of: Callable[[str], bool]) -> list[float]:
    own = (number(row, name) for row in rows if row["case"] == case and of(str(row["system"])))
    return [rate for rate in own if rate is not None]


def _recall(scenario: str, rows: Sequence[Row], least: float) -> list[Verdict]:
    asked = f"recall@10 at least {least}"
    own = [(row, number(row, "recall_at_10")) for row in rows if row["system"] == OURS]
    worst: dict[str, float] = {}
    for row, recall in own:
        if recall is not None:
            worst[str(row["case"])] = min(recall, worst.get(str(row["case"]), 1.0))
    return [
        Verdict(scenario, f"{case}, recall", asked, f"{recall:.4f}", "met" if recall >= least else "missed")
        for case, recall in worst.items()
    ] or [Verdict(scenario, "recall", asked, "–", "not measured")]


# --- values -------------------------------------------------------------------------------------


def number(row: Row, name: str) -> float | None:
    value: Any = row.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def most_of(row: Row, name: str) -> float | None:
    """The dearest answer's, where the row has it beside the mean."""
    most = number(row, f"{name}_max")
    return number(row, name) if most is None else most


def shown(value: float | None) -> str:
    """Three significant digits, thousands apart: 0.123, 1.23, 12.3, 123, 1,234."""
    if value is None:
        return "–"
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 1 else f"{value:.3f}"
