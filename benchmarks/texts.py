"""Texts of one chunk each: HERB's own, or the demo grammar's; and as many more as are wanted, joined from them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from random import Random
from typing import Final, Literal, TypeAlias

from benchmarks import herb
from context_plane.demo import grammar, texts
from context_plane.index.chunker import WHOLE_CHARS_MAX, chunk

Source: TypeAlias = Literal["herb", "demo"]
DEMO_TEXTS: Final = 20_000
"""Drawn, of which some are equal: as many as HERB has pieces remain."""
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s+|\n+")


def pieces_of(seed: int) -> tuple[list[str], Source]:
    """Distinct texts of one chunk each, in a fixed order, and where they come from."""
    folder = herb.data_folder()
    if folder is None:
        return list(dict.fromkeys(_demo(Random(f"{seed}:demo")))), "demo"
    whole = (event.text or "" for product in herb.products(folder) for event in herb.events(folder, product))
    cut = (text[each.start : each.stop].strip() for text in whole for each in chunk(text))
    return list(dict.fromkeys(piece for piece in cut if piece)), "herb"


def joined(rng: Random, pieces: Sequence[str]) -> Iterator[str]:
    """Without end: sentences of random pieces, joined until they are as long as another piece."""
    sentences = [part for piece in pieces for part in _SENTENCE_END.split(piece) if part.strip()]
    lengths = [len(piece) for piece in pieces]
    while True:
        length, text = rng.choice(lengths), rng.choice(sentences)
        while len(text) < length:
            text = f"{text} {rng.choice(sentences)}"
        yield text[:WHOLE_CHARS_MAX].strip()


def _demo(rng: Random) -> Iterator[str]:
    for _ in range(DEMO_TEXTS):
        contact = texts.person(rng)
        facts = {
            "contact": contact,
            "first": contact.split()[0],
            "champion": texts.person(rng),
            "role": "IT Manager",
            "owner": rng.choice(("Sales", "Success", "Account manager")),
            "feature": rng.choice(grammar.FEATURES),
            "seats": str(rng.randrange(5, 500)),
            "active": str(rng.randrange(5, 500)),
            "amount": f"${rng.randrange(1_000, 90_000):,}",
        }
        yield texts.body(rng, rng.choice(sorted(grammar.SAID)), rng.choice(("email", "call", "meeting", "note")), facts)
