"""SQLite: FTS5 and the sqlite-vec extension in one database, through APSW, which brings both a current SQLite and
loadable extensions to every Python.

Settings and their sources (SQLite: "FTS5", "PRAGMA"; sqlite-vec: "vec0", "KNN queries"; its author's "Hybrid full
text search and vector search with SQLite"): FTS5 with porter stemming over unicode61, without columns of its own
(`content=''`), merged into one segment by `optimize`; a query is its words joined by OR without English stop
words, which FTS5 has no list of. Vectors in a vec0 table, which scans exactly: unit vectors by L2 order as cosine
does and scan faster. Filters: the ids of an index over (entity, ts, n) first; vec0 takes them as `rowid IN`,
full text as a condition before the limit. mmap over the whole file, a page cache of 256 MiB, ANALYZE after the
load, statements prepared once (APSW keeps them by text). Hybrid is one statement: two legs as common table
expressions, joined in full, added by reciprocal rank.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from benchmarks.corpus import Corpus, Question
from benchmarks.peers.base import LEG_DEPTH, RRF_K, Built, is_filtered, library, query_text, query_vector
from context_plane.index.analyzer import STOP_WORDS

PRAGMAS: Final = (
    "PRAGMA journal_mode = wal",
    "PRAGMA synchronous = normal",
    "PRAGMA mmap_size = 4294967296",
    "PRAGMA cache_size = -262144",
    "PRAGMA temp_store = memory",
)
CHOSEN: Final = """SELECT n FROM rows
  WHERE (:entities IS NULL OR entity IN (SELECT value FROM json_each(:entities))) AND ts >= :since AND ts < :until"""
CHOSEN_ENTITIES: Final = """SELECT n FROM rows
  WHERE entity IN (SELECT value FROM json_each(:entities)) AND ts >= :since AND ts < :until"""
TEXT: Final = "SELECT rowid AS n FROM texts WHERE texts MATCH :words {chosen} ORDER BY rank LIMIT :k"
VECTOR: Final = "SELECT n FROM vectors WHERE vector MATCH :vector AND k = :k {chosen} ORDER BY distance"
HYBRID: Final = f"""WITH
  text_leg AS (SELECT n, row_number() OVER () AS place FROM ({{text}})),
  vector_leg AS (SELECT n, row_number() OVER () AS place FROM ({{vector}}))
SELECT coalesce(t.n, v.n) AS n FROM text_leg t FULL OUTER JOIN vector_leg v ON t.n = v.n
ORDER BY coalesce(1.0 / ({RRF_K} + t.place), 0) + coalesce(1.0 / ({RRF_K} + v.place), 0) DESC LIMIT :limit"""
TS_MAX: Final = 2**62


class Sqlite:
    NAME: ClassVar[str] = "sqlite"

    def __init__(self) -> None:
        self.apsw = library("apsw")
        self.vec = library("sqlite_vec")
        self.built = Built()
        self.db: Any = None

    def load(self, folder: Path, corpus: Corpus, tuning: Sequence[Question] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.db = self.apsw.Connection(str(folder / "rows.db"))
        self.db.enable_load_extension(True)
        self.db.load_extension(self.vec.loadable_path())
        for pragma in PRAGMAS:
            self.db.execute(pragma)
        stage = self.built.stage
        with stage("rows"):
            self._fill(
                "rows(n INTEGER PRIMARY KEY, entity TEXT, ts INTEGER)",
                "INSERT INTO rows VALUES (?, ?, ?)",
                ((n, event.entity, event.ts_us) for n, event in enumerate(corpus.events)),
            )
        with stage("text"):
            self._fill(
                "VIRTUAL texts USING fts5(text, content='', tokenize='porter unicode61')",
                "INSERT INTO texts(rowid, text) VALUES (?, ?)",
                ((n, event.text or "") for n, event in enumerate(corpus.events)),
            )
            self.db.execute("INSERT INTO texts(texts) VALUES ('optimize')")
        with stage("vector"):
            self._fill(
                f"VIRTUAL vectors USING vec0(n INTEGER PRIMARY KEY, vector float[{corpus.dim}])",
                "INSERT INTO vectors VALUES (?, ?)",
                ((n, vector.tobytes()) for n, vector in enumerate(corpus.vectors)),
            )
        with stage("filters"):
            self.db.execute("CREATE INDEX by_entity ON rows(entity, ts, n)")
            self.db.execute("CREATE INDEX by_ts ON rows(ts, n)")
            self.db.execute("ANALYZE")
        self.db.execute("PRAGMA wal_checkpoint(truncate)")
        self.built.settings |= {"index": "FTS5 and exact vec0"}

    def text(self, question: Question, k: int) -> list[int]:
        words = _words(query_text(question))
        return self._ask(_text_leg(question), question, words=words, k=k) if words else []

    def vector(self, question: Question, k: int) -> list[int]:
        return self._ask(_vector_leg(question), question, vector=query_vector(question).tobytes(), k=k)

    def hybrid(self, question: Question, k: int) -> list[int]:
        words, vector = _words(query_text(question)), query_vector(question).tobytes()
        if not words:
            return self.vector(question, k)
        statement = HYBRID.format(text=_text_leg(question), vector=_vector_leg(question))
        return self._ask(statement, question, words=words, vector=vector, k=LEG_DEPTH * k, limit=k)

    def close(self) -> None:
        if self.db is not None:
            self.db.close()
        self.db = None

    def _fill(self, table: str, insert: str, rows: Any) -> None:
        kind, _, rest = table.rpartition("VIRTUAL ")
        self.db.execute(f"CREATE {'VIRTUAL ' if kind or table.startswith('VIRTUAL ') else ''}TABLE {rest}")
        with self.db:
            self.db.executemany(insert, rows)

    def _ask(self, statement: str, question: Question, **values: Any) -> list[int]:
        if is_filtered(question):
            values["entities"] = None if question.entities is None else json.dumps(question.entities)
            values["since"] = -TS_MAX if question.since_us is None else question.since_us
            values["until"] = TS_MAX if question.until_us is None else question.until_us
        return [n for (n,) in self.db.execute(statement, values)]


def _words(text: str) -> str:
    """FTS5's query for rows that hold any word of the text."""
    words = [word for word in re.findall(r"\w+", text.lower()) if word not in STOP_WORDS]
    return " OR ".join(f'"{word}"' for word in dict.fromkeys(words))


def _text_leg(question: Question) -> str:
    return TEXT.format(chosen=_chosen(question, "+rowid"))  # bare, FTS5 would search once for every id


def _vector_leg(question: Question) -> str:
    return VECTOR.format(chosen=_chosen(question, "n"))


def _chosen(question: Question, column: str) -> str:
    if not is_filtered(question):
        return ""
    return f"AND {column} IN ({CHOSEN if question.entities is None else CHOSEN_ENTITIES})"
