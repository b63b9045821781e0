// What the f32 kernels share.
#ifndef FIELDLOOP_KERNELS_F32_H
#define FIELDLOOP_KERNELS_F32_H

#include <stdint.h>

float fl_exp(float x);            // e^x; 0 below -87
float fl_exp_minus_one(float x);  // e^x - 1, without cancellation near 0
float fl_sigmoid(float x);
float fl_tanh(float x);

static inline float fl_clamp_f32(float v, float lo, float hi) {
    v = v < lo ? lo : v;
    return v > hi ? hi : v;
}

#endif
