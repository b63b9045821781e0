// Mean over any axes, as TensorFlow Lite Micro has it: a 32-bit sum, the count folded into the factor.
#include "mean.h"
#include "requant.h"

fl_mean_walk_t fl_mean_walk(uint32_t axes, const int32_t shape[4]) {
    fl_mean_walk_t w = {{1, 1, 1, 1}, {0}, {1, 1, 1, 1}, {0}, 1};
    int32_t step = 1;
    for (int32_t i = 3; i >= 0; i--) {
        if (axes >> i & 1u) {
            w.inner_n[i] = shape[i];
            w.inner_step[i] = step;
            w.count *= shape[i];
        } else {
            w.outer_n[i] = shape[i];
            w.outer_step[i] = step;
        }
        step *= shape[i];
    }
    return w;
}

// The sum of what one output sees; it wraps.
static uint32_t inner_sum(const fl_mean_walk_t *w, const int8_t *x) {
    uint32_t sum = 0;
    for (int32_t i = 0; i < w->inner_n[0]; i++) {
        for (int32_t j = 0; j < w->inner_n[1]; j++) {
            for (int32_t k = 0; k < w->inner_n[2]; k++) {
                const int8_t *v = x + i * w->inner_step[0] + j * w->inner_step[1] + k * w->inner_step[2];
                for (int32_t l = 0; l < w->inner_n[3]; l++) {
                    const int32_t q = v[l * w->inner_step[3]];
                    sum += (uint32_t)q;
                }
            }
        }
    }
    return sum;
}

void fl_mean(const fl_mean_params_t *p, const fl_mean_quant_t *q, const int32_t shape[4], const int8_t *x, int8_t *out) {
    const fl_mean_walk_t w = fl_mean_walk(p->axes, shape);
    const uint32_t zero = (uint32_t)w.count * (uint32_t)q->x_zero;
    for (int32_t i = 0; i < w.outer_n[0]; i++) {
        for (int32_t j = 0; j < w.outer_n[1]; j++) {
            for (int32_t k = 0; k < w.outer_n[2]; k++) {
                for (int32_t l = 0; l < w.outer_n[3]; l++) {
                    const int32_t from =
                        i * w.outer_step[0] + j * w.outer_step[1] + k * w.outer_step[2] + l * w.outer_step[3];
                    const int32_t sum = (int32_t)(inner_sum(&w, x + from) - zero);
                    *out++ = fl_offset_clamp(fl_requantize(sum, p->out), q->out_zero, q->act_min, q->act_max);
                }
            }
        }
    }
}
