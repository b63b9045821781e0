// The cut by a radix select: a histogram of 8 bits of the keys tells which bin the k-th largest lies in. Where few share
// that bin, their indices are gathered and the k-th is picked out of them; else the next 8 bits are counted, of that bin's
// keys only. Nearly always two passes. 512 bytes of stack, for the bins and for the gathered indices by turns.
//
// The highest 8 bits of an f32 are its exponent, and half of a map's deltas may share two of them. So for f32 the first
// bins are sixteenths of an octave instead, in a window of 16 octaves that a look at a few entries places; what lies below
// or above goes to the first or the last bin. Where the k-th is found in one of these two the search starts over, from the
// exponents.
#include "learn/cut.h"

enum {
    BINS = 256,
    FEW = 24,            // entries that are cheaper without a histogram
    SAMPLED = 16,        // entries that place the window
    WINDOW_SHIFT = 19,   // bits of a key below a window's bin: 4 of the mantissa's 23 are told apart
    OCTAVE = 16,         // bins
    OCTAVES_ABOVE = 4,   // of the window, from the octave of the largest sampled entry on
};

typedef union {
    uint16_t bins[BINS];
    uint32_t pairs[BINS / 2];
    uint16_t indices[BINS];
} room_t;

// Where the search is: keys whose bits from `above` on are `prefix`, of which the `wanted`-th largest is looked for.
typedef struct {
    uint32_t above, prefix, wanted;
} place_t;

static void clear(room_t *room) {
    for (uint32_t i = 0; i < BINS / 2; i += 4) {  // by hand: a C library's memset may go byte by byte
        room->pairs[i] = 0;
        room->pairs[i + 1] = 0;
        room->pairs[i + 2] = 0;
        room->pairs[i + 3] = 0;
    }
}

// The bin that holds the wanted-th largest, which then is the wanted-th of that bin.
static uint32_t find_bin(const room_t *room, uint32_t *wanted) {
    uint32_t pair = BINS / 2 - 1;
    while (room->pairs[pair] == 0) {
        pair--;
    }
    uint32_t bin = 2 * pair + 1;
    while (room->bins[bin] < *wanted) {
        *wanted -= room->bins[bin--];
    }
    return bin;
}

// The window's lowest bin, counted from key 0 on.
static uint32_t place_window(const fl_ranking_t *r) {
    const uint32_t step = r->n / SAMPLED + 1;
    uint32_t largest = 0;
    for (uint32_t i = step / 2; i < r->n; i += step) {
        uint32_t key = fl_twice_key(FL_BY_BITS, r->words, 0, i) >> 1;
        largest = key > largest ? key : largest;
    }
    uint32_t end = ((largest >> WINDOW_SHIFT) / OCTAVE + OCTAVES_ABOVE) * OCTAVE;
    return end > BINS ? end - BINS : 0;
}

FL_EVERY_WAY uint32_t first_bin(int way, const uint32_t *words, uint32_t seed, uint32_t lowest, uint32_t i) {
    const uint32_t key = fl_twice_key(way, words, seed, i) >> 1;
    if (way != FL_BY_BITS) {
        return key >> (way == FL_BY_MAGNITUDE ? 7 : 23) & (BINS - 1);
    }
    const int32_t bin = ((int32_t)key - (int32_t)lowest) >> WINDOW_SHIFT;  // one instruction with the clamps
    return (uint32_t)(bin < 0 ? 0 : bin > BINS - 1 ? BINS - 1 : bin);
}

FL_EVERY_WAY void count_first(int way, const fl_ranking_t *r, uint32_t lowest, uint16_t *bins) {
    const uint32_t *words = r->words;
    const uint32_t seed = r->seed;
    const uint32_t n = r->n;
    uint32_t i = 0;
    for (; i + 4 <= n; i += 4) {
        bins[first_bin(way, words, seed, lowest, i)]++;
        bins[first_bin(way, words, seed, lowest, i + 1)]++;
        bins[first_bin(way, words, seed, lowest, i + 2)]++;
        bins[first_bin(way, words, seed, lowest, i + 3)]++;
    }
    for (; i < n; i++) {
        bins[first_bin(way, words, seed, lowest, i)]++;
    }
}

FL_EVERY_WAY void count_within(int way, const fl_ranking_t *r, const place_t *at, uint32_t shift, uint16_t *bins) {
    const uint32_t mask = (1u << (at->above - shift)) - 1;
    for (uint32_t i = 0; i < r->n; i++) {
        uint32_t key = fl_twice_key(way, r->words, r->seed, i) >> 1;
        if (key >> at->above == at->prefix) {
            bins[key >> shift & mask]++;
        }
    }
}

typedef struct {
    const uint32_t *words;
    uint32_t seed, least, span;  // doubled keys least..least + span
} range_t;

FL_EVERY_WAY int lies_in(int way, const range_t *v, uint32_t i) {
    return fl_twice_key(way, v->words, v->seed, i) - v->least <= v->span;
}

FL_EVERY_WAY void gather(int way, const fl_ranking_t *r, const place_t *at, uint16_t *indices) {
    const range_t v = {r->words, r->seed, at->prefix << at->above << 1, ((1u << at->above) - 1) << 1};
    const uint32_t n = r->n;
    uint32_t i = 0;
    for (; i + 4 <= n; i += 4) {
        if (lies_in(way, &v, i) || lies_in(way, &v, i + 1) || lies_in(way, &v, i + 2) || lies_in(way, &v, i + 3)) {
            for (uint32_t j = i; j < i + 4; j++) {  // rare
                if (lies_in(way, &v, j)) {
                    *indices++ = (uint16_t)j;
                }
            }
        }
    }
    for (; i < n; i++) {
        if (lies_in(way, &v, i)) {
            *indices++ = (uint16_t)i;
        }
    }
}

// Hoare's selection of the `wanted`-th best of a few: the worst that is kept.
FL_EVERY_WAY fl_cut_t cut_among(int way, const fl_ranking_t *r, uint16_t *indices, uint32_t count, uint32_t wanted) {
    const uint32_t *words = r->words;
    const uint32_t seed = r->seed;
    int32_t target = (int32_t)wanted - 1;
    int32_t low = 0;
    int32_t high = (int32_t)count - 1;
    while (low < high) {
        const uint32_t pivot = indices[(low + high) / 2];
        const uint32_t pivot_key = fl_twice_key(way, words, seed, pivot);
        int32_t i = low;
        int32_t j = high;
        while (i <= j) {
            for (;; i++) {
                uint32_t key = fl_twice_key(way, words, seed, indices[i]);
                if (key < pivot_key || (key == pivot_key && indices[i] >= pivot)) {
                    break;
                }
            }
            for (;; j--) {
                uint32_t key = fl_twice_key(way, words, seed, indices[j]);
                if (key > pivot_key || (key == pivot_key && indices[j] <= pivot)) {
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
    const uint32_t worst = indices[target];
    return (fl_cut_t){fl_twice_key(way, words, seed, worst) >> 1, worst + 1};
}

FL_EVERY_WAY uint32_t count_zeros(int way, const fl_ranking_t *r) {
    uint32_t zeros = 0;
    for (uint32_t i = 0; i < r->n; i++) {
        zeros += fl_twice_key(way, r->words, r->seed, i) == 0;
    }
    return zeros;
}

// Counts all entries; returns the bin of the k-th, and sets `at` to it.
FL_EVERY_WAY uint32_t find_first(int way, const fl_ranking_t *r, room_t *room, place_t *at) {
    at->prefix = way == FL_BY_BITS ? place_window(r) : 0;
    at->above = way == FL_BY_BITS ? WINDOW_SHIFT : way == FL_BY_MAGNITUDE ? 7 : 23;
    clear(room);
    count_first(way, r, at->prefix << WINDOW_SHIFT, room->bins);
    const uint32_t bin = find_bin(room, &at->wanted);
    at->prefix += bin;
    return bin;
}

FL_EVERY_WAY fl_cut_t cut_by_histogram(int way, const fl_ranking_t *r, uint32_t k) {
    room_t room;
    place_t at = {31, 0, k};
    uint32_t held = r->n;
    if (held > FEW) {
        uint32_t bin = find_first(way, r, &room, &at);
        held = room.bins[bin];
        if (bin == 0) {
            // a clamp leaves many zeros, which share the bins of every level: told apart here, once
            uint32_t others = held - count_zeros(way, r);
            if (at.wanted > others) {
                return (fl_cut_t){0, fl_ties_end(way, r, 0, at.wanted - others)};
            }
        }
        if (way == FL_BY_BITS && (bin == 0 || bin == BINS - 1)) {
            at = (place_t){31, 0, k};
            held = r->n;
        }
    }
    while (held > BINS) {
        if (at.above == 0) {
            return (fl_cut_t){at.prefix, fl_ties_end(way, r, at.prefix, at.wanted)};
        }
        const uint32_t shift = at.above > 8 ? at.above - 8 : 0;
        clear(&room);
        count_within(way, r, &at, shift, room.bins);
        const uint32_t bin = find_bin(&room, &at.wanted);
        held = room.bins[bin];
        at.prefix = at.prefix << (at.above - shift) | bin;
        at.above = shift;
    }
    gather(way, r, &at, room.indices);
    return cut_among(way, r, room.indices, held, at.wanted);
}

fl_cut_t fl_cut_by_histogram(const fl_ranking_t *r, uint32_t k) {
    FL_EACH_WAY(r, return cut_by_histogram(way, r, k));
}
