"""What the drawings share: the page, its colours for light and dark, text, lines and ticks.

Plain text without scripts, links or fonts from elsewhere. Names come from files of strangers, so
all text is escaped here and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

CHAR = 6.2  # width of a letter of 11 pixels, about
_STYLE = """
svg { --paper: #ffffff; --ink: #1c1f24; --faint: #8a919c; --line: #e3e6ea; --mark: #b00020;
  background: var(--paper); font: 11px system-ui, sans-serif; }
@media (prefers-color-scheme: dark) {
  svg { --paper: #15171b; --ink: #e8eaed; --faint: #98a0ab; --line: #2c3037; --mark: #ff8a80; } }
.paper { fill: var(--paper); } text { fill: var(--ink); } .faint { fill: var(--faint); }
.title { font-size: 14px; font-weight: 600; } .grid { stroke: var(--line); }
.axis { stroke: var(--faint); } .peak { stroke: var(--mark); stroke-dasharray: 5 3; }
.marked { fill: var(--mark); font-weight: 600; } .on { fill: #14161a; pointer-events: none; }
.band { stroke: var(--paper); stroke-width: 0.7; } .band:hover { fill-opacity: 0.75; }
"""


def page(width: float, height: float, says: str, parts: Sequence[str]) -> str:
    """A whole file; `says`: for who cannot see it."""
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="{escaped(says)}">\n'
        f"<style>{_STYLE}</style>\n"
        f'<rect class="paper" width="{width}" height="{height}"/>\n{body}\n</svg>\n'
    )


def escaped(text: str) -> str:
    """Text for an SVG: what XML has no place for is replaced."""
    legal = "".join(char if _is_legal(char) else "?" for char in text)
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        legal = legal.replace(char, entity)
    return legal.replace("'", "&#39;")


def _is_legal(char: str) -> bool:
    return (
        char in "\t\n"
        or " " <= char <= "\ud7ff"
        or "\ue000" <= char <= "\ufffd"
        or char > "\uffff"
    )


def text_at(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{style} text-anchor="{anchor}">{escaped(text)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def legend(entries: Sequence[tuple[str, str]], left: float) -> list[str]:
    """Colours and what they stand for, in one line at the top."""
    parts, at = [], left
    for color, name in entries:
        parts.append(f'<rect x="{at:.0f}" y="10" width="12" height="12" fill="{color}"/>')
        parts.append(text_at(at + 17, 20, name))
        at += 34 + CHAR * len(name)
    return parts


def letters(wide: float) -> int:
    """How many letters find room."""
    return max(0, int(wide / CHAR))


def ticks(most: int) -> list[int]:
    """0 and five or so round numbers, the last not below `most`."""
    if most <= 0:
        return [0, 1]
    rough = most / 5
    power = 10 ** math.floor(math.log10(rough)) if rough >= 1 else 1
    step = next(
        int(f * power) for f in (1, 2, 2.5, 5, 10) if f * power >= rough and f * power >= 1
    )
    return [step * i for i in range(math.ceil(most / step) + 1)]
