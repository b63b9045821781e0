// Words, exponents and scales of 16-bit deltas: what is worked out once for a map or a row. Every f32 is taken apart by its
// bits; nothing here is a float operation.
#include "fieldloop/fl_backward_q.h"
#include "learn/q_words.h"

#define OUTPUT_EXPONENT (-15)

void fl_q_from_f32(fl_word_t *delta, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t bits = fl_q_bits(delta[i].f);
        const fl_q_number_t v = fl_q_apart(bits);
        const int32_t drop = OUTPUT_EXPONENT - v.exponent;
        int32_t word = FL_Q_WORD_LIMIT;  // |v| of 1 and above
        if (drop > 8) {
            word = drop <= 25 ? fl_q_shift((int32_t)v.digits, (uint32_t)drop) : 0;
            word = word > FL_Q_WORD_LIMIT ? FL_Q_WORD_LIMIT : word;
        }
        delta[i].q = bits >> 31 ? -word : word;
    }
}

uint32_t fl_q_l1(const int32_t *delta, uint32_t n) {
    uint32_t sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += fl_q_magnitude(delta[i]);
    }
    return sum;
}

float fl_q_real(uint32_t sum, int32_t exponent) {
    union {
        uint32_t bits;
        float f;
    } real;
    if (sum == 0) {
        return 0.0f;
    }
    // the unit of the last of 24 digits, or of a subnormal
    int32_t unit = exponent + 8;
    uint32_t top = sum;
    for (; !(top >> 31); top <<= 1) {
        unit--;
    }
    if (unit < -149) {
        unit = -149;
    }
    const int32_t drop = unit - exponent;
    uint64_t digits = 0;
    if (drop <= 0) {
        digits = (uint64_t)sum << -drop;
    } else if (drop <= 32) {
        const uint64_t half = (uint64_t)1 << (drop - 1);
        const uint64_t odd = ((uint64_t)sum >> drop) & 1;
        digits = ((uint64_t)sum + half - 1 + odd) >> drop;  // halves to even
    }
    // a leading digit at 2^23 counts one up in the field of the exponent, and so does one carried to 2^24
    real.bits = unit > 104 ? 0x7f7fffffu : ((uint32_t)(unit + 149) << 23) + (uint32_t)digits;
    if (real.bits > 0x7f7fffffu) {
        real.bits = 0x7f7fffffu;
    }
    return real.f;
}

int32_t fl_q_scale_exponent(const fl_row_scales_t *scales, uint32_t rows) {
    uint32_t largest = 0;
    for (uint32_t i = 0; i < (scales->stride ? rows : 1); i++) {
        const uint32_t bits = fl_q_bits(scales->scale[i * scales->stride]);  // positive: they order like the numbers
        largest = bits > largest ? bits : largest;
    }
    fl_q_number_t v = fl_q_apart(largest);
    if (v.digits == 0) {
        v.digits = 1;
    }
    for (; v.digits < 1u << 14; v.digits <<= 1) {
        v.exponent--;
    }
    for (; v.digits >= 1u << 15; v.digits >>= 1) {
        v.exponent++;
    }
    return v.exponent;
}

int32_t fl_q_mantissa(float scale, int32_t exponent) {
    const fl_q_number_t v = fl_q_apart(fl_q_bits(scale));
    const int32_t drop = exponent - v.exponent;
    if (drop <= 0) {
        return (int32_t)(v.digits << -drop);  // subnormals: at most 2^15
    }
    return drop <= 25 ? fl_q_shift((int32_t)v.digits, (uint32_t)drop) : 0;
}

uint32_t fl_q_headroom(uint32_t l1, uint32_t entries, uint32_t bound) {
    const uint32_t limit = (UINT32_C(1) << 31) / bound - 1;
    uint32_t r = 0;
    while ((l1 >> r) + entries >= limit) {
        r++;
    }
    return r;
}

int32_t fl_q_scaled(int32_t word, int32_t mantissa, uint32_t r) {
    return fl_q_scale_word(word, mantissa, r);
}

uint32_t fl_q_normalise(int32_t *sums, uint32_t n) {
    uint32_t largest = 0;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t m = fl_q_magnitude(sums[i]);
        largest = m > largest ? m : largest;
    }
    uint32_t h = 0;
    while (fl_q_shift_magnitude(largest, h) > FL_Q_WORD_LIMIT) {
        h++;
    }
    if (h > 0) {
        for (uint32_t i = 0; i < n; i++) {
            sums[i] = fl_q_shift(sums[i], h);
        }
    }
    return h;
}

void fl_q_add(int32_t *a, int32_t *ea, const int32_t *b, int32_t eb, uint32_t n) {
    const int32_t e = *ea > eb ? *ea : eb;
    // a word is nothing from 16 places on
    const uint32_t shift_a = e - *ea < 16 ? (uint32_t)(e - *ea) : 16;
    const uint32_t shift_b = e - eb < 16 ? (uint32_t)(e - eb) : 16;
    uint32_t largest = 0;
    for (uint32_t i = 0; i < n; i++) {
        a[i] = fl_q_shift(a[i], shift_a) + fl_q_shift(b[i], shift_b);
        const uint32_t m = fl_q_magnitude(a[i]);
        largest = m > largest ? m : largest;
    }
    *ea = e;
    if (largest > FL_Q_WORD_LIMIT) {
        for (uint32_t i = 0; i < n; i++) {
            a[i] = fl_q_shift(a[i], 1);
        }
        *ea = e + 1;
    }
}
