#include "fieldloop/fl_quantize.h"

#include "core/image.h"

// One real value. The division is in double precision on every machine, so that a quotient beside a tie is
// not rounded into it; it runs once an input element, not in a kernel.
static int8_t quantize_one(float x, float scale, int32_t zero_point) {
    // Whole numbers beside the doubles: some ports turn every floating constant into a float.
    double steps = (double)x / (double)scale;
    if (steps > 512) { // beyond any clamp; also keeps the conversion below defined
        steps = 512;
    } else if (steps < -512) {
        steps = -512;
    } else if (!(steps == steps)) {
        steps = 0;
    }
    int32_t whole = (int32_t)steps;
    double twice = 2 * (steps - (double)whole); // exact, in (-2, 2), sign of steps
    if (twice > 1 || (twice == 1 && (whole & 1) != 0)) {
        ++whole;
    } else if (twice < -1 || (twice == -1 && (whole & 1) != 0)) {
        --whole;
    }
    int32_t q = whole + zero_point;
    return (int8_t)(q < -128 ? -128 : q > 127 ? 127 : q);
}

void fl_quantize(const fl_tensor_t *t, const float *x, int8_t *q, size_t n) {
    for (size_t i = 0; i < n; ++i) {
        q[i] = quantize_one(x[i], t->scale, t->zero_point);
    }
}

void fl_dequantize(const fl_tensor_t *t, const int8_t *q, float *x, size_t n) {
    for (size_t i = 0; i < n; ++i) {
        x[i] = t->scale * (float)(q[i] - t->zero_point);
    }
}

size_t fl_argmax(const fl_tensor_t *t, const void *scores) {
    const int8_t *q = scores;
    const int32_t *whole = scores;
    const float *real = scores;
    const size_t n = fl_elements(t);
    size_t best = 0;
    for (size_t i = 1; i < n; ++i) {
        const int above = t->dtype == FL_I8    ? q[i] > q[best]
                          : t->dtype == FL_F32 ? real[i] > real[best]
                                               : whole[i] > whole[best];
        best = above ? i : best;
    }
    return best;
}
