"""A Dockerfile as its instructions, and what its build may see."""

from __future__ import annotations

from pathlib import Path

from docker.utils.build import exclude_paths  # type: ignore[import-untyped]  # it brings no types

Instruction = tuple[str, str]


def instructions(file: Path) -> list[Instruction]:
    """(name, rest) of every instruction, continued lines joined and comments left out."""
    lines = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def visible(file: Path, context: Path) -> list[str]:
    """Paths of the context that reach the build: what `<Dockerfile>.dockerignore` does not hold back."""
    ignored = file.with_name(f"{file.name}.dockerignore").read_text().splitlines()
    patterns = [line for line in ignored if line and not line.startswith("#")]
    found: set[str] = exclude_paths(str(context), patterns)
    return sorted(found - {"Dockerfile"})  # which the library lets through, as a daemon needs it
