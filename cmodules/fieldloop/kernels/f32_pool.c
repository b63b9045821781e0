// Pools in f32; the padding takes no part.
#include "f32.h"
#include "fieldloop/fl_kernels_f32.h"
#include "steps.h"
#include "taps.h"

static void pool(const fl_conv_params_t *p, int32_t average, float lo, float hi, const fl_map_dims_t *d, const float *x,
                 float *out) {
    const int32_t x_step = fl_x_step(d);
    const int32_t y_gap = d->y_step ? d->y_step - d->in_c : 0;
    for (int32_t oy = 0; oy < d->out_h; oy++) {
        const fl_taps_t ty = fl_taps(oy, p->stride_h, p->pad_top, 1, p->kernel_h, d->in_h);
        for (int32_t ox = 0; ox < d->out_w; ox++) {
            const fl_taps_t tx = fl_taps(ox, p->stride_w, p->pad_left, 1, p->kernel_w, d->in_w);
            const float *corner = x + ((ty.start + ty.first) * d->in_w + tx.start + tx.first) * x_step;
            const int32_t rows = ty.end - ty.first;
            const int32_t taps = tx.end - tx.first;
            for (int32_t c = 0; c < d->in_c; c++) {
                float best = corner[c];
                float sum = 0.0f;
                for (int32_t ky = 0; ky < rows; ky++) {
                    for (int32_t kx = 0; kx < taps; kx++) {
                        const float v = corner[(ky * d->in_w + kx) * x_step + c];
                        best = v > best ? v : best;
                        sum += v;
                    }
                }
                *out++ = fl_clamp_f32(average ? sum / (float)(rows * taps) : best, lo, hi);
            }
            out += y_gap;
        }
    }
}

void fl_max_pool_f32(const fl_conv_params_t *p, float lo, float hi, const fl_map_dims_t *d, const float *x, float *out) {
    pool(p, 0, lo, hi, d, x, out);
}

void fl_avg_pool_f32(const fl_conv_params_t *p, float lo, float hi, const fl_map_dims_t *d, const float *x, float *out) {
    pool(p, 1, lo, hi, d, x, out);
}
