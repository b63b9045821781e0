// Convolution in f32: one accumulator an output, taps and channels ascending, then the bias.
#include "f32.h"
#include "fieldloop/fl_kernels_f32.h"
#include "taps.h"

// Four channels at once share the loads of x; each keeps the order of its own sum.
static void dot4(const float *x, const float *w, int32_t row, int32_t n, float acc[4]) {
    const float *w1 = w + row;
    const float *w2 = w1 + row;
    const float *w3 = w2 + row;
    float a0 = acc[0], a1 = acc[1], a2 = acc[2], a3 = acc[3];
    for (int32_t i = 0; i < n; i++) {
        const float v = x[i];
        a0 += v * w[i];
        a1 += v * w1[i];
        a2 += v * w2[i];
        a3 += v * w3[i];
    }
    acc[0] = a0;
    acc[1] = a1;
    acc[2] = a2;
    acc[3] = a3;
}

static float dot(const float *x, const float *w, int32_t n, float acc) {
    for (int32_t i = 0; i < n; i++) {
        acc += x[i] * w[i];
    }
    return acc;
}

void fl_conv2d_f32(const fl_conv_params_t *p, float lo, float hi, const fl_map_dims_t *d, const float *x, const float *w,
                   const float *b, float *out) {
    const int32_t groups = p->groups ? p->groups : 1;
    const int32_t w_c = d->in_c / groups;
    const int32_t channels = d->out_c / groups;
    const int32_t row = p->kernel_h * p->kernel_w * w_c;
    const int32_t contiguous = p->dilation_w == 1 && groups == 1;  // the taps of a kernel row, then, are one run
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
                        const float *in = x + pixel * d->in_c + g * w_c;
                        const float *tap = w + c * row + (ky * p->kernel_w + kx) * w_c;
                        if (count == 4) {
                            dot4(in, tap, row, step * w_c, acc);
                        } else {
                            acc[0] = dot(in, tap, step * w_c, acc[0]);
                        }
                    }
                }
                for (int32_t j = 0; j < count; j++, c++) {
                    *out++ = fl_clamp_f32(b ? acc[j] + b[c] : acc[j], lo, hi);
                }
            }
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
                dot4(x, row, in_c, in_c, acc);
            } else {
                acc[0] = dot(x, row, in_c, acc[0]);
            }
            row += count * in_c;
            for (int32_t j = 0; j < count; j++, c++) {
                *out++ = fl_clamp_f32(b ? acc[j] + b[c] : acc[j], lo, hi);
            }
        }
        x += in_c;
    }
}
