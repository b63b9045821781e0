// What the f32 kernels share.
#ifndef FIELDLOOP_KERNELS_F32_H
#define FIELDLOOP_KERNELS_F32_H

#include <stdint.h>

float fl_exp(float x);            // e^x; 0 below -87
float fl_exp_minus_one(float x);  // e^x - 1, without cancellation near 0
float fl_sigmoid(float x);
float fl_tanh(float x);

// acc += x * w over n elements, ascending, each product rounded before it is added.
float fl_dot_f32(const float *x, const float *w, int32_t n, float acc);

// Four rows of weights at once, `row` apart, share the loads of x; each keeps the order of its own sum.
void fl_dot4_f32(const float *x, const float *w, int32_t row, int32_t n, float acc[4]);

static inline float fl_clamp_f32(float v, float lo, float hi) {
    v = v < lo ? lo : v;
    return v > hi ? hi : v;
}

#endif
