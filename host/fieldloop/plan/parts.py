"""How something of a length is cut into parts, and into how many it is worth trying."""

from __future__ import annotations

MOST_PARTS = 64


def shares(length: int, parts: int) -> tuple[tuple[int, int], ...]:
    """(first, count) of each part: the longer ones come first, and differ by one."""
    least, longer = divmod(length, parts)
    counts = [least + 1] * longer + [least] * (parts - longer)
    return tuple((sum(counts[:i]), count) for i, count in enumerate(counts))


def part_numbers(length: int) -> list[int]:
    """Numbers of parts worth trying: the least one for each length of the longest part."""
    found: dict[int, int] = {}
    for parts in range(2, min(MOST_PARTS, length) + 1):
        found.setdefault(-(-length // parts), parts)
    return list(found.values())
