"""What the invented customers say: the grammar, expanded with a seeded generator.

A symbol `{name}` becomes a fact of the account or one of its alternatives in `GRAMMAR`, which may hold
symbols again. A few dozen fragments make thousands of distinct sentences.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from random import Random
from typing import Final

from context_plane.demo.grammar import CODAS, FIRST_NAMES, GRAMMAR, MIDDLES, ONSETS, SAID, SUBJECTS, TRADES

EXPANSIONS_MAX: Final = 64
"""Symbols expanded in one text; a grammar that loops is stopped here."""

_SYMBOL: Final = re.compile(r"\{(\w+)\}")
_SENTENCE: Final = re.compile(r"(?:^|(?<=[.!?] ))[a-z]")


def expand(rng: Random, text: str, facts: Mapping[str, str]) -> str:
    """`text` with every symbol replaced, facts first; each choice is one draw of `rng`."""
    for _ in range(EXPANSIONS_MAX):
        match = _SYMBOL.search(text)
        if match is None:
            return _SENTENCE.sub(lambda start: start[0].upper(), text)
        name = match[1]
        chosen = facts[name] if name in facts else rng.choice(GRAMMAR[name])
        text = text[: match.start()] + chosen + text[match.end() :]
    raise AssertionError(f"the grammar does not end: {text[:80]}")


def person(rng: Random) -> str:
    return f"{rng.choice(FIRST_NAMES)} {rng.choice(ONSETS)}{rng.choice(MIDDLES)}{rng.choice(CODAS)}"


def company(rng: Random) -> str:
    return f"{rng.choice(ONSETS)}{rng.choice(MIDDLES)}{rng.choice(CODAS)} {rng.choice(TRADES)}"


def body(rng: Random, topic: str, form: str, facts: Mapping[str, str]) -> str:
    """The text of a call, email, meeting or note about `topic`; emails and calls quote the customer."""
    match form:
        case "email":
            said = expand(rng, rng.choice(SAID[topic]), facts)
            return f"{expand(rng, '{hello}', facts)},\n{said} {expand(rng, '{thanks}', facts)}"
        case "call":
            note = expand(rng, rng.choice(GRAMMAR[topic]), facts)
            said = expand(rng, rng.choice(SAID[topic]), facts)
            return (
                f"Call of {rng.randint(6, 45)} minutes with {facts['contact']} ({facts['role']}). {note}\n"
                f"{facts['owner']}: {expand(rng, '{prompt}', facts)}\n{facts['first']}: {said}"
            )
        case "meeting":
            note = expand(rng, rng.choice(GRAMMAR[topic]), facts)
            group = rng.choice(GRAMMAR["group"])
            return f"Meeting with {facts['contact']} ({facts['role']}) and somebody from {group}. {note}"
        case _:
            return expand(rng, rng.choice(GRAMMAR[topic]), facts)


def subject(rng: Random, topic: str, facts: Mapping[str, str]) -> str:
    return expand(rng, rng.choice(SUBJECTS[topic]), facts)
