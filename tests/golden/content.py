"""What the golden files hold: one fixed value a format, with every field in use.

`python -m tests.golden.content` writes the files of versions that have none yet; it never replaces one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from context_plane.catalog import manifest
from context_plane.layout import batch, pack, segment
from context_plane.model import Delete, Event, Put, Write
from tests.catalog.values import full_manifest

FILES = Path(__file__).parent
DAY = "2026-03-04"
ENTITY = "acct/0042 é"
EVENTS = (
    Event(
        ENTITY,
        1_772_615_700_000_000,
        "zd-8812",
        "zendesk",
        "ticket",
        thread="t-1",
        text="Export fails for large reports\nsince the upgrade 😀",
        attrs={"priority": "high", "open": True, "seats": 40, "score": 0.5, "none": None, "tags": ["export", "pdf"]},
        vector=np.asarray([0.6, 0.8, 0.0], np.float32),
    ),
    Event(ENTITY, 1_772_615_700_000_001, "zd-8813", "zendesk", "ticket"),
)
WRITES: tuple[Write, ...] = (Put(EVENTS[0]), Delete(ENTITY, 1_772_615_700_000_000, "zd-1"), Put(EVENTS[1]))
BLOCKS = (pack.Block("a", b"first", (1, "x")), pack.Block("é", b"second" * 50, (2, None)))
SECTIONS = (b"columns", b"")

SEGMENT = "segment-1.jsonl.zst"
BATCH = "batch-1.jsonl.zst"
PACK = "pack-1.pack"
MANIFEST = "manifest-1.json.zst"


def encoded() -> dict[str, bytes]:
    """File name -> bytes as today's code writes them."""
    return {
        SEGMENT: segment.encode(ENTITY, DAY, EVENTS).stored,
        BATCH: batch.encode(WRITES, writer="w-1", created_us=7, visible="now", requests=["r-1"]),
        PACK: pack.encode(BLOCKS, SECTIONS).stored,
        MANIFEST: manifest.encode(full_manifest()),
    }


if __name__ == "__main__":
    for name, stored in encoded().items():
        if not (FILES / name).exists():
            (FILES / name).write_bytes(stored)
