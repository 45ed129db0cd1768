"""The command line as a program, in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-c", "from commands.start import main; main()"]
MAPPING = """
version: 1
source: desk
streams:
  - name: tickets
    files: "*.csv"
    columns: {seats: int}
    events:
      - {kind: ticket, entity: account, id: id, ts: at, text: "{{ text }}", attrs: {seats: seats}}
"""
ROWS = """id,account,at,text,seats
t1,acme,2026-03-01T09:00:00Z,the export fails,5
t2,acme,2026-03-02T09:00:00Z,the price is too high,6
t3,beta,2026-03-02T10:00:00Z,all is well,many
t4,beta,2026-03-03T10:00:00Z,the export fails again,7
"""
LOAD = ("ingest", "rows.csv", "--mapping", "desk.yaml", "--tenant", "acme")


class Cli:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CONTEXT_PLANE_")}
        self.environment = {
            **kept,
            "CONTEXT_PLANE_STORE": (folder / "store").as_uri(),
            "CONTEXT_PLANE_CACHE_DIR": str(folder / "cache"),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "",  # containers set it, and what is buffered is a case of its own
        }

    def __call__(self, *words: str, code: int = 0, environment: Mapping[str, str] | None = None) -> str:
        """Standard output; the exit code must be as expected, and no traceback on standard error."""
        env = {**self.environment, **(environment or {})}
        done = subprocess.run([*PROGRAM, *words], cwd=self.folder, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        self.error = done.stderr
        return done.stdout

    def json(self, *words: str, code: int = 0) -> Any:
        return orjson.loads(self(*words, "--json", code=code))
