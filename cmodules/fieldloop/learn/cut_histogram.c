// The cut by a radix select: a histogram of the keys' highest 8 bits tells which bin the k-th largest lies in. Where few
// share that bin, their indices are gathered and the k-th is picked out of them; else the next 8 bits are counted, of that
// bin's keys only. The highest 8 bits of an f32 are its exponent, and a few hundred deltas share one: mostly two passes,
// or three. 512 bytes of stack, used for the bins and for the gathered indices by turns.
#include <string.h>

#include "learn/cut.h"

enum { BINS = 256 };

// Where the search is: keys whose bits from `above` on are `prefix`, of which the `wanted`-th largest is looked for.
typedef struct {
    uint32_t above, prefix, wanted;
} place_t;

FL_EVERY_WAY void count_all(int way, const fl_ranking_t *r, uint32_t shift, uint16_t *bins) {
    for (uint32_t i = 0; i < r->n; i++) {
        bins[(fl_twice_key(way, r->words, r->seed, i) >> (shift + 1)) % BINS]++;
    }
}

FL_EVERY_WAY void count_within(int way, const fl_ranking_t *r, const place_t *at, uint32_t shift, uint16_t *bins) {
    uint32_t above = at->above + 1;
    uint32_t mask = (1u << (at->above - shift)) - 1;
    for (uint32_t i = 0; i < r->n; i++) {
        uint32_t key = fl_twice_key(way, r->words, r->seed, i);
        if (key >> above == at->prefix) {
            bins[(key >> (shift + 1)) & mask]++;
        }
    }
}

FL_EVERY_WAY uint32_t gather(int way, const fl_ranking_t *r, const place_t *at, uint16_t *indices) {
    uint32_t above = at->above + 1;
    uint32_t count = 0;
    for (uint32_t i = 0; i < r->n; i++) {
        if (fl_twice_key(way, r->words, r->seed, i) >> above == at->prefix) {
            indices[count++] = (uint16_t)i;
        }
    }
    return count;
}

// Hoare's selection of the `wanted`-th best of a few: the worst that is kept.
FL_EVERY_WAY fl_cut_t cut_among(int way, const fl_ranking_t *r, uint16_t *indices, uint32_t count, uint32_t wanted) {
    int32_t target = (int32_t)wanted - 1;
    int32_t low = 0;
    int32_t high = (int32_t)count - 1;
    while (low < high) {
        uint32_t pivot = indices[(low + high) / 2];
        uint32_t pivot_key = fl_twice_key(way, r->words, r->seed, pivot);
        int32_t i = low;
        int32_t j = high;
        while (i <= j) {
            for (;; i++) {
                uint32_t key = fl_twice_key(way, r->words, r->seed, indices[i]);
                if (key != pivot_key ? key < pivot_key : indices[i] >= pivot) {
                    break;
                }
            }
            for (;; j--) {
                uint32_t key = fl_twice_key(way, r->words, r->seed, indices[j]);
                if (key != pivot_key ? key > pivot_key : indices[j] <= pivot) {
                    break;
                }
            }
            if (i <= j) {
                uint16_t index = indices[i];
                indices[i++] = indices[j];
                indices[j--] = index;
            }
        }
        if (j < target) {
            low = i;
        }
        if (target < i) {
            high = j;
        }
    }
    uint32_t worst = indices[target];
    return (fl_cut_t){fl_twice_key(way, r->words, r->seed, worst) >> 1, worst + 1};
}

FL_EVERY_WAY uint32_t count_zeros(int way, const fl_ranking_t *r) {
    uint32_t zeros = 0;
    for (uint32_t i = 0; i < r->n; i++) {
        zeros += fl_twice_key(way, r->words, r->seed, i) == 0;
    }
    return zeros;
}

FL_EVERY_WAY fl_cut_t cut_by_histogram(int way, const fl_ranking_t *r, uint32_t k) {
    uint16_t bins[BINS];  // then the indices gathered
    place_t at = {way == FL_WAY_MAGNITUDE ? 15 : 31, 0, k};
    const uint32_t highest = at.above;
    do {
        uint32_t shift = at.above > 8 ? at.above - 8 : 0;
        memset(bins, 0, sizeof bins);
        if (at.above == highest) {
            count_all(way, r, shift, bins);
        } else {
            count_within(way, r, &at, shift, bins);
        }
        uint32_t digit = BINS - 1;
        while (bins[digit] < at.wanted) {
            at.wanted -= bins[digit--];
        }
        uint32_t held = bins[digit];
        at.prefix = at.prefix << (at.above - shift) | digit;
        at.above = shift;
        if (held <= BINS) {
            gather(way, r, &at, bins);
            return cut_among(way, r, bins, held, at.wanted);
        }
        if (at.prefix == 0 && at.above + 8 >= highest) {
            // a clamp leaves many zeros, and all of them share every bin: looked for apart, once
            uint32_t others = held - count_zeros(way, r);
            if (at.wanted > others) {
                return (fl_cut_t){0, fl_ties_end(way, r, 0, at.wanted - others)};
            }
        }
    } while (at.above > 0);
    return (fl_cut_t){at.prefix, fl_ties_end(way, r, at.prefix, at.wanted)};
}

fl_cut_t fl_cut_by_histogram(const fl_ranking_t *r, uint32_t k) {
    FL_EACH_WAY(r, return cut_by_histogram(way, r, k));
}
