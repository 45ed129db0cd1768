"""Objects written by earlier versions stay readable, and today's code gives them the same content digest.

A golden file is never rewritten: a change of format is a new version beside it.
Seen to fail with a header field renamed, with keys unsorted, and with another digest rule.
"""

from __future__ import annotations

from context_plane.catalog import manifest
from context_plane.layout import batch, pack, segment
from context_plane.model import event_record
from tests.catalog.values import full_manifest
from tests.golden.content import BATCH, BLOCKS, DAY, ENTITY, EVENTS, FILES, MANIFEST, PACK, SECTIONS, SEGMENT, WRITES

SEGMENT_DIGEST = "946a9a98e8a64e36e74ae1c11685f160a23a7b14aed1fa3f260b73c6c8529845"
PACK_DIGEST = "645cc21d68664b0b43c434414eb6543a4b102305b5ef6343a1c3d1eeb2e7b2fd"


def test_a_segment_of_format_1() -> None:
    events = segment.decode((FILES / SEGMENT).read_bytes(), digest=SEGMENT_DIGEST)
    assert [event_record(event) for event in events] == [event_record(event) for event in EVENTS]
    assert segment.encode(ENTITY, DAY, events).digest == SEGMENT_DIGEST


def test_a_batch_of_format_1() -> None:
    stored = (FILES / BATCH).read_bytes()
    header, offset = batch.decode_header(stored)
    body = batch.decode_body(header, stored[offset:])
    assert (header.writer, header.created_us, header.visible, header.requests) == ("w-1", 7, "now", ("r-1",))
    assert dict(header.days) == {DAY: 3}
    again = batch.encode(body, writer="w-1", created_us=7, visible="now", requests=["r-1"])
    wanted = batch.encode(WRITES, writer="w-1", created_us=7, visible="now", requests=["r-1"])
    assert again == wanted


def test_a_pack_of_format_1() -> None:
    stored = (FILES / PACK).read_bytes()
    encoded = pack.encode(BLOCKS, SECTIONS)
    assert encoded.digest == PACK_DIGEST
    pages = golden_pages(stored)
    found = [pack.Block(entry.key, raw, entry.meta) for entry, raw in pack.blocks_of(stored, pages)]
    assert tuple(found) == BLOCKS
    assert pack.encode(found, SECTIONS).digest == PACK_DIGEST


def golden_pages(stored: bytes) -> tuple[pack.Page, ...]:
    """As the manifest of that time held them."""
    return (pack.Page("a", 86, len(stored) - 86),)


def test_a_manifest_of_format_1() -> None:
    read = manifest.decode((FILES / MANIFEST).read_bytes())
    assert read == full_manifest()
    assert manifest.decode(manifest.encode(read)) == read
