// What the searches of a cut share: how keys are read. A loop over keys is written once, as an inline function of the way,
// and FL_EACH_WAY compiles it for every way, so that no entry asks what kind of key it has.
//
// Inside the loops keys are doubled, which drops the sign of an f32 in passing: key < 2^31, so nothing is lost.
#ifndef FIELDLOOP_LEARN_CUT_H
#define FIELDLOOP_LEARN_CUT_H

#include "fieldloop/fl_backward.h"
#include "fieldloop/fl_select.h"
#include "learn/rounding.h"

#define FL_EVERY_WAY static inline __attribute__((always_inline))

typedef enum {
    FL_BY_BITS,  // the word without its highest bit: FL_KEYS_F32, FL_KEYS_U32
    FL_BY_MAGNITUDE,
    FL_BY_HASH,
} fl_way_t;

// Returns what `call`, an expression with `way` in it, makes of the ranking's own way.
#define FL_EACH_WAY(r, call)                                     \
    do {                                                         \
        if ((r)->kind == FL_KEYS_INT16) {                        \
            enum { way = FL_BY_MAGNITUDE };                     \
            call;                                                \
        } else if ((r)->kind == FL_KEYS_RANDOM) {                \
            enum { way = FL_BY_HASH };                          \
            call;                                                \
        } else {                                                 \
            enum { way = FL_BY_BITS };                          \
            call;                                                \
        }                                                        \
    } while (0)

FL_EVERY_WAY uint32_t fl_twice_key(int way, const uint32_t *words, uint32_t seed, uint32_t i) {
    if (way == FL_BY_HASH) {
        return fl_mix(seed + i * FL_GOLDEN) & ~1u;  // fl_random in place
    }
    uint32_t word = words[i];
    if (way == FL_BY_MAGNITUDE) {
        word = (word ^ (0u - (word >> 31))) + (word >> 31);
    }
    return word << 1;
}

// End of the ties: one more than the index of the `wanted`-th entry with this key, which exists.
FL_EVERY_WAY uint32_t fl_ties_end(int way, const fl_ranking_t *r, uint32_t key, uint32_t wanted) {
    uint32_t i = 0;
    do {
        wanted -= fl_twice_key(way, r->words, r->seed, i++) == key << 1;
    } while (wanted);
    return i;
}

fl_cut_t fl_cut_by_heap(const fl_ranking_t *r, uint32_t k, uint16_t *heap);
fl_cut_t fl_cut_by_histogram(const fl_ranking_t *r, uint32_t k);
fl_cut_t fl_cut_by_threshold(const fl_ranking_t *r, uint32_t k);

#endif
