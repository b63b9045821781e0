// Cross-entropy of a sample in f32, with our own logarithm: frexp to 0.7..1.41, then the degree-9 polynomial of Cephes
// (Moshier), ln(1 + x) = x - x^2 / 2 + x^3 P(x). No table, no libm, no fma: the same bits on every machine.
#include <string.h>

#include "fieldloop/fl_select.h"
#include "kernels/exp.h"

#define SQUARE_ROOT_OF_HALF 0x3f3504f3u  // bits of 0.70710677
#define ONE 0x3f800000u
#define LEAST_PROBABILITY 5.9604645e-8f  // 2^-24

float fl_loss(float missing) {
    float p = 1.0f - missing;
    if (!(p > LEAST_PROBABILITY)) {
        p = LEAST_PROBABILITY;
    }
    uint32_t bits;
    memcpy(&bits, &p, sizeof bits);
    bits += ONE - SQUARE_ROOT_OF_HALF;
    float octaves = (float)((int32_t)(bits >> 23) - 127);
    bits = (bits & 0x7fffffu) + SQUARE_ROOT_OF_HALF;
    float mantissa;
    memcpy(&mantissa, &bits, sizeof mantissa);
    float x = mantissa - 1.0f;

    float y = 7.0376836292e-2f;
    y = y * x - 1.1514610310e-1f;
    y = y * x + 1.1676998740e-1f;
    y = y * x - 1.2420140846e-1f;
    y = y * x + 1.4249322787e-1f;
    y = y * x - 1.6668057665e-1f;
    y = y * x + 2.0000714765e-1f;
    y = y * x - 2.4999993993e-1f;
    y = y * x + 3.3333331174e-1f;
    float x2 = x * x;
    y = y * x * x2;
    y = y + octaves * FL_LN2_LOW;
    y = y - 0.5f * x2;
    return 0.0f - ((x + y) + octaves * FL_LN2_HIGH);
}
