// From accumulator to int8 in six to ten instructions, equal to finish.h in every byte for every accumulator.
//
// With t = round(acc * multiplier / 2^31) and a right shift of e >= 1, gemmlowp's rounding to the nearest, halves away
// from zero, and the zero point on top are
//
//     (((t - (t < 0)) >> (e - 1)) + 2 * zero + 1) >> 1
//
// and SSAT clamps and does the last shift at once. t is SMMULR(2 * acc, multiplier) where 2 * acc fits a word. Where it
// does not, QADD saturates it, which makes |t| at least 2^29 instead (multipliers are 2^30 or more, or 0): up to e = 21
// both exceed every int8 by more than a zero point, and are clamped to the same. Beyond, t is taken from the product.
#ifndef FIELDLOOP_KERNELS_FINISH_DSP_H
#define FIELDLOOP_KERNELS_FINISH_DSP_H

#include "dsp.h"
#include "finish.h"

// What an output channel is scaled with; `down` = e - 1.
typedef struct {
    int32_t multiplier, down;
} fl_scale_t;

static inline fl_scale_t fl_scale_of(const fl_requant_t *r) {
    const fl_scale_t s = {r->multiplier, ~r->shift};
    return s;
}

enum {
    FL_NEAR = 21,   // down below it: fl_scale_near
    FL_RIGHT = 31,  // fl_scale_far; all others, and what is rounded once: fl_finish
};

static inline int fl_is_clamped(const fl_quant_t *q) {
    return q->act_min != -128 || q->act_max != 127;
}

// twice_zero_1: 2 * zero point + 1
static inline int32_t fl_scale_end(int32_t t, int32_t down, int32_t twice_zero_1) {
    return fl_halve_to_int8(((t + (t >> 31)) >> down) + twice_zero_1);
}

static inline int32_t fl_scale_near(uint32_t acc, fl_scale_t s, int32_t twice_zero_1) {
    return fl_scale_end((int32_t)fl_smmulr(fl_qadd(acc, acc), (uint32_t)s.multiplier), s.down, twice_zero_1);
}

// For FL_NEAR <= down < FL_RIGHT: after so long a shift the zero point has room, which after a short one it might not.
static inline int32_t fl_scale_far(uint32_t acc, fl_scale_t s, int32_t twice_zero_1) {
    return fl_scale_end(fl_high_mul((int32_t)acc, s.multiplier), s.down, twice_zero_1);
}

#endif
