"""Small plots for the Dagster UI: SVG images inside of Markdown, drawn from numbers. Pure.

The UI's Markdown lets images through whose source is a data URI, and shows short Markdown in its place, longer behind a
link: so a plot has few elements. Colours suit light and dark pages.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

WIDTH: Final = 420
"""As much as a cell of metadata shows beside the menu on a screen of 1,440 pixels."""
ROW: Final = 18
LABEL: Final = 140
NUMBER: Final = 64
NAME_CHARS_MAX: Final = 20
"""Of a bar, beside it."""
BARS_MAX: Final = 15
"""Rows of a bar chart; what is smaller is summed up in the last one."""
LINE_HEIGHT: Final = 120
PAD: Final = 10
INK: Final = "#7b8794"
FILL: Final = "#4f7cff"
FONT: Final = 'font-family="sans-serif" font-size="12"'


def bars(values: Mapping[str, float], *, unit: str) -> str:
    """Markdown of a bar chart, the largest first; empty for no values. Names are shown as text, never as markup."""
    if not values:
        return ""
    ordered = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    shown = ordered[:BARS_MAX]
    if len(ordered) > BARS_MAX:
        rest = ordered[BARS_MAX - 1 :]
        shown = [*ordered[: BARS_MAX - 1], (f"{len(rest)} others", sum(value for _, value in rest))]
    most = max(value for _, value in shown) or 1
    room = WIDTH - LABEL - NUMBER - 2 * PAD
    drawn = []
    for n, (name, value) in enumerate(shown):
        top = PAD + n * ROW
        length = max(1.0, room * value / most)
        drawn.append(_text(LABEL - 6, top + 13, _shortened(name), anchor="end"))
        drawn.append(f'<rect x="{LABEL}" y="{top + 3}" width="{length:.1f}" height="{ROW - 6}" rx="2" fill="{FILL}"/>')
        drawn.append(_text(LABEL + length + 6, top + 13, f"{value:,.0f}"))
    return _image("".join(drawn), 2 * PAD + ROW * len(shown), alt=f"{unit}, by name")


def line(points: Sequence[tuple[str, float]], *, unit: str) -> str:
    """Markdown of a line over partitions in the order given; empty for fewer than two points, or where all are 0."""
    most = max((value for _, value in points), default=0)
    if len(points) < 2 or most == 0:
        return ""
    step = (WIDTH - 2 * PAD) / (len(points) - 1)
    placed = [
        (PAD + n * step, PAD + 16 + (LINE_HEIGHT - 56) * (1 - value / most)) for n, (_, value) in enumerate(points)
    ]
    path = " ".join(f"{x:.0f},{y:.0f}" for x, y in placed)
    drawn = [
        f'<polyline points="{path}" fill="none" stroke="{FILL}"/>',
        _text(PAD, 14, f"{unit}, at most {most:,.0f}"),
        _text(PAD, LINE_HEIGHT - 8, points[0][0]),
        _text(WIDTH - PAD, LINE_HEIGHT - 8, points[-1][0], anchor="end"),
    ]
    return _image("".join(drawn), LINE_HEIGHT, alt=f"{unit}, by partition")


def _shortened(name: str) -> str:
    return name if len(name) <= NAME_CHARS_MAX else f"{name[: NAME_CHARS_MAX - 1]}…"


def _text(x: float, y: float, text: str, *, anchor: str = "start") -> str:
    at = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:.0f}" y="{y:.0f}"{at}>{escape(text)}</text>'


def _image(drawn: str, height: int, *, alt: str) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">'
    encoded = base64.b64encode(f'{head}<g fill="{INK}" {FONT}>{drawn}</g></svg>'.encode()).decode()
    return f"![{alt}](data:image/svg+xml;base64,{encoded})"
