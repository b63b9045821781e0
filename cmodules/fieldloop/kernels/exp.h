// The project's own exponential: 2^n e^r, n the integer nearest to x / ln 2, r = x - n ln 2 with ln 2 split in two so that
// n * LN2_HIGH is exact; e^r on +-0.347 by the degree-7 Taylor-like polynomial of Cephes (Moshier), 1 + r + r^2 P(r). No
// table, no libm, no fma, no fused or reordered sum: the same bits on every machine, within 1 ulp.
#ifndef FIELDLOOP_KERNELS_EXP_H
#define FIELDLOOP_KERNELS_EXP_H

#include <stdint.h>
#include <string.h>

#define FL_LOG2_E 1.44269504f
#define FL_LN2_HIGH 0.693359375f  // 9 bits: times |n| <= 128 exact
#define FL_LN2_LOW (-2.12194440e-4f)
#define FL_EXP_LOWEST (-87.0f)  // e^-87 is still a normal number
#define FL_EXP_HIGHEST 88.0f    // e^88 is finite

static inline float fl_power_of_two(int32_t n) {  // -126 <= n <= 127
    uint32_t bits = (uint32_t)(n + 127) << 23;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// e^r - 1 for r in +-0.347.
static inline float fl_exp_minus_one_small(float r) {
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    float r2 = r * r;
    return p * r2 + r;
}

// e^x for x in FL_EXP_LOWEST..FL_EXP_HIGHEST.
static inline float fl_exp_between(float x) {
    // the conversion truncates towards zero: half a step away from it rounds to nearest
    int32_t n = (int32_t)(x * FL_LOG2_E + (x < 0.0f ? -0.5f : 0.5f));
    float nf = (float)n;
    float r = x - nf * FL_LN2_HIGH;
    r = r - nf * FL_LN2_LOW;
    return (fl_exp_minus_one_small(r) + 1.0f) * fl_power_of_two(n);
}

#endif
