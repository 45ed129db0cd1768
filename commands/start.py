"""Where the program starts: Ctrl-C ends it alike while the rest is still being imported. So this imports nothing."""

from __future__ import annotations

INTERRUPTED = 130


def main() -> None:
    """The program, from its first moment."""
    try:
        from commands.main import main as program

        program()
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
