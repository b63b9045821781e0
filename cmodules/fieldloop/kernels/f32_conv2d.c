// Convolution in f32: one accumulator an output, taps and channels ascending, then the bias.
#include "f32.h"
#include "fieldloop/fl_kernels_f32.h"
#include "steps.h"
#include "taps.h"

void fl_conv2d_f32(const fl_conv_params_t *p, float lo, float hi, const fl_map_dims_t *d, const float *x, const float *w,
                   const float *b, float *out) {
    const int32_t groups = p->groups ? p->groups : 1;
    const int32_t w_c = d->in_c / groups;
    const int32_t channels = d->out_c / groups;
    const int32_t row = p->kernel_h * p->kernel_w * w_c;
    const int32_t x_step = fl_x_step(d);
    const int32_t y_gap = fl_y_step(d) - d->out_c;
    // the taps of a kernel row, then, are one run
    const int32_t contiguous = p->dilation_w == 1 && groups == 1 && x_step == d->in_c;
    for (int32_t oy = 0; oy < d->out_h; oy++) {
        const fl_taps_t ty = fl_taps(oy, p->stride_h, p->pad_top, p->dilation_h, p->kernel_h, d->in_h);
        for (int32_t ox = 0; ox < d->out_w; ox++) {
            const fl_taps_t tx = fl_taps(ox, p->stride_w, p->pad_left, p->dilation_w, p->kernel_w, d->in_w);
            for (int32_t c = 0; c < d->out_c;) {
                const int32_t g = c / channels;
                const int32_t count = (g + 1) * channels - c >= 4 ? 4 : 1;
                float acc[4] = {0.0f, 0.0f, 0.0f, 0.0f};
                for (int32_t ky = ty.first; ky < ty.end; ky++) {
                    const int32_t step = contiguous ? tx.end - tx.first : 1;
                    for (int32_t kx = tx.first; kx < tx.end; kx += step) {
                        const int32_t pixel =
                            (ty.start + ky * p->dilation_h) * d->in_w + tx.start + kx * p->dilation_w;
                        const float *in = x + pixel * x_step + g * w_c;
                        const float *tap = w + c * row + (ky * p->kernel_w + kx) * w_c;
                        if (count == 4) {
                            fl_dot4_f32(in, tap, row, step * w_c, acc);
                        } else {
                            acc[0] = fl_dot_f32(in, tap, step * w_c, acc[0]);
                        }
                    }
                }
                for (int32_t j = 0; j < count; j++, c++) {
                    *out++ = fl_clamp_f32(b ? acc[j] + b[c] : acc[j], lo, hi);
                }
            }
            out += y_gap;
        }
    }
}

void fl_fully_connected_f32(float lo, float hi, int32_t batch, int32_t out_c, int32_t in_c, const float *x,
                            const float *w, const float *b, float *out) {
    for (int32_t n = 0; n < batch; n++) {
        const float *row = w;
        for (int32_t c = 0; c < out_c;) {
            const int32_t count = out_c - c >= 4 ? 4 : 1;
            float acc[4] = {0.0f, 0.0f, 0.0f, 0.0f};
            if (count == 4) {
                fl_dot4_f32(x, row, in_c, in_c, acc);
            } else {
                acc[0] = fl_dot_f32(x, row, in_c, acc[0]);
            }
            row += count * in_c;
            for (int32_t j = 0; j < count; j++, c++) {
                *out++ = fl_clamp_f32(b ? acc[j] + b[c] : acc[j], lo, hi);
            }
        }
        x += in_c;
    }
}
