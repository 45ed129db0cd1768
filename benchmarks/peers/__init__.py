"""Other engines on the same rows and questions, and how to read the comparison.

What is measured: one question at a time, from the call into the library until the numbers of the best rows are
in Python's hands. The library runs in the process that asks, its data warm in memory, prepared statements
prepared. PostgreSQL is the exception: it is a server, and its time includes a Unix socket. Rows, texts, vectors
and questions are those of every other system in the run. Query vectors are given; peers never embed.

What each is given: its own documented best settings, named with their source where they are made, indexes on the
columns that filters use, and the least doubled width of its approximate search that reaches a recall@10 of 0.97
on questions like those of the run. A peer counts where it keeps 0.95 on the questions of the run. All stem and
drop stop words of English text, rank rows that hold any of a question's words, and fuse two rankings by
reciprocal rank, each in its own way.

What is compared: the plane's own answers in process stand beside the peers'. Over HTTP the plane adds what a
library never pays: parsing a request, access control, JSON with texts and citations, and the loopback network.
That difference is the plane's two rows, `in_process` and `http`. The peers answer with row numbers alone, which
favours them: fetching texts would be the caller's next step.

What a peer does less: no durable acknowledged log, no tenants, no snapshots, no erasure; this is about search.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Final, cast

from benchmarks.peers.base import Absent, Built, Peer, Unsupported

PEERS: Final = {
    "lancedb": "benchmarks.peers.lance:LanceDb",
    "chroma": "benchmarks.peers.chroma:Chroma",
    "duckdb": "benchmarks.peers.duck:DuckDb",
    "sqlite": "benchmarks.peers.sqlite:Sqlite",
    "postgres": "benchmarks.peers.postgres:Postgres",
    "qdrant": "benchmarks.peers.qdrant:Qdrant",
}
"""Name -> class, imported when opened."""


def open_peers(names: Sequence[str] | None = None) -> list[Peer | tuple[str, str]]:
    """Every named peer (default: all), or (name, why it cannot run here) in its place."""
    return [_opened(name) for name in (PEERS if names is None else names)]


def open_peer(name: str) -> Peer:
    """Raises `Absent` with the reason where the peer cannot run here, `KeyError` for an unknown name."""
    module, _, kind = PEERS[name].partition(":")
    return cast(Peer, getattr(import_module(module), kind)())


def _opened(name: str) -> Peer | tuple[str, str]:
    try:
        return open_peer(name)
    except Absent as reason:
        return name, str(reason)


__all__ = ["PEERS", "Absent", "Built", "Peer", "Unsupported", "open_peer", "open_peers"]
