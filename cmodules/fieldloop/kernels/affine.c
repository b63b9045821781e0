// Between f32 and int8 inside a graph, as TensorFlow Lite Micro's QUANTIZE and DEQUANTIZE do it. (Model inputs are
// quantised by core/quantize.c: in double precision, ties to even, as numpy does.)
#include "fieldloop/fl_kernels_f32.h"
#include "requant.h"

void fl_affine_quantize(float scale, int32_t zero_point, int32_t n, const float *x, int8_t *out) {
    for (int32_t i = 0; i < n; i++) {
        float steps = x[i] / scale;
        steps = steps != steps ? 0.0f : steps > 512.0f ? 512.0f : steps < -512.0f ? -512.0f : steps;
        int32_t whole = (int32_t)steps;
        const float rest = steps - (float)whole;  // exact, sign of steps
        whole += rest >= 0.5f ? 1 : rest <= -0.5f ? -1 : 0;  // halves away from zero
        out[i] = fl_clamp(whole + zero_point, -128, 127);
    }
}

void fl_affine_dequantize(float scale, int32_t zero_point, int32_t n, const int8_t *x, float *out) {
    for (int32_t i = 0; i < n; i++) {
        out[i] = scale * (float)(x[i] - zero_point);
    }
}
