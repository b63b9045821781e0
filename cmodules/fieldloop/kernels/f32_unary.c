// Functions of one f32 number, and the softmax.
#include "f32.h"
#include "fieldloop/fl_kernels_f32.h"

static float value(const fl_unary_params_t *p, float x) {
    switch (p->kind) {
    case FL_UNARY_RELU:
        return x < 0.0f ? 0.0f : x;
    case FL_UNARY_CLIP:
        return fl_clamp_f32(x, p->a, p->b);
    case FL_UNARY_LEAKY_RELU:
        return x < 0.0f ? p->a * x : x;
    case FL_UNARY_SIGMOID:
        return fl_sigmoid(x);
    case FL_UNARY_TANH:
        return fl_tanh(x);
    case FL_UNARY_HARDSWISH:
        return x * fl_clamp_f32(x + 3.0f, 0.0f, 6.0f) / 6.0f;
    case FL_UNARY_HARDSIGMOID:
        return fl_clamp_f32(x * p->a + p->b, 0.0f, 1.0f);
    case FL_UNARY_ELU:
        return x < 0.0f ? p->a * fl_exp_minus_one(x) : x;
    case FL_UNARY_ABS:
        return x < 0.0f ? -x : x;
    default:
        return fl_exp(x);
    }
}

void fl_unary_f32(const fl_unary_params_t *p, int32_t n, const float *x, float *out) {
    for (int32_t i = 0; i < n; i++) {
        out[i] = value(p, x[i]);
    }
}

void fl_softmax_f32(int32_t rows, int32_t cols, const float *x, float *out) {
    for (int32_t r = 0; r < rows; r++) {
        float top = x[0];
        for (int32_t c = 1; c < cols; c++) {
            top = x[c] > top ? x[c] : top;
        }
        float sum = 0.0f;
        for (int32_t c = 0; c < cols; c++) {
            out[c] = fl_exp(x[c] - top);
            sum += out[c];
        }
        for (int32_t c = 0; c < cols; c++) {
            out[c] = out[c] / sum;
        }
        x += cols;
        out += cols;
    }
}
