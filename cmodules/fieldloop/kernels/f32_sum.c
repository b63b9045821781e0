// The kernels in two halves in f32: each accumulator takes its products one by one, in the order of the whole kernel.
#include "f32.h"
#include "fieldloop/fl_kernels_sum.h"
#include "steps.h"
#include "taps.h"

void fl_conv2d_sum_f32(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_part_t *part, const float *x,
                       const float *w, float *acc) {
    const int32_t x_step = fl_x_step(d);
    // taps side by side are one run where nothing lies between them, neither in x nor in w
    const int32_t contiguous = p->dilation_w == 1 && x_step == d->in_c && part->tap == d->in_c;
    for (int32_t oy = 0; oy < d->out_h; oy++) {
        const fl_taps_t ty = fl_taps(oy, p->stride_h, p->pad_top, p->dilation_h, p->kernel_h, d->in_h);
        for (int32_t ox = 0; ox < d->out_w; ox++, acc += d->out_c) {
            const fl_taps_t tx = fl_taps(ox, p->stride_w, p->pad_left, p->dilation_w, p->kernel_w, d->in_w);
            const int32_t run = contiguous ? tx.end - tx.first : 1;  // taps
            for (int32_t c = 0; c < d->out_c;) {
                const int32_t count = d->out_c - c >= 4 ? 4 : 1;
                for (int32_t ky = ty.first; ky < ty.end; ky++) {
                    for (int32_t kx = tx.first; kx < tx.end; kx += run) {
                        const int32_t pixel =
                            (ty.start + ky * p->dilation_h) * d->in_w + tx.start + kx * p->dilation_w;
                        const float *in = x + pixel * x_step;
                        const float *tap = w + c * part->row + (ky * p->kernel_w + kx) * part->tap;
                        if (count == 4) {
                            fl_dot4_f32(in, tap, part->row, run * d->in_c, acc + c);
                        } else {
                            acc[c] = fl_dot_f32(in, tap, run * d->in_c, acc[c]);
                        }
                    }
                }
                c += count;
            }
        }
    }
}

// Upwards, each accumulator read before its place is written: `out` may be `acc`.
void fl_finish_sums_f32(float lo, float hi, int32_t pixels, int32_t channels, const float *b, const float *acc, float *out,
                        int32_t out_step) {
    for (int32_t i = 0; i < pixels; i++) {
        for (int32_t c = 0; c < channels; c++) {
            out[c] = fl_clamp_f32(b ? acc[c] + b[c] : acc[c], lo, hi);
        }
        acc += channels;
        out += out_step;
    }
}

void fl_pool_sum_f32(int32_t pixels, int32_t channels, const float *x, int32_t x_step, float *acc) {
    for (int32_t i = 0; i < pixels; i++) {
        for (int32_t c = 0; c < channels; c++) {
            acc[c] += x[c];
        }
        x += x_step;
    }
}

void fl_finish_mean_f32(int32_t count, float lo, float hi, int32_t channels, const float *acc, float *out) {
    const float n = (float)count;
    for (int32_t c = 0; c < channels; c++) {
        out[c] = fl_clamp_f32(acc[c] / n, lo, hi);
    }
}
