"""DuckDB in process, with its fts and vss extensions from their PyPI packages (nothing is downloaded at run time).

Settings and their sources (DuckDB's documentation: "Full-Text Search extension", "Vector Similarity Search
extension", "Array functions"): `create_fts_index` with English stemming and stop words, asked through its own
`match_bm25`; an HNSW index with its defaults (M 16, ef_construction 128) over inner product, which orders unit
vectors as cosine does, `hnsw_ef_search` doubled from its default of 64 until the recall is reached. The index
finds a constant vector only, hence the literal; as a string it is parsed several times faster than as a list.
The index filters after its search and then lacks rows, so filtered questions scan the rows that pass exactly,
which is what a column store is for. In memory, because the vector index is experimental on disk. Hybrid is one
statement: two legs as common table expressions, joined in full, added by reciprocal rank. As many threads as
there are cores, its default.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Final

import pyarrow as pa

from benchmarks.corpus import Corpus, Question
from benchmarks.peers.base import (
    LEG_DEPTH,
    RRF_K,
    Absent,
    Built,
    is_filtered,
    library,
    query_text,
    query_vector,
    widened,
)

EF_START: Final = 64
EF_END: Final = 1024
TEXT: Final = """SELECT n FROM (SELECT n, fts_main_rows.match_bm25(n, $words) AS score FROM rows {where})
  WHERE score IS NOT NULL ORDER BY score DESC LIMIT {k}"""
NEAR: Final = "SELECT n FROM rows ORDER BY array_negative_inner_product(vector, {vector}) LIMIT {k}"
NEAR_AMONG: Final = "SELECT n FROM rows {where} ORDER BY array_negative_inner_product(vector, {vector}) + 0 LIMIT {k}"
"""The sum keeps the optimizer from its index, which would filter too late."""
HYBRID: Final = f"""WITH text_leg AS (SELECT n, row_number() OVER () AS place FROM ({{text}})),
  vector_leg AS (SELECT n, row_number() OVER () AS place FROM ({{vector}}))
SELECT coalesce(t.n, v.n) AS n FROM text_leg t FULL OUTER JOIN vector_leg v ON t.n = v.n
ORDER BY coalesce(1.0 / ({RRF_K} + t.place), 0) + coalesce(1.0 / ({RRF_K} + v.place), 0) DESC LIMIT $limit"""


class DuckDb:
    NAME: ClassVar[str] = "duckdb"

    def __init__(self) -> None:
        self.duckdb = library("duckdb")
        self.extensions = [_extension(name) for name in ("fts", "vss")]
        self.built = Built()
        self.db: Any = None
        self.dim = 0
        self.ef = EF_START

    def load(self, folder: Path, corpus: Corpus, tuning: Sequence[Question] = ()) -> None:
        self.dim = corpus.dim
        self.db = self.duckdb.connect(":memory:")
        for path in self.extensions:
            self.db.execute(f"LOAD '{path}'")
        stage = self.built.stage
        with stage("rows"):
            self.db.register("given", _rows(corpus))
            # Sorted by time, as events arrive: zone maps then skip what a time range leaves out.
            self.db.execute(
                f"CREATE TABLE rows AS SELECT n, entity, ts, text, vector::FLOAT[{self.dim}] AS vector FROM given"
            )
            self.db.unregister("given")
        with stage("text"):
            self.db.execute("PRAGMA create_fts_index('rows', 'n', 'text', stemmer='english', stopwords='english')")
        with stage("vector"):
            self.db.execute("CREATE INDEX near ON rows USING HNSW (vector) WITH (metric = 'ip')")
        self.db.execute("ANALYZE")
        self.ef = widened(self._near, corpus, tuning, EF_START, EF_END)
        self._widen(self.ef)
        self.built.settings |= {"index": "HNSW", "hnsw_ef_search": self.ef, "M": 16}

    def text(self, question: Question, k: int) -> list[int]:
        where, values = _where(question)
        return self._ask(TEXT.format(where=where, k=k), values | {"words": query_text(question)})

    def vector(self, question: Question, k: int) -> list[int]:
        return self._ask(self._vector_leg(question, k), _where(question)[1])

    def hybrid(self, question: Question, k: int) -> list[int]:
        where, values = _where(question)
        text = TEXT.format(where=where, k=LEG_DEPTH * k)
        statement = HYBRID.format(text=text, vector=self._vector_leg(question, LEG_DEPTH * k))
        return self._ask(statement, values | {"words": query_text(question), "limit": k})

    def close(self) -> None:
        if self.db is not None:
            self.db.close()
        self.db = None

    def _vector_leg(self, question: Question, k: int) -> str:
        literal = f"'{query_vector(question).tolist()}'::FLOAT[{self.dim}]"
        if not is_filtered(question):
            return NEAR.format(vector=literal, k=k)
        return NEAR_AMONG.format(vector=literal, where=_where(question)[0], k=k)

    def _ask(self, statement: str, values: dict[str, Any]) -> list[int]:
        return [row[0] for row in self.db.execute(statement, values).fetchall()]

    def _near(self, question: Question, ef: int) -> list[int]:
        if ef != self.ef:
            self._widen(ef)
        return self.vector(question, 10)

    def _widen(self, ef: int) -> None:
        self.db.execute(f"SET hnsw_ef_search = {ef}")
        self.ef = ef


def _extension(name: str) -> Path:
    """The extension's file inside of its package. Raises `Absent`."""
    spec = find_spec(f"duckdb_extension_{name}")
    if spec is None or spec.origin is None:
        raise Absent(f"needs .[bench]: no module duckdb_extension_{name}")
    return next(Path(spec.origin).parent.rglob("*.duckdb_extension"))


def _rows(corpus: Corpus) -> pa.Table:
    events = corpus.events
    return pa.table(
        {
            "n": range(len(events)),
            "entity": [event.entity for event in events],
            "ts": [event.ts_us for event in events],
            "text": [event.text or "" for event in events],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(corpus.vectors.ravel()), corpus.dim),
        }
    )


def _where(question: Question) -> tuple[str, dict[str, Any]]:
    """A WHERE clause, or nothing, and its parameters."""
    parts: list[str] = []
    values: dict[str, Any] = {}
    if question.entities is not None:
        quoted = ", ".join("'" + entity.replace("'", "''") + "'" for entity in question.entities)
        parts.append(f"entity IN ({quoted})")
    if question.since_us is not None:
        parts.append("ts >= $since")
        values["since"] = question.since_us
    if question.until_us is not None:
        parts.append("ts < $until")
        values["until"] = question.until_us
    return ("WHERE " + " AND ".join(parts) if parts else ""), values
