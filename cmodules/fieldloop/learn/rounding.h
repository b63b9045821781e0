// What turns a real step into a whole one, for the files that write weights.
#ifndef FIELDLOOP_LEARN_ROUNDING_H
#define FIELDLOOP_LEARN_ROUNDING_H

#include <string.h>

#include "fieldloop/fl_backward.h"
#include "fieldloop/fl_random.h"

// fl_random(key, index) = fl_mix(key + index * FL_GOLDEN): loops that count the index up add it to the place.
#define FL_GOLDEN 0x9e3779b9u  // 2^32 / golden ratio: spreads neighbouring indices
#define FL_WEIGHT_LIMIT 127
// An int32 accumulator has room for a bias of 2^30 and 32 768 products of 255 * 128 on top.
#define FL_BIAS_LIMIT (1 << 30)

#define FL_TWO_32 4294967296.0f
#define FL_TWO_32_BITS 0x4f800000u

static inline float fl_row_scale(const fl_step_rule_t *u, uint32_t row) {
    return u->w_scale.scale[row * u->w_scale.stride];
}

// Real step of a weight is lr * dLoss/dw, dLoss/dw = x_scale * gradient; divided by the weight's scale.
static inline float fl_weight_factor(const fl_step_rule_t *u, uint32_t row) {
    return (u->lr * u->x_scale) / fl_row_scale(u, row);
}

static inline float fl_bias_factor(const fl_step_rule_t *u, uint32_t row) {
    return u->lr / (u->x_scale * fl_row_scale(u, row));
}

static inline uint32_t fl_bits_of(float v) {
    uint32_t bits;
    memcpy(&bits, &v, 4);
    return bits;
}

// By their bits: a comparison of f32 takes three instructions with an FPU and a call without one.
static inline int fl_is_zero(float v) {
    return (fl_bits_of(v) & 0x7fffffffu) == 0;
}

static inline int fl_is_negative(float v) {
    return (int)(fl_bits_of(v) >> 31);
}

// Integer part of 0 <= v < 2^32. What soft float would do in a call, these few shifts do in place.
static inline uint32_t fl_floor_u32(float v) {
#if defined(__SOFTFP__)
    uint32_t bits = fl_bits_of(v);
    uint32_t exponent = bits >> 23;
    return exponent < 127 ? 0 : ((bits << 8) | 0x80000000u) >> (158 - exponent);
#else
    return (uint32_t)v;
#endif
}

// fl_round_stochastic for 0 <= m < 2^31.
static inline int32_t fl_round_up_or_down(float m, uint32_t bits) {
    int32_t whole = (int32_t)fl_floor_u32(m);
    float fraction = m - (float)whole;
    return whole + (bits < fl_floor_u32(fraction * 4294967296.0f));
}

// What max_step leaves of a step's magnitude; NaN counts as infinite.
static inline float fl_limited(float m, float most, uint32_t *cut) {
    if (fl_bits_of(m) <= fl_bits_of(most)) {
        return m;
    }
    *cut = 1;
    return most;
}

// Returns 1 where the end of int8 held the weight back.
static inline uint32_t fl_move_int8(int8_t *w, int32_t steps) {
    int32_t v = *w - steps;
    int32_t kept = v > FL_WEIGHT_LIMIT ? FL_WEIGHT_LIMIT : v < -FL_WEIGHT_LIMIT ? -FL_WEIGHT_LIMIT : v;
    *w = (int8_t)kept;
    return kept != v;
}

// The same of a weight of 16 bits, w + low / 256, by steps of 1/256.
static inline uint32_t fl_move_int16(int8_t *w, int8_t *low, int32_t steps) {
    const int32_t limit = FL_WEIGHT_LIMIT * 256;
    int32_t v = *w * 256 + *low - steps;
    int32_t kept = v > limit ? limit : v < -limit ? -limit : v;
    int32_t whole = ((kept + 128 + 256 * 256) >> 8) - 256;  // floor((kept + 128) / 256); no negative number is shifted
    *w = (int8_t)whole;
    *low = (int8_t)(kept - 256 * whole);
    return kept != v;
}

// Moves n trained weights from index `at` on by -(factor * values[j]); a value of 0 moves nothing. Adds to *u->clipped.
void fl_move_weights(const fl_step_rule_t *u, const fl_trained_t *t, uint32_t at, float factor, const float *values,
                     uint32_t n);

// fl_step_row for a layer with moments.
void fl_step_row_by_moments(const fl_step_rule_t *u, const fl_trained_t *t, uint32_t row, const float *gradient,
                            uint32_t n);

#endif
