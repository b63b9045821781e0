// Pools and folded activations: no weights, only a way back. in_c = out_c.
#include "fieldloop/fl_backward.h"
#include "kernels/taps.h"

void fl_backward_max_pool(const fl_conv_params_t *p, const fl_map_dims_t *d, const int8_t *x, const float *delta,
                          float *delta_in) {
    for (int32_t i = 0; i < d->in_h * d->in_w * d->in_c; i++) {
        delta_in[i] = 0.0f;
    }
    for (int32_t oy = 0; oy < d->out_h; oy++) {
        fl_taps_t ty = fl_taps(oy, p->stride_h, p->pad_top, 1, p->kernel_h, d->in_h);
        for (int32_t ox = 0; ox < d->out_w; ox++) {
            fl_taps_t tx = fl_taps(ox, p->stride_w, p->pad_left, 1, p->kernel_w, d->in_w);
            for (int32_t c = 0; c < d->out_c; c++) {
                int32_t best = -1;
                for (int32_t iy = ty.start + ty.first; iy < ty.start + ty.end; iy++) {
                    for (int32_t ix = tx.start + tx.first; ix < tx.start + tx.end; ix++) {
                        int32_t at = (iy * d->in_w + ix) * d->in_c + c;
                        if (best < 0 || x[at] > x[best]) {
                            best = at;
                        }
                    }
                }
                if (best >= 0) {
                    delta_in[best] = delta_in[best] + delta[(oy * d->out_w + ox) * d->out_c + c];
                }
            }
        }
    }
}

void fl_backward_avg_pool(const fl_conv_params_t *p, const fl_map_dims_t *d, const float *delta, float *delta_in) {
    for (int32_t i = 0; i < d->in_h * d->in_w * d->in_c; i++) {
        delta_in[i] = 0.0f;
    }
    for (int32_t oy = 0; oy < d->out_h; oy++) {
        fl_taps_t ty = fl_taps(oy, p->stride_h, p->pad_top, 1, p->kernel_h, d->in_h);
        for (int32_t ox = 0; ox < d->out_w; ox++) {
            fl_taps_t tx = fl_taps(ox, p->stride_w, p->pad_left, 1, p->kernel_w, d->in_w);
            float inputs = (float)((ty.end - ty.first) * (tx.end - tx.first));
            const float *out = delta + (oy * d->out_w + ox) * d->out_c;
            for (int32_t iy = ty.start + ty.first; iy < ty.start + ty.end; iy++) {
                for (int32_t ix = tx.start + tx.first; ix < tx.start + tx.end; ix++) {
                    float *in = delta_in + (iy * d->in_w + ix) * d->in_c;
                    for (int32_t c = 0; c < d->out_c; c++) {
                        in[c] = in[c] + out[c] / inputs;
                    }
                }
            }
        }
    }
}

void fl_backward_activation(const int8_t *q, uint32_t n, int32_t act_min, int32_t act_max, float *delta) {
    for (uint32_t i = 0; i < n; i++) {
        if (q[i] <= act_min || q[i] >= act_max) {
            delta[i] = 0.0f;
        }
    }
}
