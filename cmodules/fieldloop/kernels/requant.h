// Fixed-point scaling with gemmlowp's double rounding. Right shifts of negative values are arithmetic on every compiler
// the project supports.
#ifndef FIELDLOOP_KERNELS_REQUANT_H
#define FIELDLOOP_KERNELS_REQUANT_H

#include <stdint.h>

#include "fieldloop/fl_image.h"

// round(a * b / 2^31). gemmlowp adds a nudge with the sign of the product and truncates; that equals adding 2^30 and
// taking the floor. Not both -2^31: that one product needs saturation, and no caller has it.
static inline int32_t fl_high_mul(int32_t a, int32_t b) {
    return (int32_t)(((int64_t)a * b + (1 << 30)) >> 31);
}

// round(x / 2^e), halves away from zero; e in 0..31, x neither -2^31 nor 2^31 - 1.
static inline int32_t fl_divide_by_pot(int32_t x, int32_t e) {
    if (e == 0) {
        return x;
    }
    // one less where x is negative turns "halves up" into "halves away from zero"
    return (((x - (x < 0)) >> (e - 1)) + 1) >> 1;
}

// acc * multiplier / 2^31 * 2^shift. The left shift wraps, as TensorFlow Lite's does in practice.
static inline int32_t fl_requantize(int32_t acc, fl_requant_t r) {
    if (r.shift > 0) {
        return fl_high_mul((int32_t)((uint32_t)acc << r.shift), r.multiplier);
    }
    return fl_divide_by_pot(fl_high_mul(acc, r.multiplier), -r.shift);
}

// The same, rounded once, halves up: FL_OP_SINGLE_ROUNDING.
static inline int32_t fl_requantize_once(int32_t acc, fl_requant_t r) {
    return (int32_t)(((int64_t)acc * r.multiplier + ((int64_t)1 << (30 - r.shift))) >> (31 - r.shift));
}

static inline int8_t fl_clamp(int32_t v, int32_t lo, int32_t hi) {
    v = v < lo ? lo : v;
    return (int8_t)(v > hi ? hi : v);
}

// clamp(zero + v, lo, hi), lo and hi inside int8; clamped first, so that the sum cannot leave 32 bits.
static inline int8_t fl_offset_clamp(int32_t v, int32_t zero, int32_t lo, int32_t hi) {
    v = v < lo - zero ? lo - zero : v;
    return (int8_t)(zero + (v > hi - zero ? hi - zero : v));
}

#endif
