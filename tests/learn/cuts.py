"""Selection of the C core on numpy arrays, for the tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from kernels import c

from fieldloop.runtime.core import core

Array = np.ndarray[Any, Any]

ffi, lib = core()
F32, INT16, RANDOM, U32 = lib.FL_KEYS_F32, lib.FL_KEYS_INT16, lib.FL_KEYS_RANDOM, lib.FL_KEYS_U32
SEARCHES = {
    "auto": lib.FL_SEARCH_AUTO,
    "heap": lib.FL_SEARCH_HEAP,
    "histogram": lib.FL_SEARCH_HISTOGRAM,
    "threshold": lib.FL_SEARCH_THRESHOLD,
}
GUARD = 0xA5A5


@dataclass(frozen=True)
class Ranking:
    """Words of 32 bits and what they are compared by."""

    words: Array
    kind: int = F32
    seed: int = 0

    def c(self) -> Any:
        """The caller keeps this object alive."""
        assert self.words.itemsize == 4 and self.words.flags["C_CONTIGUOUS"]
        words = c(self.words, "uint32_t *")
        return ffi.new("fl_ranking_t *", [words, self.words.size, self.kind, self.seed])

    def keys(self) -> Array:
        """int64, as fl_select.h tells them."""
        if self.kind == RANDOM:
            bits = [lib.fl_random(self.seed, i) >> 1 for i in range(self.words.size)]
            return np.array(bits, np.int64)
        if self.kind == INT16:
            return np.abs(self.words.view(np.int32).ravel().astype(np.int64))
        return (self.words.view(np.uint32).ravel() & 0x7FFFFFFF).astype(np.int64)

    def order(self) -> Array:
        """Indices, the one kept first in front."""
        return np.argsort(-self.keys(), kind="stable")


def f32(values: Any) -> Ranking:
    return Ranking(np.array(values, np.float32))


def int16(values: Any) -> Ranking:
    return Ranking(np.array(values, np.int32), INT16)


def cut(ranking: Ranking, k: int, search: str = "auto") -> tuple[int, int]:
    """(cut, ties_end); the heap has room for k indices and no more."""
    heap = np.full(k + 1, GUARD, np.uint16)
    got = lib.fl_select_cut(ranking.c(), k, SEARCHES[search], c(heap, "uint16_t *"))
    assert heap[k] == GUARD
    return got.cut, got.ties_end


def list_kept(ranking: Ranking, k: int, positions: int, channels: int) -> list[int]:
    """Kept entries of a map as c * positions + position."""
    edge = ffi.new("fl_cut_t *", cut(ranking, k))
    kept = np.full(k + 1, GUARD, np.uint16)
    lib.fl_list_kept(ranking.c(), edge, positions, channels, c(kept, "uint16_t *"))
    assert kept[k] == GUARD
    return [int(i) for i in kept[:k]]


def kept(ranking: Ranking, k: int) -> list[int]:
    """Indices, ascending."""
    return list_kept(ranking, k, 1, ranking.words.size)


def drop_others(ranking: Ranking, k: int) -> Array:
    words = ranking.words.copy()
    lib.fl_drop_others(ranking.c(), ffi.new("fl_cut_t *", cut(ranking, k)), c(words, "uint32_t *"))
    return words
