#include "f32.h"

float fl_dot_f32(const float *x, const float *w, int32_t n, float acc) {
    for (int32_t i = 0; i < n; i++) {
        acc += x[i] * w[i];
    }
    return acc;
}

void fl_dot4_f32(const float *x, const float *w, int32_t row, int32_t n, float acc[4]) {
    const float *w1 = w + row;
    const float *w2 = w1 + row;
    const float *w3 = w2 + row;
    float a0 = acc[0], a1 = acc[1], a2 = acc[2], a3 = acc[3];
    for (int32_t i = 0; i < n; i++) {
        const float v = x[i];
        a0 += v * w[i];
        a1 += v * w1[i];
        a2 += v * w2[i];
        a3 += v * w3[i];
    }
    acc[0] = a0;
    acc[1] = a1;
    acc[2] = a2;
    acc[3] = a3;
}
