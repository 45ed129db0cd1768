"""What a build of a day's bundles changes, entity by entity, beside the bundles that it replaces. Pure. Format 1.

Digests and tokens of all bundles are compared, and the bytes of the first `COMPARED_MAX` that changed: a section
counts as changed when its items do, with the events they cite; the place of a citation in its list does not count.
The table is canonical JSON under zstd and names entities: it lies under the tenant and goes with an erasure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, Protocol

import orjson

from context_plane.catalog.manifest import BundleChanges
from context_plane.errors import Corrupt
from context_plane.layout.compression import compress, decompress
from context_plane.model import canonical_json

FORMAT: Final = 1
COMPARED_MAX: Final = 10_000
"""Changed bundles whose bytes are compared, and entities of a table: seconds, and what a person can search."""
TABLE_BYTES_MAX: Final = 64 * 1024 * 1024
SIGNALS: Final = "signals"


class Made(Protocol):
    """What is known of a bundle without its bytes."""

    @property
    def digest(self) -> str: ...
    @property
    def tokens(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Difference:
    """One entity whose bundle is new, gone, or of other bytes. `fields` and citations are of changed ones that were
    compared."""

    entity: str
    change: Literal["added", "removed", "changed"]
    tokens_before: int = 0
    tokens_after: int = 0
    fields: tuple[str, ...] = ()
    citations_added: int = 0
    citations_removed: int = 0


@dataclass(frozen=True, slots=True)
class Compared:
    """All differences, ascending by entity, and how many entities there are on either side, with their tokens."""

    differences: tuple[Difference, ...]
    unchanged: int
    tokens_before: int
    tokens_after: int

    @property
    def to_compare(self) -> list[str]:
        """Entities whose bytes tell more."""
        return [each.entity for each in self.differences if each.change == "changed"][:COMPARED_MAX]

    def with_details(self, details: Mapping[str, Difference]) -> Compared:
        return replace(self, differences=tuple(details.get(each.entity, each) for each in self.differences))

    def changes(self, compared: int) -> BundleChanges:
        """The counts. `compared`: changed bundles whose bytes were read."""
        kinds = Counter(each.change for each in self.differences)
        fields = Counter(name for each in self.differences for name in each.fields)
        return BundleChanges(
            added=kinds["added"],
            removed=kinds["removed"],
            changed=kinds["changed"],
            unchanged=self.unchanged,
            compared=compared,
            fields=dict(sorted(fields.items())),
            tokens_before=self.tokens_before,
            tokens_after=self.tokens_after,
            citations_added=sum(each.citations_added for each in self.differences),
            citations_removed=sum(each.citations_removed for each in self.differences),
        )


def differences(before: Mapping[str, Made], after: Mapping[str, Made]) -> Compared:
    """By entity, from digests and tokens."""
    found = []
    for entity in sorted(before.keys() | after.keys()):
        old, new = before.get(entity), after.get(entity)
        if old is None and new is not None:
            found.append(Difference(entity, "added", 0, new.tokens))
        elif new is None and old is not None:
            found.append(Difference(entity, "removed", old.tokens, 0))
        elif old is not None and new is not None and old.digest != new.digest:
            found.append(Difference(entity, "changed", old.tokens, new.tokens))
    return Compared(
        differences=tuple(found),
        unchanged=len(before.keys() & after.keys()) - sum(each.change == "changed" for each in found),
        tokens_before=sum(each.tokens for each in before.values()),
        tokens_after=sum(each.tokens for each in after.values()),
    )


def compare_bytes(difference: Difference, before: bytes, after: bytes) -> Difference:
    """A changed bundle with what of it changed. `before`, `after`: canonical JSON of both bundles."""
    old, new = orjson.loads(before), orjson.loads(after)
    old_cited, new_cited = _cited(old), _cited(new)
    return replace(
        difference,
        fields=tuple(sorted(_changed_fields(old, new))),
        citations_added=len(new_cited - old_cited),
        citations_removed=len(old_cited - new_cited),
    )


def _cited(body: Mapping[str, Any]) -> set[tuple[str, ...]]:
    return {_event(cited) for cited in body["citations"]}


def _event(cited: Mapping[str, str]) -> tuple[str, ...]:
    return cited["day"], cited["id"], cited["digest"]


def _changed_fields(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[str]:
    old, new = _sections(before), _sections(after)
    changed = [name for name in old.keys() | new.keys() if old.get(name) != new.get(name)]
    return [*changed, SIGNALS] if before[SIGNALS] != after[SIGNALS] else changed


def _sections(body: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Section -> its items, each with the events it cites."""
    cited = [_event(each) for each in body["citations"]]
    return {
        section["name"]: [
            {**item, "citations": [cited[number - 1] for number in item["citations"]]} for item in section["items"]
        ]
        for section in body["sections"]
    }


# --- the table ----------------------------------------------------------------------------------


def encode_table(spec: str, day: str, changes: BundleChanges, rows: Sequence[Difference]) -> bytes:
    """As stored: the counts, and the first `COMPARED_MAX` entities that differ."""
    listed = [asdict(row) for row in rows[:COMPARED_MAX]]
    head = {"format": FORMAT, "spec": spec, "as_of": day, "differences": len(rows)}
    return compress(canonical_json({**head, "changes": changes.model_dump(), "entities": listed}))


def decode_table(stored: bytes) -> dict[str, Any]:
    """Raises `Corrupt(format_unknown)` for another format version."""
    table: dict[str, Any] = orjson.loads(decompress(stored, size_max=TABLE_BYTES_MAX))
    if table.get("format") != FORMAT:
        raise Corrupt("format_unknown", "a table of changed bundles is of another format; upgrade this process")
    return table
