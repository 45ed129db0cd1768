"""One of several processes over one cache folder: `python -m tests.cache.sharer FOLDER BUDGET NUMBER OF ROUNDS`.

It says that it is ready, begins with a line on its standard input, writes its own share of the entries, reads all of
them in random order, and fails on a payload that is not the one of its name. Then it prints how many entries of others
it has found, and how many it has evicted.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from random import Random

import orjson

from context_plane.cache.disk import DiskCache

ENTRIES = 64


def payload(n: int) -> bytes:
    """1 to 8 KiB that no other entry has."""
    return hashlib.sha256(str(n).encode()).digest() * (32 + 32 * (n % 8))


def main(folder: str, budget: int, number: int, of: int, rounds: int) -> None:
    disk = DiskCache(Path(folder), budget)
    random, found = Random(number), 0
    print("ready", flush=True)
    sys.stdin.readline()
    for n in (random.randrange(ENTRIES) for _ in range(rounds)):
        held = disk.get(f"entry-{n}")
        if held is not None and held != payload(n):
            raise SystemExit(f"entry-{n} holds {len(held)} bytes of something else")
        if n % of != number:
            found += held is not None
        elif held is None:
            disk.put(f"entry-{n}", payload(n))
    sys.stdout.write(orjson.dumps({"found": found, "evictions": disk.evictions}).decode())


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
