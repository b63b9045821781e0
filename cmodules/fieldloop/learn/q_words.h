// Small integer tools of the 16-bit deltas, shared by the files q_*.c.
#ifndef FIELDLOOP_LEARN_Q_WORDS_H
#define FIELDLOOP_LEARN_Q_WORDS_H

#include <stdint.h>
#include <string.h>

#define FL_Q_WORD_LIMIT 32767

static inline uint32_t fl_q_magnitude(int32_t v) {
    return v < 0 ? 0u - (uint32_t)v : (uint32_t)v;
}

// m / 2^by, halves up; by <= 31, m <= 2^31.
static inline uint32_t fl_q_shift_magnitude(uint32_t m, uint32_t by) {
    return by ? (m + (UINT32_C(1) << (by - 1))) >> by : m;
}

// v / 2^by, halves away from zero.
static inline int32_t fl_q_shift(int32_t v, uint32_t by) {
    const int32_t m = (int32_t)fl_q_shift_magnitude(fl_q_magnitude(v), by);
    return v < 0 ? -m : m;
}

// fl_q_scaled: the product is below 2^30, so nothing is left from 31 places on.
static inline int32_t fl_q_scale_word(int32_t word, int32_t mantissa, uint32_t r) {
    return r < 16 ? fl_q_shift(word * mantissa, 15 + r) : 0;
}

static inline uint32_t fl_q_bits(float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

// |v| of an f32, exactly: digits * 2^exponent, digits below 2^24 (from 2^23 on but for subnormals).
typedef struct {
    uint32_t digits;
    int32_t exponent;
} fl_q_number_t;

static inline fl_q_number_t fl_q_apart(uint32_t bits) {
    const uint32_t field = (bits >> 23) & 0xffu;
    fl_q_number_t v = {bits & 0x7fffffu, (int32_t)field - 150};
    if (field) {
        v.digits |= 0x800000u;
    } else {
        v.exponent = -149;
    }
    return v;
}

#endif
