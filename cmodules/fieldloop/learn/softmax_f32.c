// The output error: softmax with cross-entropy on int8 logits, in f32, with our own exponential.
//
// e^x = 2^n e^r, n the integer nearest to x / ln 2, r = x - n ln 2 with ln 2 split in two so that n * LN2_HIGH is exact;
// e^r on +-0.347 by the degree-7 Taylor-like polynomial of Cephes (Moshier), 1 + r + r^2 P(r). No table, no libm, no fma,
// no fused or reordered sum: the same bits on every machine.
#include <string.h>

#include "fieldloop/fl_backward.h"

#define LOG2_E 1.44269504f
#define LN2_HIGH 0.693359375f     // 9 bits: times |n| <= 126 exact
#define LN2_LOW (-2.12194440e-4f)
#define EXP_ZERO_BELOW (-87.0f)  // e^-87 is still a normal number

static float power_of_two(int32_t n) {  // -126 <= n <= 127
    uint32_t bits = (uint32_t)(n + 127) << 23;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

float fl_exp_negative(float x) {
    if (x != x) {
        return x;
    }
    if (x < EXP_ZERO_BELOW) {
        return 0.0f;
    }
    if (x >= 0.0f) {
        return 1.0f;
    }
    int32_t n = (int32_t)(x * LOG2_E - 0.5f);  // truncates towards zero: rounds a negative number to nearest
    float nf = (float)n;
    float r = x - nf * LN2_HIGH;
    r = r - nf * LN2_LOW;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    float r2 = r * r;
    float e = p * r2 + r;
    e = e + 1.0f;
    return e * power_of_two(n);
}

float fl_output_error(const int8_t *q, uint32_t classes, float scale, int32_t zero_point, uint32_t label, float *delta,
                      uint32_t *predicted) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < classes; i++) {
        if (q[i] > q[best]) {
            best = i;
        }
    }
    *predicted = best;

    float highest = (float)((int32_t)q[best] - zero_point) * scale;
    float sum = 0.0f;
    for (uint32_t i = 0; i < classes; i++) {
        float z = (float)((int32_t)q[i] - zero_point) * scale;
        delta[i] = fl_exp_negative(z - highest);
        sum = sum + delta[i];
    }
    for (uint32_t i = 0; i < classes; i++) {
        delta[i] = delta[i] / sum;
    }
    float missing = 1.0f - delta[label];
    delta[label] = delta[label] - 1.0f;
    return 2.0f * missing;
}
