// Mean over any axes in f32: one accumulator an output, elements ascending, then one division.
#include "f32.h"
#include "fieldloop/fl_kernels_f32.h"
#include "mean.h"

static float inner_sum(const fl_mean_walk_t *w, const float *x) {
    float sum = 0.0f;
    for (int32_t i = 0; i < w->inner_n[0]; i++) {
        for (int32_t j = 0; j < w->inner_n[1]; j++) {
            for (int32_t k = 0; k < w->inner_n[2]; k++) {
                const float *v = x + i * w->inner_step[0] + j * w->inner_step[1] + k * w->inner_step[2];
                for (int32_t l = 0; l < w->inner_n[3]; l++) {
                    sum += v[l * w->inner_step[3]];
                }
            }
        }
    }
    return sum;
}

void fl_mean_f32(uint32_t axes, float lo, float hi, const int32_t shape[4], const float *x, float *out) {
    const fl_mean_walk_t w = fl_mean_walk(axes, shape);
    for (int32_t i = 0; i < w.outer_n[0]; i++) {
        for (int32_t j = 0; j < w.outer_n[1]; j++) {
            for (int32_t k = 0; k < w.outer_n[2]; k++) {
                for (int32_t l = 0; l < w.outer_n[3]; l++) {
                    const int32_t from =
                        i * w.outer_step[0] + j * w.outer_step[1] + k * w.outer_step[2] + l * w.outer_step[3];
                    *out++ = fl_clamp_f32(inner_sum(&w, x + from) / (float)w.count, lo, hi);
                }
            }
        }
    }
}
