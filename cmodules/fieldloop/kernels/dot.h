// Dot products of a run of inputs with one or four rows of weights: the inner loops of conv2d and fully connected.
// Sums wrap (uint32_t), so that no image, however hostile, makes them undefined.
#ifndef FIELDLOOP_KERNELS_DOT_H
#define FIELDLOOP_KERNELS_DOT_H

#include <stdint.h>

static inline uint32_t fl_dot(const int8_t *x, const int8_t *w, int32_t n, int32_t x_zero) {
    uint32_t acc = 0;
    for (int32_t i = 0; i < n; i++) {
        acc += (uint32_t)((x[i] - x_zero) * w[i]);
    }
    return acc;
}

// The sum of the centred inputs: what a zero point of the weights is multiplied with.
static inline uint32_t fl_centred_sum(const int8_t *x, int32_t n, int32_t x_zero) {
    uint32_t sum = 0;
    for (int32_t i = 0; i < n; i++) {
        sum += (uint32_t)(x[i] - x_zero);
    }
    return sum;
}

// Four rows at once, `row` apart, so that each input is loaded and centred once for four products.
static inline void fl_dot4(const int8_t *x, const int8_t *w, int32_t row, int32_t n, int32_t x_zero, uint32_t acc[4]) {
    const int8_t *w0 = w;
    const int8_t *w1 = w0 + row;
    const int8_t *w2 = w1 + row;
    const int8_t *w3 = w2 + row;
    uint32_t a0 = acc[0], a1 = acc[1], a2 = acc[2], a3 = acc[3];
    for (int32_t i = 0; i < n; i++) {
        int32_t v = x[i] - x_zero;
        a0 += (uint32_t)(v * w0[i]);
        a1 += (uint32_t)(v * w1[i]);
        a2 += (uint32_t)(v * w2[i]);
        a3 += (uint32_t)(v * w3[i]);
    }
    acc[0] = a0;
    acc[1] = a1;
    acc[2] = a2;
    acc[3] = a3;
}

#endif
