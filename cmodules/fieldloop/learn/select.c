// How much to learn from one sample: TinyProp's ratio, TinyPropv2's decision, and the number of kept gradients.
#include "fieldloop/fl_backward.h"
#include "fieldloop/fl_learn.h"

#define Q15_ONE 32768
#define Q15_HALF 16384

// fabsf is an instruction, or a cleared bit: no compiler calls libm for it. Four a turn: a quarter of the counting.
float fl_l1_norm(const float *delta, uint32_t n) {
    float sum = 0.0f;
    const float *end = delta + n;
    for (; end - delta >= 4; delta += 4) {
        sum = sum + __builtin_fabsf(delta[0]);
        sum = sum + __builtin_fabsf(delta[1]);
        sum = sum + __builtin_fabsf(delta[2]);
        sum = sum + __builtin_fabsf(delta[3]);
    }
    for (; delta < end; delta++) {
        sum = sum + __builtin_fabsf(*delta);
    }
    return sum;
}

float fl_propagation_rate(float y, float *y_max, float rho) {
    float faded = rho * *y_max;
    *y_max = y > faded ? y : faded;
    return *y_max > 0.0f ? y / *y_max : 0.0f;
}

float fl_decision(float alpha, float d_min, float d_max) {
    float span = d_max - d_min;
    float above = alpha * span;
    return d_min + above;
}

static uint32_t to_q15(float v) {  // 0 <= v <= 1
    return (uint32_t)(v * (float)Q15_ONE + 0.5f);
}

static uint32_t multiply_q15(uint32_t a, uint32_t b) {
    return (a * b + Q15_HALF) >> 15;
}

uint32_t fl_ratio_q15(const fl_ratio_t *r, float alpha, uint32_t distance) {
    uint32_t s_min = to_q15(r->s_min);
    uint32_t s = s_min + multiply_q15(to_q15(alpha), to_q15(r->s_max) - s_min);
    uint32_t zeta = to_q15(r->zeta);
    for (uint32_t p = 0; p < distance; p++) {
        s = multiply_q15(s, zeta);
    }
    return s;
}

static float ratio_f32(const fl_ratio_t *r, float alpha, uint32_t distance) {
    float span = r->s_max - r->s_min;
    float above = alpha * span;
    float s = r->s_min + above;
    for (uint32_t p = 0; p < distance; p++) {
        s = s * r->zeta;
    }
    return s;
}

uint32_t fl_keep_count(const fl_ratio_t *r, float alpha, uint32_t distance, uint32_t n) {
    uint32_t k;
    if (r->k_rule == FL_K_TRUNC_F32) {
        k = (uint32_t)((float)n * ratio_f32(r, alpha, distance));
    } else {
        k = (uint32_t)(((uint64_t)n * fl_ratio_q15(r, alpha, distance) + Q15_HALF) >> 15);
    }
    if (k < 1) {
        return 1;
    }
    return k < n ? k : n;
}
