"""The front of RAM against work as SVG: one field above the other, RAM to the right in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fieldloop.plan.svg_parts import escaped, legend, line, page, text_at, ticks

_LEFT, _TOP, _WIDE, _HIGH, _BETWEEN = 84, 80, 700, 220, 46
_SAME, _MORE = "#3f9b57", "#e08a1e"


@dataclass(frozen=True, slots=True)
class Spot:
    """One plan. `more`: multiply-accumulates to the untiled ones, 0.05 is 5 % more; `added`:
    instructions beside them; `says`: its tooltip.
    """

    ram_bytes: int
    more: float
    added: int
    says: str


def front_svg(title: str, spots: Sequence[Spot]) -> str:
    """Above: multiply-accumulates in percent of the untiled model's; below: what steps cost."""
    names = ((_SAME, "no more multiply-accumulates"), (_MORE, "more multiply-accumulates"))
    parts = legend(names, _LEFT)
    parts.append(text_at(_LEFT, 44, title, "title"))
    across = ticks(max((spot.ram_bytes for spot in spots), default=0))
    rows: list[tuple[str, list[float]]] = [
        ("multiply-accumulates, % of untiled", [100 * (1 + spot.more) for spot in spots]),
        ("instructions that steps add, about", [float(spot.added) for spot in spots]),
    ]
    top = _TOP
    for name, values in rows:
        parts += _field(name, values, spots, across, top)
        top += _HIGH + _BETWEEN
    bottom = top - _BETWEEN
    for tick in across:
        x = _x(tick, across)
        parts.append(text_at(x, bottom + 16, f"{tick:,}", "faint", "middle"))
    parts.append(text_at(_LEFT + _WIDE / 2, bottom + 36, "bytes of RAM", anchor="middle"))
    least = min((spot.ram_bytes for spot in spots), default=0)
    return page(_LEFT + _WIDE + 40, bottom + 50, f"{title}: {least} bytes at the least", parts)


def _x(ram: float, across: Sequence[int]) -> float:
    return _LEFT + _WIDE * ram / across[-1]


def _field(
    name: str, values: Sequence[float], spots: Sequence[Spot], across: Sequence[int], top: int
) -> list[str]:
    bottom = top + _HIGH
    marks = ticks(round(max(values, default=0.0)))
    parts = [text_at(_LEFT, top - 8, name)]
    for tick in marks:
        y = bottom - _HIGH * tick / marks[-1]
        parts.append(line(_LEFT, y, _LEFT + _WIDE, y, "grid"))
        parts.append(text_at(_LEFT - 6, y + 4, f"{tick:,}", "faint", "end"))
    for tick in across:
        parts.append(line(_x(tick, across), top, _x(tick, across), bottom, "grid"))
    for value, spot in zip(values, spots, strict=True):
        x, y = _x(spot.ram_bytes, across), bottom - _HIGH * value / marks[-1]
        color = _MORE if spot.more > 0 else _SAME
        parts.append(
            f'<circle class="band" cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{color}">'
            f"<title>{escaped(spot.says)}</title></circle>"
        )
    return parts
