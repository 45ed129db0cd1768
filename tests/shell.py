"""Scripts of pages, run as a reader would: by bash, in a folder like a checkout, with this interpreter's programs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.pages import ROOT

OURS: Final = ("CONTEXT_PLANE_", "DAGSTER_", "OTEL_")


def environment(folder: Path) -> dict[str, str]:
    """This interpreter's programs first, over this checkout; everything that is written goes below `folder`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ours = {"CONTEXT_PLANE_CACHE_DIR": str(folder / ".plane" / "cache"), "DO_NOT_TRACK": "1", "PYTHONPATH": str(ROOT)}
    return {**kept, "PATH": path, **ours}


def shell(script: str, folder: Path, variables: Mapping[str, str] | None = None) -> str:
    """Standard output of a script that must succeed."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**environment(folder), **(variables or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.returncode} of {script}\n{done.stdout}\n{done.stderr}"
    return done.stdout
