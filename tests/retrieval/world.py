"""Made events and a plain reading of the ranking rules: dicts and loops, no columns, no numpy scoring."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from context_plane.index.analyzer import term_counts
from context_plane.index.blocks import build_block, row_vectors, rows_to_embed
from context_plane.index.chunker import chunk
from context_plane.index.rows import F32, Rows
from context_plane.index.threads import bm25_texts
from context_plane.model import Event, day_start_us, parse_time, text_digest, unit

DIM = 8
FIRST_DAY = day_start_us("2026-03-01")
DAY_US = 86_400_000_000
VOCABULARY = """
export report invoice upgrade login crash slow billing seat renewal dashboard api webhook error team plan pricing
cancel trial onboarding integration sync data latency security audit contract discount champion churn
"""
WORDS = VOCABULARY.split()


def embed(texts: Sequence[str]) -> F32:
    """A made embedding: each distinct text gets its own random unit vector."""
    rows = [unit(np.random.default_rng(hash_of(text)).normal(size=DIM)) for text in texts]
    return np.array(rows, np.float32).reshape(len(rows), DIM)


def hash_of(text: str) -> int:
    return int.from_bytes(text_digest(text)[:8], "big")


def sentence(rng: random.Random, words: int) -> str:
    """Words with a skewed distribution, so that terms differ in rarity."""
    return " ".join(WORDS[min(int(rng.expovariate(0.12)), len(WORDS) - 1)] for _ in range(words))


def made_events(seed: int, count: int, *, days: int = 5, entities: int = 6) -> list[Event]:
    rng = random.Random(seed)
    events = []
    for n in range(count):
        kind = rng.choice(["ticket", "call", "usage", "message"])
        text: str | None = sentence(rng, rng.choice([3, 8, 20, 20, 400 if n % 17 == 0 else 30]))
        attrs: dict[str, Any] = {}
        if rng.random() < 0.7:
            attrs["seats"] = rng.choice([1, 5, 10, 10.5, 40, True, "10", None])
        if rng.random() < 0.6:
            attrs["tags"] = rng.sample(["export", "billing", "vip"], rng.randint(0, 3))
        if rng.random() < 0.5:
            attrs["plan"] = rng.choice(["pro", "team", "enterprise", "Pro*"])
        own = unit([rng.gauss(0, 1) for _ in range(DIM)]) if rng.random() < 0.1 else None
        if kind == "usage":
            text, own = None, None
        ts_us = FIRST_DAY + rng.randrange(days) * DAY_US + rng.randrange(24 * 60) * 60_000_000
        thread = rng.choice(["t1", "t2"]) if kind == "message" else None
        source = rng.choice(["zendesk", "gong", "slack"])
        events.append(
            Event(f"acct-{rng.randrange(entities):02}", ts_us, f"e{n}", source, kind, thread, text, attrs, own)
        )
    return events


def grouped(events: Sequence[Event]) -> dict[tuple[str, str], list[Event]]:
    """Events of each (day, entity), in order."""
    found = defaultdict(list)
    for event in events:
        found[event.day, event.entity].append(event)
    return {key: sorted(found[key], key=lambda event: event.order) for key in sorted(found)}


def block_of(events: Sequence[Event]) -> Rows:
    vectors = row_vectors(events, embed(rows_to_embed(events)), DIM)
    return build_block(events[0].entity, events[0].day, events, vectors)


# --- the plain reading --------------------------------------------------------------------------


@dataclass
class PlainRow:
    event: Event
    terms: dict[str, int]
    vector: list[float]


def plain_rows(events: Sequence[Event]) -> list[PlainRow]:
    rows = []
    for own in grouped(events).values():
        for event, whole in zip(own, bm25_texts(own), strict=True):
            texts = [event.text[c.start : c.stop] for c in chunk(event.text)] if event.text else [""]
            for text in texts:
                vector = event.vector
                if vector is None and text:
                    vector = embed([text])[0]
                indexed = (whole or "") if len(texts) == 1 else text
                rows.append(PlainRow(event, term_counts(indexed), [] if vector is None else vector.tolist()))
    return rows


def plain_bm25(rows: Sequence[PlainRow], terms: Sequence[tuple[str, int]]) -> list[float]:
    scored = [row for row in rows if row.terms]
    average = sum(sum(row.terms.values()) for row in scored) / max(1, len(scored)) or 1.0  # of rows without a term
    result = []
    for row in rows:
        total = 0.0
        for term, count in terms:
            df = sum(term in other.terms for other in scored)
            tf = row.terms.get(term, 0)
            idf = math.log(1 + (len(scored) - df + 0.5) / (df + 0.5))
            length = sum(row.terms.values())
            total += count * idf * tf / (tf + 0.9 * (1 - 0.4 + 0.4 * length / average))
        result.append(total)
    return result


def best_by_event(rows: Sequence[PlainRow], scores: Sequence[float], above: float) -> list[tuple[Event, float]]:
    """Events by their best row's score, in the order of results; those not above are left out."""
    best: dict[str, tuple[Event, float]] = {}
    for row, score in zip(rows, scores, strict=True):
        if score > above and (row.event.id not in best or score > best[row.event.id][1]):
            best[row.event.id] = (row.event, score)
    return sorted(best.values(), key=lambda pair: (-pair[1], -pair[0].ts_us, pair[0].entity, pair[0].id))


def plain_rank(
    events: Sequence[Event],
    terms: Sequence[tuple[str, int]],
    vector: F32,
    *,
    in_scope: Callable[[Event], bool],
    passes: Callable[[Event], bool],
    weights: tuple[float, float] = (0.8, 0.2),
    method: str = "relative_score",
) -> list[tuple[str, float, float | None, float | None]]:
    """(id, fused score, text score, vector score) of every event found, best first."""
    rows = [row for row in plain_rows(events) if in_scope(row.event)]
    kept = [passes(row.event) for row in rows]
    text_scores = [s if ok else 0.0 for s, ok in zip(plain_bm25(rows, terms), kept, strict=True)]
    text = best_by_event(rows, text_scores, 0.0)
    cosines = [sum(a * b for a, b in zip(row.vector, vector.tolist(), strict=False)) for row in rows]
    found = [c if ok and row.vector else -9.0 for row, c, ok in zip(rows, cosines, kept, strict=True)]
    near = best_by_event(rows, found, -8.0)
    total: dict[str, float] = defaultdict(float)
    for leg, weight in ((text, weights[0]), (near, weights[1])):
        best = max((score for _, score in leg), default=0.0)
        for rank, (event, score) in enumerate(leg, 1):
            relative = max(score, 0.0) / best if best > 0 else 0.0
            total[event.id] += weight * (relative if method == "relative_score" else 1 / (10 + rank))
    by_text, by_vector = {e.id: s for e, s in text}, {e.id: s for e, s in near}
    of = {event.id: event for event in events}
    order = sorted(total, key=lambda i: (-total[i], -of[i].ts_us, of[i].entity, i))
    return [(i, total[i], by_text.get(i), by_vector.get(i)) for i in order]


def plain_where(where: dict[str, Any], event: Event) -> bool:
    """The filter language, read off its description."""
    ((operator, operand),) = where.items()
    if operator in ("and", "or"):
        return (all if operator == "and" else any)(plain_where(part, event) for part in operand)
    if operator == "not":
        return not plain_where(operand, event)
    if operator == "exists":
        field, wanted = (operand, True) if isinstance(operand, str) else operand
        return (plain_value(field, event) is not None) == wanted
    field, operand = operand
    value = plain_value(field, event)
    if field == "ts":
        operand = [parse_time(each) for each in operand] if isinstance(operand, list) else parse_time(operand)
    return plain_test(operator, value, operand)


def plain_value(field: str, event: Event) -> Any:
    if field == "ts":
        return event.ts_us
    return (event.attrs or {}).get(field[6:]) if field.startswith("attrs.") else getattr(event, field)


def plain_test(operator: str, value: Any, operand: Any) -> bool:
    match operator:
        case "ne" | "nin":
            return not plain_test({"ne": "eq", "nin": "in"}[operator], value, operand)
        case "eq":
            return plain_type(value) == plain_type(operand) and value == operand
        case "in":
            return any(plain_test("eq", value, each) for each in operand)
        case "contains":
            return isinstance(value, str | list) and operand in value
        case "contains_any":
            return any(plain_test("contains", value, each) for each in operand)
        case "prefix":
            return isinstance(value, str) and value.startswith(operand)
        case "glob":
            return isinstance(value, str) and fnmatchcase(value, operand)
    if plain_type(value) != plain_type(operand) or plain_type(value) not in ("number", "string"):
        return False
    return bool(
        {"lt": value < operand, "lte": value <= operand, "gt": value > operand, "gte": value >= operand}[operator]
    )


def plain_type(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return {int: "number", float: "number", str: "string", list: "list"}.get(type(value), "none")
