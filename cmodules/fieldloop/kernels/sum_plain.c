// The kernels in two halves in plain C. Sums wrap: they are kept as uint32_t here, which int32_t may be read as.
#include "finish.h"
#include "patch.h"
#include "sum.h"

void fl_conv2d_sum_plain(const fl_conv_params_t *p, int32_t x_zero, int32_t w_zero, const fl_map_dims_t *d,
                         const fl_part_t *part, const int8_t *x, const int8_t *w, int32_t *acc) {
    uint32_t *sum = (uint32_t *)acc;
    for (int32_t oy = 0; oy < d->out_h; oy++) {
        const fl_taps_t ty = fl_taps(oy, p->stride_h, p->pad_top, p->dilation_h, p->kernel_h, d->in_h);
        for (int32_t ox = 0; ox < d->out_w; ox++, sum += d->out_c) {
            const fl_taps_t tx = fl_taps(ox, p->stride_w, p->pad_left, p->dilation_w, p->kernel_w, d->in_w);
            const fl_patch_t v = fl_patch_of(p, d, d->in_c, part->tap, x, ty, tx);
            const uint32_t base = w_zero ? 0u - (uint32_t)w_zero * fl_patch_sum(&v, x_zero) : 0u;
            int32_t c = 0;
            for (; c + 4 <= d->out_c; c += 4) {
                for (int32_t j = 0; j < 4; j++) {
                    sum[c + j] += base;
                }
                fl_patch_dot4(&v, w + c * part->row, part->row, x_zero, sum + c);
            }
            for (; c < d->out_c; c++) {
                sum[c] += base + fl_patch_dot(&v, w + c * part->row, x_zero);
            }
        }
    }
}

void fl_finish_sums_plain(const fl_quant_t *q, int32_t pixels, int32_t channels, const int32_t *b, const int32_t *acc,
                          int8_t *out, int32_t out_step) {
    for (int32_t i = 0; i < pixels; i++) {
        fl_finish_run(q, b, 0, channels, (const uint32_t *)acc, out);
        acc += channels;
        out += out_step;
    }
}

void fl_pool_sum_plain(int32_t pixels, int32_t channels, const int8_t *x, int32_t x_step, int32_t *acc) {
    uint32_t *sum = (uint32_t *)acc;
    for (int32_t i = 0; i < pixels; i++) {
        for (int32_t c = 0; c < channels; c++) {
            const int32_t v = x[c];
            sum[c] += (uint32_t)v;
        }
        x += x_step;
    }
}
