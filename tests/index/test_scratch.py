"""Scratch folders survive what libraries do behind one's back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from context_plane.index.scratch import scratch_folder


def test_a_file_that_appears_while_the_folder_is_removed_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail with a plain TemporaryDirectory: one build in some hundreds ended in `Directory not empty`."""
    real = shutil.rmtree

    def racing(path: str, *args: Any, **kwargs: Any) -> None:
        (Path(path) / ".tantivy-meta.lock").mkdir()
        (Path(path) / ".tantivy-meta.lock" / "held").touch()
        monkeypatch.setattr("os.rmdir", _refuse)
        real(path, *args, **kwargs)

    with scratch_folder() as folder:
        (folder / "meta.json").write_text("{}")
        monkeypatch.setattr(shutil, "rmtree", racing)
    monkeypatch.undo()
    shutil.rmtree(folder, ignore_errors=True)


def _refuse(path: Any, *args: Any, **kwargs: Any) -> None:
    raise OSError(39, "Directory not empty", str(path))
