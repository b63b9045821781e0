// Depthwise convolution. Neighbouring channels lie side by side in inputs and weights, so four of them go together.
#include "finish.h"
#include "kernels/variants.h"
#include "steps.h"
#include "taps.h"

// What one output pixel sees; steps from one tap to the next, across and down.
typedef struct {
    const int8_t *x;  // channel 0 of the map's pixel under the first tap
    const int8_t *w;  // channel 0 of that tap
    int32_t rows, taps;
    int32_t x_row, x_tap;
    int32_t w_row, w_tap;
} patch_t;

static uint32_t one_channel(const patch_t *v, int32_t ic, int32_t oc, int32_t x_zero, int32_t w_zero) {
    uint32_t acc = 0;
    const int8_t *x_row = v->x + ic;
    const int8_t *w_row = v->w + oc;
    for (int32_t r = 0; r < v->rows; r++) {
        for (int32_t i = 0; i < v->taps; i++) {
            acc += (uint32_t)((x_row[i * v->x_tap] - x_zero) * (w_row[i * v->w_tap] - w_zero));
        }
        x_row += v->x_row;
        w_row += v->w_row;
    }
    return acc;
}

// For weights without a zero point.
static void four_channels(const patch_t *v, int32_t c, int32_t x_zero, uint32_t acc[4]) {
    uint32_t a0 = 0, a1 = 0, a2 = 0, a3 = 0;
    const int8_t *x_row = v->x + c;
    const int8_t *w_row = v->w + c;
    for (int32_t r = 0; r < v->rows; r++) {
        const int8_t *x = x_row;
        const int8_t *w = w_row;
        for (int32_t i = v->taps; i > 0; i--) {
            a0 += (uint32_t)((x[0] - x_zero) * w[0]);
            a1 += (uint32_t)((x[1] - x_zero) * w[1]);
            a2 += (uint32_t)((x[2] - x_zero) * w[2]);
            a3 += (uint32_t)((x[3] - x_zero) * w[3]);
            x += v->x_tap;
            w += v->w_tap;
        }
        x_row += v->x_row;
        w_row += v->w_row;
    }
    acc[0] = a0;
    acc[1] = a1;
    acc[2] = a2;
    acc[3] = a3;
}

static patch_t patch_of(const fl_conv_params_t *p, const fl_map_dims_t *d, const int8_t *x, const int8_t *w,
                        fl_taps_t ty, fl_taps_t tx) {
    patch_t v = {.rows = ty.end - ty.first, .taps = tx.end - tx.first, .x = x, .w = w};
    if (v.rows <= 0 || v.taps <= 0) {
        v.rows = 0;  // a window that lies in the padding sees nothing
        return v;
    }
    const int32_t x_step = fl_x_step(d), w_step = fl_w_step(d);
    v.x += ((ty.start + ty.first * p->dilation_h) * d->in_w + tx.start + tx.first * p->dilation_w) * x_step;
    v.w += (ty.first * p->kernel_w + tx.first) * w_step;
    v.w_row = p->kernel_w * w_step;
    v.w_tap = w_step;
    // with a single row or tap the step is never taken, and may not even fit 32 bits
    v.x_row = v.rows > 1 ? p->dilation_h * d->in_w * x_step : 0;
    v.x_tap = v.taps > 1 ? p->dilation_w * x_step : 0;
    return v;
}

void fl_depthwise_conv2d_plain(const fl_conv_params_t *p, const fl_quant_t *q, const fl_map_dims_t *d, const int8_t *x,
                               const int8_t *w, const int32_t *b, void *scratch, int8_t *out) {
    (void)scratch;
    const int32_t step = fl_y_step(d);
    for (int32_t oy = 0; oy < d->out_h; oy++) {
        fl_taps_t ty = fl_taps(oy, p->stride_h, p->pad_top, p->dilation_h, p->kernel_h, d->in_h);
        for (int32_t ox = 0; ox < d->out_w; ox++) {
            fl_taps_t tx = fl_taps(ox, p->stride_w, p->pad_left, p->dilation_w, p->kernel_w, d->in_w);
            patch_t v = patch_of(p, d, x, w, ty, tx);
            int8_t *to = out;
            int32_t oc = 0;
            if (p->depth_multiplier == 1 && q->w_zero == 0) {
                for (; oc + 4 <= d->out_c; oc += 4) {
                    uint32_t acc[4];
                    four_channels(&v, oc, q->x_zero, acc);
                    to = fl_finish_run(q, b, oc, 4, acc, to);
                }
            }
            int32_t ic = oc;  // what is left: oc == ic * depth_multiplier here
            for (; oc < d->out_c; ic++) {
                for (int32_t m = 0; m < p->depth_multiplier; m++, oc++) {
                    const uint32_t acc = one_channel(&v, ic, oc, q->x_zero, q->w_zero);
                    to = fl_finish_run(q, b, oc, 1, &acc, to);
                }
            }
            out += step;
        }
    }
}
