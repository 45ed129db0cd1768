"""The files under `deploy/`, read."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[2]
DEPLOY: Final = ROOT / "deploy"
IMAGE: Final = "context-plane:0.1.0"


def documents(name: str) -> list[dict[str, Any]]:
    """The documents of a YAML file below `deploy/`."""
    return [found for found in yaml.safe_load_all((DEPLOY / name).read_text()) if found]


def document(name: str) -> dict[str, Any]:
    (found,) = documents(name)
    return found


def is_command(name: str) -> bool:
    """Whether an installed package brings a program of this name."""
    return bool(entry_points(group="console_scripts", name=name))


def values_of(tree: object, key: str) -> Iterator[Any]:
    """Every value under `key`, at any depth."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            if name == key:
                yield value
            yield from values_of(value, key)
    elif isinstance(tree, list):
        for item in tree:
            yield from values_of(item, key)
