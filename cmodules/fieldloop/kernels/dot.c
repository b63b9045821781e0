#include "dot.h"

uint32_t fl_dot(const int8_t *x, const int8_t *w, int32_t n, int32_t x_zero) {
    uint32_t acc = 0;
    for (int32_t i = 0; i < n; i++) {
        acc += (uint32_t)((x[i] - x_zero) * w[i]);
    }
    return acc;
}

void fl_dot4(const int8_t *x, const int8_t *w, int32_t row, int32_t n, int32_t x_zero, uint32_t acc[4]) {
    const int8_t *w0 = w;
    const int8_t *w1 = w0 + row;
    const int8_t *w2 = w1 + row;
    const int8_t *w3 = w2 + row;
    uint32_t a0 = acc[0], a1 = acc[1], a2 = acc[2], a3 = acc[3];
    const int8_t *end = x + n;
    do {
        const int32_t v = *x++ - x_zero;
        a0 += (uint32_t)(v * *w0++);
        a1 += (uint32_t)(v * *w1++);
        a2 += (uint32_t)(v * *w2++);
        a3 += (uint32_t)(v * *w3++);
    } while (x != end);
    acc[0] = a0;
    acc[1] = a1;
    acc[2] = a2;
    acc[3] = a3;
}

uint32_t fl_centred_sum(const int8_t *x, int32_t n, int32_t x_zero) {
    uint32_t sum = 0;
    for (int32_t i = 0; i < n; i++) {
        sum += (uint32_t)(x[i] - x_zero);
    }
    return sum;
}
