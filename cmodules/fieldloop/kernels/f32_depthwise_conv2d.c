// Depthwise convolution in f32: one accumulator an output, taps ascending, then the bias.
#include "f32.h"
#include "fieldloop/fl_kernels_f32.h"
#include "steps.h"
#include "taps.h"

void fl_depthwise_conv2d_f32(const fl_conv_params_t *p, float lo, float hi, const fl_map_dims_t *d, const float *x,
                             const float *w, const float *b, float *out) {
    const int32_t x_step = fl_x_step(d);
    const int32_t y_gap = fl_y_step(d) - d->out_c;
    const int32_t w_step = fl_w_step(d);
    for (int32_t oy = 0; oy < d->out_h; oy++) {
        const fl_taps_t ty = fl_taps(oy, p->stride_h, p->pad_top, p->dilation_h, p->kernel_h, d->in_h);
        for (int32_t ox = 0; ox < d->out_w; ox++) {
            const fl_taps_t tx = fl_taps(ox, p->stride_w, p->pad_left, p->dilation_w, p->kernel_w, d->in_w);
            for (int32_t ic = 0, oc = 0; ic < d->in_c; ic++) {
                for (int32_t m = 0; m < p->depth_multiplier; m++, oc++) {
                    float acc = 0.0f;
                    for (int32_t ky = ty.first; ky < ty.end; ky++) {
                        for (int32_t kx = tx.first; kx < tx.end; kx++) {
                            const int32_t pixel =
                                (ty.start + ky * p->dilation_h) * d->in_w + tx.start + kx * p->dilation_w;
                            acc += x[pixel * x_step + ic] * w[(ky * p->kernel_w + kx) * w_step + oc];
                        }
                    }
                    *out++ = fl_clamp_f32(b ? acc + b[oc] : acc, lo, hi);
                }
            }
            out += y_gap;
        }
    }
}
